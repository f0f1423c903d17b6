"""Model files: what kind of model a path is, what belongs to it, and when it has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from atriva_inference.errors import ModelNotFoundError, ModelUnreadableError, OptionError
from atriva_inference.model_files import ModelFiles, ModelFormat


def names_of(files):
    return [name for name, _ in files.parts()]


@pytest.mark.parametrize(
    ("path", "format_", "name", "parts"),
    [
        ("ir/model.xml", ModelFormat.OPENVINO_IR, "model", ["model.bin", "model.xml"]),
        ("onnx/conv.onnx", ModelFormat.ONNX, "conv", ["conv.onnx"]),
        ("tensorflow/frozen.pb", ModelFormat.TENSORFLOW, "frozen", ["frozen.pb"]),
        ("tflite/model.tflite", ModelFormat.TFLITE, "model", ["model.tflite"]),
        (
            "paddle/model.pdmodel",
            ModelFormat.PADDLE,
            "model",
            ["model.pdiparams", "model.pdmodel"],
        ),
        (
            "tensorflow/saved_model",
            ModelFormat.SAVED_MODEL,
            "saved_model",
            [
                "saved_model/fingerprint.pb",
                "saved_model/saved_model.pb",
                "saved_model/variables/variables.data-00000-of-00001",
                "saved_model/variables/variables.index",
            ],
        ),
    ],
)
def test_every_format_is_known_with_all_its_files(models, path, format_, name, parts):
    files = ModelFiles.find(models / path)

    assert files.format is format_
    assert files.name == name
    assert names_of(files) == parts
    assert all(file.is_file() for _, file in files.parts())
    assert files.size_bytes == sum(file.stat().st_size for _, file in files.parts())


def test_a_path_may_be_text_and_its_suffix_in_capitals(tmp_path):
    (tmp_path / "MODEL.ONNX").write_bytes(b"something")
    assert ModelFiles.find(str(tmp_path / "MODEL.ONNX")).format is ModelFormat.ONNX


def test_the_home_directory_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.onnx").write_bytes(b"something")
    assert ModelFiles.find("~/model.onnx").path == tmp_path / "model.onnx"


def test_what_is_not_there_is_looked_for_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"no model file 'model\.onnx'") as caught:
        ModelFiles.find("model.onnx")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", ["model.pdiparams", "model.bin", "model.pt", "model"])
def test_other_files_are_no_models(tmp_path, name):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ModelUnreadableError, match="unknown suffix"):
        ModelFiles.find(tmp_path / name)


def test_what_is_no_path_is_an_option_error():
    with pytest.raises(OptionError, match="model_path"):
        ModelFiles.find(3)


@pytest.mark.parametrize("path", ["/" + "x" * 300 + ".onnx", "~no-such-user/model.onnx"])
def test_what_the_system_refuses_is_a_model_error(path):
    with pytest.raises(ModelUnreadableError) as caught:
        ModelFiles.find(path)
    assert path in str(caught.value)


# -- fingerprints ----------------------------------------------------------------------------


@pytest.fixture
def paddle(models, tmp_path):
    """A copy of a model of two files, to be changed at will."""
    for suffix in ("pdmodel", "pdiparams"):
        content = (models / f"paddle/model.{suffix}").read_bytes()
        (tmp_path / f"model.{suffix}").write_bytes(content)
    return tmp_path / "model.pdmodel"


def test_the_same_content_has_the_same_fingerprint_anywhere(models, paddle):
    there = ModelFiles.find(models / "paddle/model.pdmodel")
    assert ModelFiles.find(paddle).fingerprint == there.fingerprint
    assert len(there.fingerprint) == 64


@pytest.mark.parametrize("suffix", [".pdmodel", ".pdiparams"])
def test_a_change_in_any_file_changes_the_fingerprint(paddle, suffix):
    before = ModelFiles.find(paddle).fingerprint
    file = paddle.with_suffix(suffix)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert ModelFiles.find(paddle).fingerprint != before


def test_bytes_that_move_from_one_file_to_the_next_change_it(tmp_path):
    fingerprints = set()
    for first, second in ((b"ab", b"c"), (b"a", b"bc"), (b"abc", b"")):
        (tmp_path / "m.pdmodel").write_bytes(first)
        (tmp_path / "m.pdiparams").write_bytes(second)
        fingerprints.add(ModelFiles.find(tmp_path / "m.pdmodel").fingerprint)
    assert len(fingerprints) == 3


def test_a_file_that_is_not_part_of_the_model_does_not_matter(paddle):
    before = ModelFiles.find(paddle).fingerprint
    (paddle.parent / "README").write_text("model.pdmodel")
    assert ModelFiles.find(paddle).fingerprint == before


# -- external data ---------------------------------------------------------------------------


@pytest.fixture
def save(tmp_path):
    """Writes an ONNX model whose weights lie in another file."""

    def write(location, weights=("weight",), folder=tmp_path):
        ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in "xy"]
        tensors = [numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in weights]
        nodes = [helper.make_node("Sum", ["x", *weights], ["y"])]
        graph = helper.make_graph(nodes, "external", ports[:1], ports[1:], tensors)
        (folder / location).parent.mkdir(exist_ok=True, parents=True)
        path = folder / "model.onnx"
        path.unlink(missing_ok=True)
        onnx.save_model(
            helper.make_model(graph),
            path,
            save_as_external_data=True,
            all_tensors_to_one_file=location != ".",
            location=None if location == "." else location,
            size_threshold=0,
        )
        return path

    return write


@pytest.mark.parametrize(
    "location", ["model.data", "weights.bin", "deep/down/weights", "w" * 200, "größe.bin"]
)
def test_external_data_belongs_to_the_model(save, location):
    files = ModelFiles.find(save(location))
    assert names_of(files) == sorted(["model.onnx", location])
    assert files.size_bytes > 64


def test_every_tensor_may_have_a_file_of_its_own(save):
    path = save(".", weights=("first", "second"))
    assert names_of(ModelFiles.find(path)) == ["first", "model.onnx", "second"]


def test_other_files_beside_it_do_not_belong_to_it(save, tmp_path):
    path = save("model.data")
    for name in ("weight", "location", "x", "model.dat"):
        (tmp_path / name).write_text("not mine")
    assert names_of(ModelFiles.find(path)) == ["model.data", "model.onnx"]


def test_a_change_in_external_data_changes_the_fingerprint(save, tmp_path):
    path = save("weights/model.data")
    before = ModelFiles.find(path).fingerprint
    (tmp_path / "weights/model.data").write_bytes(b"\1" * 64)
    assert ModelFiles.find(path).fingerprint != before


def test_external_data_that_is_gone_is_left_to_the_backend(save, tmp_path):
    path = save("model.data")
    (tmp_path / "model.data").unlink()
    assert names_of(ModelFiles.find(path)) == ["model.onnx"]


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname", "sub/../../outside.data"])
def test_a_model_cannot_claim_files_outside_its_folder(save, tmp_path, location):
    folder = tmp_path / "inner"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "outside.data").write_text("secret")
    path = save("model.data", folder=folder)
    model = onnx.load(path, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(model.SerializeToString())

    assert names_of(ModelFiles.find(path)) == ["model.onnx"]
    assert Path(tmp_path / "outside.data").is_file()
