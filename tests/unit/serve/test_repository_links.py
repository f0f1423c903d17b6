"""Folders of models with odd names, and links that lead anywhere."""

from __future__ import annotations

import os

import pytest

from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository import tree as trees
from atriva_ray.serve.repository.layout import without_clashes
from atriva_ray.serve.repository.store import open_repository
from tests.unit.serve.repositories import by_name, put, write


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def listed(root, **options):
    return by_name(open_repository(str(root), **options).look().models)


def only(root, **options):
    (model,) = listed(root, **options).values()
    return model


def numbers(model):
    return [each.version for each in model.versions]


@pytest.mark.parametrize("name", ["a b", "ä", "a+b", "-a", "~", "a%2f", "a\nb", "a\\b", "x" * 129])
def test_names_that_no_url_can_have_are_listed_with_their_problem(root, name):
    put(root / name / "1", "onnx")
    put(root / "good/1", "onnx")
    models = listed(root)
    assert len(models) == 2
    assert numbers(models.pop("good")) == [1]
    (bad,) = models.values()
    assert bad.is_broken
    assert "no name for a model" in bad.problems[0]
    assert "\n" not in bad.name + bad.problems[0]


def test_a_name_that_is_no_text_hides_no_other(root):
    put(root / "good/1", "onnx")
    for name in (b"\xff\xfe/1/\xfd.onnx", b"good/1/\xff.txt"):
        write(root / os.fsdecode(name), "x")
    models = listed(root)
    assert numbers(models["good"]) == [1]
    assert all(name.isascii() for name in models)
    assert all(each.problems[0].encode() for name, each in models.items() if name != "good")


@pytest.mark.parametrize("link", ["net", "net/1", "net/1/conv.onnx", "net/model.yaml"])
def test_links_must_not_leave_the_repository(root, tmp_path, link):
    outside = tmp_path / "outside"
    put(outside / "net/1", "onnx")
    write(outside / "net/model.yaml", "device: CPU")
    put(root / "good/1", "onnx")
    (root / "net").parent.mkdir(exist_ok=True)
    if link != "net":
        (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(outside / link)
    models = listed(root)
    assert numbers(models["good"]) == [1]
    assert models["net"].versions == ()
    assert "leaves the repository" in models["net"].problems[0]
    allowed = listed(root, allow_links_outside=True)["net"]
    assert not allowed.problems
    assert bool(allowed.versions) == (link != "net/model.yaml")


def test_links_within_the_repository_are_fine(root):
    put(root / "store/1", "onnx")
    (root / "net").mkdir()
    (root / "net/3").symlink_to("../store/1")
    (root / "net/2").symlink_to(root / "store/1")
    assert numbers(listed(root)["net"]) == [2, 3]


def test_the_repository_may_be_a_link_itself(root, tmp_path):
    put(root / "net/1", "onnx")
    (tmp_path / "current").symlink_to(root)
    version = only(tmp_path / "current").versions[0]
    assert version.path == str(tmp_path / "current/net/1/conv.onnx")


def test_links_in_circles_and_into_the_void(root):
    put(root / "good/1", "onnx")
    put(root / "a/1", "onnx")
    (root / "a/1/loop").symlink_to("../..")
    put(root / "b/1", "onnx")
    (root / "b/1/self").symlink_to("self")
    put(root / "c/1", "onnx")
    (root / "c/1/gone").symlink_to("nowhere")
    models = listed(root)
    assert "link to a folder above" in models["a"].problems[0]
    assert "cannot be read" in models["b"].problems[0]
    assert "leads nowhere" in models["c"].problems[0]
    assert numbers(models["good"]) == [1]


def test_a_pipe_is_no_model(root):
    (root / "net/1").mkdir(parents=True)
    os.mkfifo(root / "net/1/model.onnx")
    assert "neither a file nor a folder" in only(root).problems[0]


def test_folders_within_folders_without_end(root):
    put(root / "good/1", "onnx")
    place = put(root / "net/1", "onnx")
    place.joinpath(*["d"] * 100).mkdir(parents=True)
    models = listed(root)
    assert numbers(models["good"]) == [1]
    assert "more than 32 folders deep" in models["net"].problems[0]


def test_a_folder_with_all_the_world_in_it_is_refused(root, monkeypatch):
    monkeypatch.setattr(trees, "MAX_ENTRIES", 10)
    for number in range(1, 12):
        (root / "net" / str(number)).mkdir(parents=True)
    with pytest.raises(RepositoryError, match="more than 10 files and folders"):
        open_repository(str(root)).look()


def test_of_models_that_share_a_name_none_is_served(root):
    put(root / "net/1", "onnx")
    put(root, "tflite", "net")
    put(root, "tflite", "other")
    models = listed(root)
    assert numbers(models["other"]) == [1]
    assert models["net"].is_broken
    assert "2 models are called 'net'" in models["net"].problems[0]
    assert without_clashes(models.values()) == tuple(models.values())
