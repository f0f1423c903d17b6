"""What the flags and files of a command declare, without a cluster."""

from __future__ import annotations

import json
import sys

import pytest

from atriva_inference import OptionError, Preprocessing
from atriva_ray.cli.preprocessing import read_preprocessing
from atriva_ray.errors import ExtraNotInstalledError, InputFileError

NO_FLAGS = dict.fromkeys(("resize", "layout", "mean", "scale", "color", "fit"))


@pytest.fixture
def declared_in(tmp_path):
    """Writes a file and reads it, with these flags beside it."""

    def read(text, **flags):
        path = tmp_path / "declared.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_preprocessing(path, **NO_FLAGS | flags)

    return read


def test_nothing_declared():
    assert read_preprocessing(None, **NO_FLAGS) is None


def test_flags():
    flags = {
        "resize": "224x320",
        "layout": "nhwc:nchw",
        "mean": "123.675,116.28,103.53",
        "scale": "58.4, 57.1, 57.4",
        "color": "BGR",
        "fit": "crop",
    }
    assert read_preprocessing(None, **flags) == Preprocessing(
        resize=(224, 320),
        layout="NHWC:NCHW",
        mean=(123.675, 116.28, 103.53),
        scale=(58.4, 57.1, 57.4),
        color="bgr",
        fit="crop",
    )
    assert read_preprocessing(None, **NO_FLAGS | {"fit": "pad"}) == Preprocessing(fit="pad")


@pytest.mark.parametrize(
    "text",
    [
        "resize: 224x320\nlayout: nchw\nmean: [1, 2.5, 3]\nscale: 127.5\ncolor: bgr\ninput: image",
        "resize: [224, 320]\nlayout: NCHW\nmean: 1,2.5,3\nscale: '127.5'\ncolor: BGR\ninput: image",
    ],
)
def test_a_file(declared_in, text):
    expected = Preprocessing((224, 320), "NCHW", (1, 2.5, 3), (127.5,), "bgr", input="image")
    assert declared_in(text) == expected
    assert declared_in(text, fit="pad", scale="2") == Preprocessing(
        (224, 320), "NCHW", (1, 2.5, 3), (2,), "bgr", "pad", "image"
    )


def test_json_is_yaml(declared_in):
    declared = {"resize": [224, 320], "mean": [4], "color": "gray", "input": None}
    expected = Preprocessing((224, 320), mean=(4,), color="gray")
    assert declared_in(json.dumps(declared)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("std: 1", "preprocessing='std' .* only resize, layout, mean"),
        ("mean: [1, 2]", "one for each of 3 channels"),
        ("mean:", "mean='None'"),
        ("1: 2", "preprocessing='1'"),
    ],
)
def test_what_a_file_should_not_say(declared_in, text, words):
    with pytest.raises(OptionError, match=words):
        declared_in(text)


@pytest.mark.parametrize(
    "text", ["", "mean", "- mean", "mean: [", "mean: !!python/name:os.system", b"\xff", "[" * 5000]
)
def test_what_is_no_such_file(declared_in, text):
    with pytest.raises(InputFileError, match=r"declared\.yaml"):
        declared_in(text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputFileError, match="No such file"):
        read_preprocessing(tmp_path / "none.yaml")


def test_without_pyyaml_it_says_what_to_install(declared_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ExtraNotInstalledError, match=r"pip install 'atriva-ray\[batch\]'"):
        declared_in("mean: 1")
