"""Ports: which shapes fit, which names are meant, and what a shape tells about the layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atriva_inference.errors import InputNameError, format_shape
from atriva_inference.ports import Port, guess_image_layout, match_names


def port_of(*names, shape=(1, 3), layout=None):
    return Port(names[0], names, np.dtype("float32"), shape, layout)


@pytest.mark.parametrize(
    ("shape", "fitting", "other"),
    [
        ((1, 3), [(1, 3)], [(1,), (1, 3, 1), (3, 1), (2, 3)]),
        ((-1, 3), [(1, 3), (9, 3)], [(3,), (1, 4)]),
        ((), [()], [(1,)]),
        (None, [(), (1,), (2, 3, 4)], []),
    ],
)
def test_which_shapes_fit(shape, fitting, other):
    port = port_of("x", shape=shape)
    assert all(port.accepts(each) for each in fitting)
    assert not any(port.accepts(each) for each in other)
    assert port.is_dynamic == (shape is None or -1 in shape)


@given(hnp.array_shapes(), st.data())
def test_a_shape_fits_however_many_of_its_dimensions_are_left_open(shape, data):
    is_open = data.draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    pattern = tuple(-1 if free else dim for free, dim in zip(is_open, shape, strict=True))
    assert port_of("x", shape=pattern).accepts(shape)


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (port_of("x", shape=(1, 3, -1, 8), layout="NCHW"), "x: float32 1×3×?×8 NCHW"),
        (port_of("x", shape=()), "x: float32 scalar"),
        (port_of("x", shape=None), "x: float32 any rank"),
    ],
)
def test_how_a_port_reads(port, text):
    assert str(port) == text


@pytest.mark.parametrize(
    ("shape", "text"), [((1, 3, -1), "1×3×?"), ((), "scalar"), ((7,), "7"), ((0, 2), "0×2")]
)
def test_how_a_shape_reads(shape, text):
    assert format_shape(shape) == text


PORTS = [port_of("a", "alias", "alias:0"), port_of("b")]


@pytest.mark.parametrize("name", ["a", "alias", "alias:0"])
def test_values_are_keyed_by_the_first_name(name):
    assert match_names(PORTS, {"b": 2, name: 1}) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("names", "unknown", "missing"),
    [
        ([], (), ("a", "b")),
        (["a"], (), ("b",)),
        (["b", "c"], ("c",), ("a",)),
        (["a", "b", "c", "d"], ("c", "d"), ()),
        (["a", "b", "alias"], ("alias",), ()),
        (["alias", "alias:0"], ("alias:0",), ("b",)),
        (["A", 0, None], ("A", "0", "None"), ("a", "b")),
    ],
)
def test_names_that_do_not_match(names, unknown, missing):
    with pytest.raises(InputNameError) as caught:
        match_names(PORTS, dict.fromkeys(names))
    assert (caught.value.unknown, caught.value.missing) == (unknown, missing)
    assert caught.value.names == ("a", "b")


def test_an_input_without_ports_takes_nothing():
    assert match_names([], {}) == {}


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 3, 224, 224), "NCHW"),
        ((-1, 3, -1, -1), "NCHW"),
        ((8, 1, 28, 28), "NCHW"),
        ((1, 4, 8, 8), "NCHW"),
        ((1, 224, 224, 3), "NHWC"),
        ((-1, -1, -1, 1), "NHWC"),
        ((1, 3, 224, 3), None),
        ((1, 64, 56, 56), None),
        ((-1, -1, -1, -1), None),
        ((3, 224, 224), None),
        ((1, 3, 8, 8, 8), None),
        ((), None),
        (None, None),
    ],
)
def test_a_layout_is_guessed_only_where_there_is_no_doubt(shape, layout):
    assert guess_image_layout(shape) == layout
