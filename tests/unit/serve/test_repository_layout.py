"""Folders of models on a disk: every layout, and everything that can be wrong with one."""

from __future__ import annotations

import os
import shutil

import pytest

from atriva_inference import model_files
from atriva_inference.model_files import ModelFiles, ModelFormat
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository import version_files
from atriva_ray.serve.repository.layout import list_models
from atriva_ray.serve.repository.settings_file import MAX_DOCUMENT_BYTES
from atriva_ray.serve.repository.store import open_model, open_repository
from atriva_ray.serve.repository.tree import read_local
from tests.unit.serve.repositories import SAVED_MODEL, by_name, put, write


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


def is_loadable(version):
    return ModelFiles.find(version.path).format


# -- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "format_"),
    [
        ("onnx", ModelFormat.ONNX),
        ("ir", ModelFormat.OPENVINO_IR),
        ("frozen", ModelFormat.TENSORFLOW),
        ("tflite", ModelFormat.TFLITE),
        ("paddle", ModelFormat.PADDLE),
    ],
)
@pytest.mark.parametrize("place", ["net/1", "net", ""])
def test_every_format_is_found_with_and_without_versions(root, kind, format_, place):
    put(root / place, kind, "net")
    model = only(root)
    assert model.name == "net"
    assert (model.problems, model.warnings, model.unready) == ((), (), ())
    assert numbers(model) == [1]
    version = model.versions[0]
    assert is_loadable(version) is format_
    assert version.size_bytes == ModelFiles.find(version.path).size_bytes


@pytest.mark.parametrize(
    "place", ["net/1/model.savedmodel", "net/1", "net", "net/model.savedmodel", "net/7/other"]
)
def test_a_saved_model_is_a_folder_or_in_one(root, place):
    shutil.copytree(SAVED_MODEL, root / place)
    model = only(root)
    assert model.name == "net"
    assert not model.problems
    assert is_loadable(model.versions[0]) is ModelFormat.SAVED_MODEL
    assert model.versions[0].path == str(root / place)


def test_the_formats_are_those_that_can_be_read():
    assert set(version_files._SUFFIXES) == set(model_files._FORMATS)


def test_an_onnx_model_may_be_in_a_folder_that_is_called_like_one(root):
    put(root / "net/1/model.onnx", "onnx", "model")
    write(root / "net/1/model.onnx/weights", "large tensors")
    version = only(root).versions[0]
    assert version.entry == "model.onnx/model.onnx"
    assert "model.onnx/weights" in version.files


def test_versions_are_counted_as_numbers(root):
    for name in ("1", "2", "10", "9"):
        put(root / "net" / name, "onnx")
    for name in ("0", "01", "latest", "-1", "1.5"):
        put(root / "net" / name, "tflite")
    model = only(root)
    assert numbers(model) == [1, 2, 9, 10]
    assert [each.version for each in model.chosen] == [10]
    assert [w.split(" is no version")[0] for w in model.warnings] == [
        str(root / "net/0"),
        str(root / "net/01"),
    ]


def test_the_version_policy_counts_only_what_is_ready(root):
    put(root / "net/1", "onnx")
    put(root / "net/2", "onnx")
    (root / "net/3").mkdir()
    write(root / "net/model.yaml", "versions: {latest: 2}")
    model = only(root)
    assert [each.version for each in model.chosen] == [1, 2]
    write(root / "net/model.yaml", "versions: [1, 3]")
    assert [each.version for each in only(root).chosen] == [1]


def test_files_beside_each_other_are_models_of_their_own(root):
    put(root, "onnx", "a")
    put(root, "ir", "b")
    put(root, "paddle", "c")
    write(root / "README.md", "about them")
    write(root / "a.onnx_data", "tensors of a")
    models = listed(root)
    assert sorted(models) == ["a", "b", "c"]
    assert models["a"].versions[0].files == ("a.onnx", "a.onnx_data")
    assert models["b"].versions[0].files == ("b.bin", "b.xml")


def test_hidden_files_are_nobodys(root):
    put(root / "net/1", "onnx")
    put(root / ".git/1", "onnx")
    write(root / "net/1/.model.onnx.Xy12", "rsync is at it")
    assert only(root).versions[0].files == ("conv.onnx",)


def test_a_loose_file_beside_versions_is_told_of(root):
    put(root / "net/2", "onnx")
    put(root / "net", "tflite")
    model = only(root)
    assert numbers(model) == [2]
    assert "model.tflite is not served" in model.warnings[0]


def test_a_model_is_no_repository(root):
    put(root / "1", "onnx")
    with pytest.raises(RepositoryError, match="NAME=PATH"):
        open_repository(str(root)).look()
    put(root / "net/1", "onnx")
    assert sorted(listed(root)) == ["1", "net"]
    write(root / "model.yaml", "device: CPU")
    with pytest.raises(RepositoryError, match="a model rather than a folder of models"):
        open_repository(str(root)).look()


def test_an_empty_folder_has_no_models(root):
    assert open_repository(str(root)).look().models == ()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(RepositoryError, match="No such file"):
        open_repository(str(tmp_path / "nowhere")).look()


# -- fingerprints ------------------------------------------------------------------------------


def test_a_fingerprint_is_of_what_belongs_to_the_version(root):
    put(root / "net/1", "ir")
    put(root / "net/2", "onnx")
    before = only(root)
    assert only(root) == before
    write(root / "net/model.yaml", "top_k: 1")
    assert only(root).versions == before.versions
    os.utime(root / "net/1/model.bin", ns=(1, 1))
    after = only(root)
    assert after.versions[0].fingerprint != before.versions[0].fingerprint
    assert after.versions[1] == before.versions[1]


def test_settings_are_no_part_of_a_model_without_versions(root):
    put(root / "net", "onnx")
    before = only(root)
    write(root / "net/model.yaml", "top_k: 1")
    write(root / "net/config.pbtxt", "")
    assert only(root).versions == before.versions
    write(root / "net/tensors/a", "external data")
    assert only(root).versions != before.versions


# -- half-written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "there is nothing"),
        (["model.bin"], "there is 'model.bin'"),
        (["model.pt"], "there is 'model.pt'"),
        (["model.xml"], "its weights 'model.bin' are not"),
        (["net.xml", "model.bin"], "its weights 'net.bin' are not"),
        (["model.onnx", "model.onnx.part"], "still being written"),
        (["model.onnx.filepart"], "still being written"),
        (["saved_model.pb", "variables/variables.index"], "'variables' is not whole"),
        (["m/saved_model.pb", "m/variables/variables.data-00000-of-00002",
          "m/variables/variables.index"], "'variables' is not whole"),
    ],
)  # fmt: skip
def test_what_is_half_written_is_not_ready(root, files, reason):
    put(root / "net/1", "onnx")
    (root / "net/2").mkdir()
    for name in files:
        write(root / "net/2" / name, "something")
    model = only(root)
    assert numbers(model) == [1]
    assert [each.version for each in model.unready] == [2]
    assert reason in model.unready[0].reason
    assert not model.problems


@pytest.mark.parametrize("name", ["model.onnx", "saved_model.pb", "model.xml"])
def test_an_empty_file_is_not_ready(root, name):
    write(root / "net/1" / name, "")
    assert "empty" in only(root).unready[0].reason


def test_two_models_in_one_version_are_a_problem_of_that_version(root):
    put(root / "net/1", "onnx")
    put(root / "net/2", "onnx", "a")
    put(root / "net/2", "tflite", "b")
    model = only(root)
    assert numbers(model) == [1]
    assert "several models: 'a.onnx', 'b.tflite'" in model.problems[0]
    put(root / "net/2", "onnx", "model")
    assert only(root).versions[1].entry == "model.onnx"


# -- settings ----------------------------------------------------------------------------------


def test_settings_and_labels_lie_beside_the_versions(root):
    put(root / "net/1", "onnx")
    write(root / "net/labels.txt", "\ufeffcat\r\n\r\n dog \n\n")
    write(root / "net/model.yaml", "labels: labels.txt\ndevice: CPU")
    settings = only(root).settings
    assert settings.device == "CPU"
    assert settings.labels_of("x") == ("cat", "", "dog")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../good/labels.txt", "not below the model's folder"),
        ("/etc/passwd", "not below the model's folder"),
        ("nowhere.txt", "there is no such file"),
        ("1", "there is no such file"),
        ("link.txt", "leaves the repository"),
    ],
)
def test_labels_cannot_be_just_any_file(root, tmp_path, name, reason):
    put(root / "net/1", "onnx")
    write(tmp_path / "secret.txt", "secret")
    (root / "net/link.txt").symlink_to(tmp_path / "secret.txt")
    write(root / "net/model.yaml", f"labels: {name}")
    model = only(root)
    assert model.is_broken
    assert "model.yaml: line 1: " in model.problems[0]
    assert reason in model.problems[0]


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("model.yaml", "replica: 1", "did you mean 'replicas'?"),
        ("model.yaml", "#" * (MAX_DOCUMENT_BYTES + 1), "larger than"),
        ("model.yaml", "\udcff", "no UTF-8"),
        ("config.pbtxt", "name: ", "line 1: expected a value, found the end"),
        ("config.pbtxt", "\n\ninput [ { name }", "line 3: expected ':'"),
        ("config.pbtxt", "name: 'a", "line 1: cannot make sense of"),
        ("config.pbtxt", "#" * (MAX_DOCUMENT_BYTES + 1), "larger than"),
        ("config.pbtxt", "a { " * 5_000, "nested more than"),
        ("config.pbtxt", "a: [" * 5_000, "expected ',' or ']'"),
        ("config.pbtxt", "max_batch_size: many", "no whole number"),
        ("config.pbtxt", "instance_group { count: 0.5 }", "no whole number"),
    ],
)
def test_settings_that_cannot_be_read_hide_no_other_model(root, file, content, reason):
    put(root / "net/1", "onnx")
    put(root / "good/1", "onnx")
    (root / "net" / file).write_bytes(content.encode(errors="surrogateescape"))
    models = listed(root)
    assert numbers(models["good"]) == [1]
    assert models["net"].is_broken
    assert reason in models["net"].problems[0]
    assert str(root / "net" / file) in models["net"].problems[0]


def test_a_folder_that_is_called_like_the_settings(root):
    put(root / "net/1", "onnx")
    (root / "net/model.yaml").mkdir()
    assert "there is no such file" in only(root).problems[0]


# -- one model on the command line -------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "name"),
    [("conv.onnx", "conv"), ("digits=conv.onnx", "digits"), ("./conv.onnx", "conv")],
)
def test_a_file_is_a_model(root, monkeypatch, argument, name):
    put(root, "onnx")
    (root / "much/more").mkdir(parents=True)
    monkeypatch.chdir(root)
    with open_model(argument) as repository:
        (model,) = repository.look().models
        assert (model.name, numbers(model)) == (name, [1])
        assert repository.fetch(model.versions[0]) == root / "conv.onnx"
        repository.release(model.versions[0])


def test_a_file_that_is_named_may_be_a_link(root, tmp_path):
    put(tmp_path / "blobs", "ir", "abc")
    for suffix in (".xml", ".bin"):
        (root / f"net{suffix}").symlink_to(tmp_path / f"blobs/abc{suffix}")
    (model,) = open_model(str(root / "net.xml")).look().models
    assert numbers(model) == [1]
    assert "leaves the repository" in only(root).problems[0]


def test_a_folder_may_be_a_model_with_versions_and_settings(root):
    put(root / "net/1", "onnx")
    put(root / "net/2", "ir")
    write(root / "net/model.yaml", "versions: all")
    (model,) = open_model(str(root / "net")).look().models
    assert [each.version for each in model.chosen] == [1, 2]
    assert open_model(f"other={root / 'net'}").look().models[0].name == "other"
    shutil.copytree(SAVED_MODEL, root / "saved")
    assert numbers(open_model(str(root / "saved")).look().models[0]) == [1]


def test_an_equals_sign_may_be_in_a_path(root, monkeypatch):
    put(root / "a=b", "onnx")
    put(root, "tflite", "x=y")
    monkeypatch.chdir(root)
    assert open_model("a=b/conv.onnx").look().models[0].name == "conv"
    with pytest.raises(RepositoryError, match="no name for a model"):
        open_model("x=y.tflite")
    assert open_model("z=x=y.tflite").look().models[0].name == "z"


@pytest.mark.parametrize("argument", ["", "name=", "a b=x.onnx", "..=x.onnx", "a b.onnx", "a\0"])
def test_arguments_that_name_no_model(argument):
    with pytest.raises(RepositoryError):
        open_model(argument)


def test_a_file_that_is_not_there_is_said_so(root):
    with pytest.raises(RepositoryError, match="No such file"):
        open_model(str(root / "nowhere.onnx")).look()


def test_a_file_of_another_kind_is_a_problem(root):
    write(root / "net.pt", "x")
    (model,) = open_model(f"net={root / 'net.pt'}").look().models
    assert "no model that can be read; known are .xml, .onnx" in model.problems[0]


def test_a_tree_can_be_listed_without_a_store(root):
    put(root / "net/1", "onnx")
    assert [model.name for model in list_models(read_local(root))] == ["net"]
