"""Input files, without a cluster."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from atriva_inference import InputShapeError, Port
from atriva_ray.cli.inputs import read_inputs
from atriva_ray.errors import InputFileError

F4 = np.dtype("f4")
COLOUR = Port("image", ("image",), F4, (1, 3, 6, 4), "NCHW")


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 12), (10, 20, 30)).save(path)
    return path


def test_an_image_is_scaled_and_keeps_its_values(picture):
    tensor = read_inputs(picture, [COLOUR])["image"]
    assert (tensor.shape, tensor.layout, tensor.dtype) == ((1, 6, 4, 3), "NHWC", np.uint8)
    assert tensor.to_numpy()[0, 0, 0].tolist() == [10, 20, 30]


def test_a_grey_input_gets_one_channel(picture):
    grey = Port("image", ("image",), F4, (-1, 1, 8, 8), "NCHW")
    assert read_inputs(picture, [grey])["image"].shape == (1, 8, 8, 1)


def test_a_dynamic_size_keeps_the_pictures_own(picture):
    free = Port("image", ("image",), F4, (1, 3, -1, -1), "NCHW")
    assert read_inputs(picture, [free])["image"].shape == (1, 12, 8, 3)


@pytest.mark.parametrize(
    ("fit", "top", "left"),
    [("stretch", [10, 20, 30], [10, 20, 30]), ("pad", [10, 20, 30], [0, 0, 0])],
)
def test_an_image_fits_as_declared(picture, fit, top, left):
    pixels_of_a_model = Port("image", ("image",), np.dtype("u1"), (1, 6, 12, 3), "NHWC")
    pixels = read_inputs(picture, [pixels_of_a_model], fit)["image"].to_numpy()
    assert pixels.shape == (1, 6, 12, 3)
    assert pixels[0, 0, 6].tolist() == top
    assert pixels[0, 3, 0].tolist() == left


@pytest.mark.parametrize(
    "port",
    [
        Port("vector", ("vector",), F4, (1, 16), None),
        Port("batch", ("batch",), F4, (4, 3, 6, 4), "NCHW"),
        Port("any", ("any",), F4, None, None),
    ],
)
def test_an_image_for_a_model_of_other_things(picture, port):
    with pytest.raises(InputShapeError, match="an image does not fit"):
        read_inputs(picture, [port])


def test_without_pillow_it_says_what_to_install(picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputFileError, match=r"pip install 'atriva-ray\[images\]'"):
        read_inputs(picture, [COLOUR])


def test_a_picture_of_too_many_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("atriva_ray.pictures._MAX_PIXELS", 10)
    path = tmp_path / "large.png"
    Image.new("RGB", (8, 12)).save(path)
    with pytest.raises(InputFileError, match="8×12 pixels are too many"):
        read_inputs(path, [COLOUR])
