"""Preprocessing: what may be declared, and which input of a model it is for."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.errors import OptionError
from atriva_inference.pixel_input import PixelInput
from atriva_inference.ports import Port, guess_image_layout
from atriva_inference.preprocess import Preprocessing, check_preprocessing

sides = st.integers(1, 65_535)
layouts = st.sampled_from(["NHWC", "NCHW", "NHWC:NCHW", "NCHW:NCHW", "NCHW:NHWC", "NHWC:NHWC"])
means = st.floats(-(2.0**100), 2.0**100)
scales = means.filter(lambda value: abs(value) > 2.0**-100)


@st.composite
def preprocessings(draw):
    color = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    counts = st.sampled_from([0, 1, 1 if color == "gray" else 3])

    def numbers(values):
        return tuple(draw(values) for _ in range(draw(counts)))

    return Preprocessing(
        resize=draw(st.none() | st.tuples(sides, sides)),
        layout=draw(layouts),
        mean=numbers(means),
        scale=numbers(scales),
        color=color,
        fit=draw(st.sampled_from(["stretch", "crop", "pad"])),
        input=draw(st.none() | st.text(min_size=1)),
    )


def as_text(each):
    """The same as the command line and YAML files may write it."""
    written = {"layout": each.layout.lower(), "color": each.color.upper(), "fit": each.fit.title()}
    if each.resize is not None:
        written["resize"] = "{}x{}".format(*each.resize)
    if each.input is not None:
        written["input"] = each.input
    for option in ("mean", "scale"):
        if values := getattr(each, option):
            written[option] = ", ".join(map(repr, values))
    return written


def as_lists(each):
    written = {name: getattr(each, name) for name in each.__slots__}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in written.items()}


@given(preprocessings())
def test_however_it_is_written_it_is_the_same(each):
    for same in (
        Preprocessing.from_mapping(as_text(each)),
        Preprocessing.from_mapping(as_lists(each)),
        pickle.loads(pickle.dumps(each)),  # noqa: S301 - it was written here
    ):
        assert same == each
        assert hash(same) == hash(each)
        assert repr(same) == repr(each)


@given(preprocessings(), preprocessings())
def test_two_look_the_same_only_if_they_are(one, other):
    assert (one == other) == (repr(one) == repr(other))


def test_no_sign_of_zero():
    assert repr(Preprocessing(mean=(-0.0,))) == repr(Preprocessing(mean=(0.0,)))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(Preprocessing.__slots__), anything))
def test_whatever_is_declared_it_is_good_or_an_option_error(mapping):
    try:
        each = Preprocessing.from_mapping(mapping)
    except OptionError:
        return
    assert all(math.isfinite(value) for value in (*each.mean, *each.scale))
    assert all(np.float32(value) != 0 for value in each.scale)
    assert hash(each) is not None


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"resize": 224}, r"resize='224' .* height and width from 1 to 65,535"),
        ({"resize": (224,)}, "height and width"),
        ({"resize": (0, 224)}, "height and width"),
        ({"resize": (224.0, 224.0)}, "height and width"),
        ({"resize": "224x224x3"}, "height and width"),
        ({"resize": "70000x224"}, "height and width"),
        ({"layout": "HWC"}, "layout='HWC' .* NHWC or NCHW"),
        ({"layout": "NHWC:"}, "NHWC or NCHW"),
        ({"layout": "NHWC:NCHW:NHWC"}, "NHWC or NCHW"),
        ({"layout": None}, "NHWC or NCHW"),
        ({"color": "cmyk"}, "color='cmyk' .* one of rgb, bgr, gray"),
        ({"fit": "shrink"}, "fit='shrink' .* one of stretch, crop, pad"),
        ({"mean": (1, 2)}, r"mean='\(1, 2\)' .* one number, or one for each of 3 channels"),
        ({"mean": (1, 2, 3), "color": "gray"}, r"one number \(gray\)"),
        ({"mean": "1,,2"}, "mean="),
        ({"mean": True}, "mean="),
        ({"mean": {1, 2, 3}}, "mean="),
        ({"mean": math.nan}, "mean="),
        ({"mean": 1e39}, "mean="),
        ({"mean": None}, "mean="),
        ({"scale": (1, math.inf, 1)}, "scale="),
        ({"scale": 0}, "scale='0' .* none of them 0"),
        ({"scale": (1, -0.0, 1)}, "none of them 0"),
        ({"scale": 1e-39}, "none of them 0"),
        ({"input": ""}, "the name of one of the model's inputs"),
        ({"input": 0}, "the name of one of the model's inputs"),
        ({"size": 3, "std": 4}, "preprocessing='size, std' .* only resize, layout, mean, scale, "),
        ([("mean", 1)], "a mapping of resize, layout"),
        ("mean", "a mapping of resize, layout"),
    ],
)
def test_what_is_not_acceptable(declared, words):
    with pytest.raises(OptionError, match=words):
        check_preprocessing(declared)


def test_what_load_model_may_be_given():
    each = Preprocessing(mean=(127.5,))
    assert check_preprocessing(None) is None
    assert check_preprocessing(each) is each
    assert check_preprocessing({"mean": 127.5}) == each
    assert check_preprocessing({}) == Preprocessing()
    assert Preprocessing(mean=np.float32([1, 2, 3])).mean == (1.0, 2.0, 3.0)


# -- which input it is for ---------------------------------------------------------------------


def port_of(shape, dtype="float32", name="image", layout=None):
    return Port(name, (name, "alias"), np.dtype(dtype), shape, layout or guess_image_layout(shape))


VECTOR = port_of((-1, 4), name="vector")


@pytest.mark.parametrize(
    ("declared", "port", "model", "pixels", "axes"),
    [
        ({}, port_of((1, 3, 6, 5)), (1, 3, 6, 5), (1, 6, 5, 3), (0, 3, 1, 2)),
        ({"layout": "NCHW"}, port_of((2, 3, 6, 5)), (2, 3, 6, 5), (2, 3, 6, 5), (0, 1, 2, 3)),
        ({}, port_of((-1, 6, 5, 3)), (-1, 6, 5, 3), (-1, 6, 5, 3), (0, 1, 2, 3)),
        ({"layout": "NCHW"}, port_of((1, 6, 5, 3)), (1, 6, 5, 3), (1, 3, 6, 5), (0, 2, 3, 1)),
        ({"resize": (6, 5)}, port_of((-1, 3, -1, -1)), (-1, 3, 6, 5), (-1, 6, 5, 3), (0, 3, 1, 2)),
        ({"resize": (6, 5)}, port_of((1, 3, 6, -1)), (1, 3, 6, 5), (1, 6, 5, 3), (0, 3, 1, 2)),
        ({"color": "gray"}, port_of((1, 1, 6, 5)), (1, 1, 6, 5), (1, 6, 5, 1), (0, 3, 1, 2)),
        (
            {"layout": "NHWC:NCHW"},
            port_of((-1,) * 4),
            (-1, 3, -1, -1),
            (-1, -1, -1, 3),
            (0, 3, 1, 2),
        ),
        ({"layout": "NHWC:NHWC"}, port_of((1, 3, 9, 3)), (1, 3, 9, 3), (1, 3, 9, 3), (0, 1, 2, 3)),
    ],
)
def test_what_becomes_of_the_input(declared, port, model, pixels, axes):
    for number, ports in ((0, [port, VECTOR]), (1, [VECTOR, port])):
        found = PixelInput.find(Preprocessing(**declared), ports)
        assert found.number == number
        assert found.model.shape == model
        assert found.model.dtype == np.float32
        assert (found.pixels.names, found.pixels.dtype) == (port.names, np.uint8)
        assert found.pixels.shape == pixels
        assert found.axes == axes
        exact = found.specialised([7 if size < 0 else size for size in pixels])
        assert exact.model.shape == tuple(7 if size < 0 else size for size in model)
        assert exact.axes == axes


@pytest.mark.parametrize(
    ("declared", "ports", "words"),
    [
        ({}, [VECTOR], r"a model with an input of rank 4; this one takes vector: float32 \?×4"),
        ({"input": "none"}, [VECTOR], "input='none' .* one of the model's inputs: 'vector'"),
        ({"input": "vector"}, [VECTOR], "an input of rank 4; this is vector"),
        ({}, [port_of((-1, 3, -1, -1), name=n) for n in "ab"], "takes the pixels, of 'a', 'b'"),
        ({}, [port_of((1, -1, -1, -1))], r"layout='NHWC' .* NHWC:NHWC or NHWC:NCHW, since"),
        ({}, [port_of((1, 3, 6, 5), layout="NDHW")], "NHWC:NHWC or NHWC:NCHW, since"),
        ({}, [port_of((1, 1, 6, 5))], "color='rgb' .* gray, for the model has 1 channel:"),
        ({"color": "gray"}, [port_of((1, 3, 6, 5))], "rgb or bgr, for the model has 3 channels"),
        ({}, [port_of((1, 4, 6, 5))], "a model of 1 or 3 channels, for the model has 4"),
        ({"resize": (5, 6)}, [port_of((1, 3, 6, 5))], r"resize='5x6' .* 6x5 \(height x width\)"),
        ({"resize": (5, 6)}, [port_of((1, 3, -1, 5))], r"\?x5 \(height x width\)"),
        ({}, [port_of((1, 3, 6, 5), "int8")], "an input that can hold 0 to 255"),
        ({}, [port_of((1, 3, 6, 5), "bool")], "an input that can hold 0 to 255"),
        ({}, [port_of((1, 3, 6, 5), "U")], "an input that can hold 0 to 255"),
        ({"mean": 1}, [port_of((1, 3, 6, 5), "uint8")], "mean=.* none, for .* takes integers"),
        ({"scale": 2}, [port_of((1, 3, 6, 5), "int64")], "scale=.* none, for .* takes integers"),
    ],
)
def test_models_that_it_does_not_fit(declared, ports, words):
    with pytest.raises(OptionError, match=words):
        PixelInput.find(Preprocessing.from_mapping(declared), ports)


def test_an_input_that_looks_like_a_picture_goes_first():
    picture, other = port_of((1, 3, 6, 5)), port_of((1, 5, 5, 5), name="other")
    for declared in ({}, {"input": "alias"}, {"layout": "NHWC:NCHW"}):
        assert PixelInput.find(Preprocessing(**declared), [picture, other]).number == 0
    open_one = port_of((-1, -1, -1, -1))
    assert PixelInput.find(Preprocessing(layout="NHWC:NCHW"), [VECTOR, open_one]).number == 1
