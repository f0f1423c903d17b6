"""Requests without JSON: the whole body is one tensor."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.errors import InputError
from atriva_inference.ports import Port
from atriva_ray.errors import BadRequestError, ServeError
from atriva_ray.serve.protocol.datatypes import datatype_of
from atriva_ray.serve.protocol.rest_request import parse_raw_request

DTYPES = ["?", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8", "U"]


@pytest.mark.parametrize(
    ("dtype", "shape", "body", "wanted"),
    [
        (np.float32, (2, 2), np.arange(4, dtype=np.float32).tobytes(), [[0, 1], [2, 3]]),
        (np.uint8, (-1, 2), b"\1\2\3\4", [[1, 2], [3, 4]]),
        (np.uint8, (1, -1), b"\1\2", [[1, 2]]),
        (np.int16, (), b"\1\0", 1),
        (np.bool_, (-1,), b"\1\0", [True, False]),
        (ml_dtypes.bfloat16, (1,), b"\xc0\x3f", [1.5]),
        ("U", (1,), "\4\0\0\0ä".replace("\0", "x").encode(), ["\4xxxä"]),
        ("U", (-1, 1), b"", [[""]]),
        ("U", (), b"abc", "abc"),
        (object, (1,), b"abc", ["abc"]),
    ],
)
def test_a_body_that_is_one_tensor(dtype, shape, body, wanted):
    port = Port("x", ("x",), np.dtype(dtype), shape)
    request = parse_raw_request(body, port)
    (each,) = request.inputs
    assert each.name == "x"
    assert each.datatype == datatype_of(port.dtype)
    assert each.array.tolist() == wanted
    assert request.is_binary_wanted


@pytest.mark.parametrize(
    ("dtype", "shape", "body", "says"),
    [
        (np.float32, (2,), b"1234", "FP32 in shape [2] takes 8 bytes, and there are 4"),
        (np.float32, (-1, 2), b"123456789", "FP32 in shape [1, 2] takes 8 bytes"),
        (np.float32, (-1, 0), b"1234", "takes 0 bytes, and there are 4"),
        (np.float32, (-1, -1), bytes(16), "the shape of input 'x' (?×?) cannot be told"),
        (np.float32, None, bytes(16), "the shape of input 'x' (any rank) cannot be told"),
        ("U", (2,), b"abc", "is one element of text, and input 'x' takes [2]"),
        ("U", (1,), b"\xff", "element 0 is not text in UTF-8"),
    ],
)
def test_a_body_that_is_no_tensor(dtype, shape, body, says):
    with pytest.raises(BadRequestError) as caught:
        parse_raw_request(body, Port("x", ("x",), np.dtype(dtype), shape))
    assert says in str(caught.value)


@given(
    st.binary(max_size=40),
    st.sampled_from(DTYPES),
    st.none() | st.lists(st.integers(-1, 3) | st.just(2**40), max_size=4),
)
def test_whatever_tensor_is_sent_gets_an_answer(body, dtype, shape):
    port = Port("x", ("x",), np.dtype(dtype), None if shape is None else tuple(shape))
    try:
        (each,) = parse_raw_request(body, port).inputs
    except (ServeError, InputError) as error:
        assert str(error)  # noqa: PT017 - it may raise, and then it says why
    else:
        assert port.accepts(each.array.shape)
