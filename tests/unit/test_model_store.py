"""Copies of models on a node, by content."""

from __future__ import annotations

import os
import shutil

import pytest

from atriva_inference.model_files import ModelFiles
from atriva_ray.errors import ModelFilesMissingError
from atriva_ray.model_store import ModelSource, keep, locate, pack
from tests.conftest import MODELS


@pytest.fixture
def store(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    monkeypatch.setenv("ATRIVA_MODEL_STORE", str(folder))
    return folder


def moved(name, tmp_path):
    """Return a model's description and files, of a place that is gone by now."""
    place = tmp_path / "gone"
    shutil.copytree((MODELS / name).parent, place, dirs_exist_ok=True)
    files = ModelFiles.find(place / (MODELS / name).name)
    source, archive = ModelSource.of(files), pack(files)
    shutil.rmtree(place)
    return source, archive


@pytest.mark.parametrize("name", ["onnx/conv.onnx", "ir/model.xml", "tensorflow/saved_model"])
def test_a_kept_model_is_found_again(store, tmp_path, name):
    source, archive = moved(name, tmp_path)
    with pytest.raises(ModelFilesMissingError, match="was not sent a copy"):
        locate(source)
    assert keep(source, archive).fingerprint == source.fingerprint
    assert locate(source).path.is_relative_to(store)
    assert keep(source, archive).path == locate(source).path


def test_a_path_with_other_content_is_passed_over(store, tmp_path):
    source, archive = moved("onnx/conv.onnx", tmp_path)
    keep(source, archive)
    shutil.copytree(MODELS / "onnx", tmp_path / "gone")
    shutil.copy(MODELS / "onnx" / "half.onnx", source.path)
    assert locate(source).path.is_relative_to(store)


def test_names_cannot_leave_the_store(store, tmp_path):
    source, archive = moved("onnx/conv.onnx", tmp_path)
    for name in ("../evil", "/evil"):
        with pytest.raises(ModelFilesMissingError, match="bad name"):
            keep(source, {name: archive["conv.onnx"]})


def test_a_damaged_copy_is_refused_and_mended(store, tmp_path):
    source, archive = moved("onnx/conv.onnx", tmp_path)
    with pytest.raises(ModelFilesMissingError):
        keep(source, {"conv.onnx": archive["conv.onnx"][:-1]})
    assert keep(source, archive).fingerprint == source.fingerprint


def test_the_least_recently_used_goes_and_foreign_files_stay(store, tmp_path, monkeypatch):
    (store / "mine").mkdir(parents=True)
    (store / "mine" / "photo.raw").write_bytes(b"x" * 10_000)
    first, content = moved("onnx/conv.onnx", tmp_path)
    keep(first, content)
    os.utime(store / first.fingerprint, (0, 0))
    second, other = moved("onnx/half.onnx", tmp_path)
    monkeypatch.setenv("ATRIVA_MODEL_STORE_BYTES", "1")
    keep(second, other)
    assert {folder.name for folder in store.iterdir()} == {"mine", second.fingerprint}


def test_a_link_to_a_folder_is_not_trusted(store, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store.symlink_to(elsewhere)
    source, archive = moved("onnx/conv.onnx", tmp_path)
    with pytest.raises(ModelFilesMissingError):
        keep(source, archive)
