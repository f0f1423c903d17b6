"""Answers over HTTP, as Triton's own client reads them."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.http import InferenceServerClient

from atriva_ray.errors import BadRequestError
from atriva_ray.serve.protocol.datatypes import datatype_of
from atriva_ray.serve.protocol.messages import (
    InferAnswer,
    InferRequest,
    OutputTensor,
    RequestedOutput,
)
from atriva_ray.serve.protocol.rest_answer import encode_answer, encode_error

DTYPES = ["?", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f4", "f8"]
BINARY_DTYPES = [*DTYPES, "f2"]
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8)


def answer_of(*arrays, labels=(), **fields):
    outputs = tuple(
        OutputTensor(f"y{index}", datatype_of(array.dtype), array, labels)
        for index, array in enumerate(arrays)
    )
    return InferAnswer("m", "3", outputs, **fields)


def request_of(*outputs, **fields):
    return InferRequest((), outputs, **fields)


def received(encoded):
    """What Triton's client makes of it."""
    body = b"".join((encoded.header, *encoded.chunks))
    assert encoded.size_bytes == len(body)
    return InferenceServerClient.parse_response_body(body, header_length=encoded.json_length)


@given(st.lists(st.sampled_from(BINARY_DTYPES), min_size=1, max_size=3), st.data())
def test_binary_outputs(dtypes, data):
    shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
    arrays = [data.draw(hnp.arrays(np.dtype(dtype), shapes)) for dtype in dtypes]
    encoded = encode_answer(answer_of(*arrays), request_of(is_binary_wanted=True))
    assert encoded.content_type == "application/octet-stream"
    assert encoded.json_length == len(encoded.header)
    result = received(encoded)
    for index, array in enumerate(arrays):
        back = result.as_numpy(f"y{index}")
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        assert back.tobytes() == array.tobytes()


@given(st.lists(st.sampled_from(DTYPES), max_size=3), st.data())
def test_json_outputs(dtypes, data):
    shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
    arrays = [data.draw(hnp.arrays(np.dtype(dtype), shapes)) for dtype in dtypes]
    encoded = encode_answer(answer_of(*arrays), request_of())
    assert encoded.content_type == "application/json"
    assert encoded.json_length is None
    assert encoded.chunks == ()
    result = received(encoded)
    for index, array in enumerate(arrays):
        back = result.as_numpy(f"y{index}")
        assert back.dtype == array.dtype
        assert np.array_equal(back, array, equal_nan=array.dtype.kind == "f")


@given(st.lists(TEXT, max_size=5), st.booleans(), st.sampled_from(["U", "O"]))
def test_text(texts, is_binary, dtype):
    array = np.array(texts, dtype=dtype)
    result = received(encode_answer(answer_of(array), request_of(is_binary_wanted=is_binary)))
    back = [
        each.decode() if isinstance(each, bytes) else each
        for each in result.as_numpy("y0").tolist()
    ]
    assert back == texts


def test_bf16_as_bytes():
    array = np.array([1.5, -2], ml_dtypes.bfloat16)
    result = received(encode_answer(answer_of(array), request_of(is_binary_wanted=True)))
    assert result.as_numpy("y0").tolist() == [1.5, -2]


def test_large_outputs_are_not_copied():
    array = np.zeros((3, 224, 224), np.float32)
    (chunk,) = encode_answer(answer_of(array), request_of(is_binary_wanted=True)).chunks
    assert np.shares_memory(array, np.frombuffer(chunk, np.uint8))


@pytest.mark.parametrize("is_binary_wanted", [True, False])
def test_an_output_can_be_sent_otherwise_than_the_rest(is_binary_wanted):
    arrays = np.zeros(2, np.int8), np.ones(2, np.int8), np.full(2, 2, np.int8)
    wishes = RequestedOutput("y0", is_binary=True), RequestedOutput("y1", is_binary=False)
    request = request_of(*wishes, RequestedOutput("y2"), is_binary_wanted=is_binary_wanted)
    result = received(encode_answer(answer_of(*arrays), request))
    for index, array in enumerate(arrays):
        assert result.as_numpy(f"y{index}").tolist() == array.tolist()
    parameters = [output.get("parameters") for output in result.get_response()["outputs"]]
    assert parameters[:2] == [{"binary_data_size": 2}, None]
    assert parameters[2] == ({"binary_data_size": 2} if is_binary_wanted else None)


def test_the_whole_json():
    encoded = encode_answer(answer_of(np.array([[1, 2]], np.int8), id="7"), request_of())
    assert json.loads(encoded.header) == {
        "model_name": "m",
        "model_version": "3",
        "id": "7",
        "outputs": [{"name": "y0", "datatype": "INT8", "shape": [1, 2], "data": [1, 2]}],
    }
    encoded = encode_answer(InferAnswer("m", "", ()), request_of())
    assert json.loads(encoded.header) == {"model_name": "m", "outputs": []}


def test_numbers_that_json_lacks():
    array = np.array([math.nan, math.inf, -math.inf], np.float32)
    encoded = encode_answer(answer_of(array), request_of())
    assert b'"data":[NaN,Infinity,-Infinity]' in encoded.header
    assert np.array_equal(received(encoded).as_numpy("y0"), array, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_are_not_for_json(dtype):
    with pytest.raises(BadRequestError, match=r"'y0' is .*16.* ask for it as binary data"):
        encode_answer(answer_of(np.zeros(1, dtype)), request_of())


def test_bytes_that_are_no_text_are_not_for_json():
    answer = answer_of(np.array([b"\xff"], object))
    with pytest.raises(BadRequestError, match=r"'y0' has bytes that are no text.* binary data"):
        encode_answer(answer, request_of())
    result = received(encode_answer(answer, request_of(is_binary_wanted=True)))
    assert result.as_numpy("y0").tolist() == [b"\xff"]


LABELS = ["zero", "one", "two"]


@pytest.mark.parametrize(
    ("array", "count", "wanted"),
    [
        (np.array([1, 5, 10, 4], np.int32), 2, ["10:2:two", "5:1:one"]),
        (np.array([1, 5, 10, 40], np.int32), 2, ["40:3", "10:2:two"]),
        (np.array([[0.1, 0.9], [0.75, 0.25]], np.float32), 1, [["0.9:1:one"], ["0.75:0:zero"]]),
        (np.array([[0.1, 0.9]], np.float32), 9, [["0.9:1:one", "0.1:0:zero"]]),
        (np.array([[[1], [2]]], np.uint64), 2, [["2:1:one", "1:0:zero"]]),
        (np.array([7, 7, 7]), 2, ["7:0:zero", "7:1:one"]),
        (
            np.array([2**63 - 1, -(2**63), 2**63 - 2]),
            3,
            [f"{2**63 - 1}:0:zero", f"{2**63 - 2}:2:two", f"{-(2**63)}:1:one"],
        ),
        (np.array([False, True]), 1, ["1:1:one"]),
        (np.array([1, 2], ml_dtypes.bfloat16), 1, ["2.0:1:one"]),
        (np.array([np.nan, 1, -np.inf]), 3, ["1.0:1:one", "-inf:2:two", "nan:0:zero"]),
        (np.array(5, np.int8), 1, ["5:0:zero"]),
        (np.zeros((2, 0)), 3, [[], []]),
        (np.zeros((0, 4)), 3, []),
        (np.zeros(0), 3, []),
    ],
)
@pytest.mark.parametrize("is_binary", [True, False])
def test_classes(array, count, wanted, is_binary):
    request = request_of(RequestedOutput("y0", is_binary=is_binary, class_count=count))
    result = received(encode_answer(answer_of(array, labels=LABELS), request))
    assert result.get_output("y0")["datatype"] == "BYTES"
    classes = result.as_numpy("y0")
    if is_binary:
        classes = np.array([each.decode() for each in classes.ravel()], object).reshape(
            classes.shape
        )
    assert classes.tolist() == wanted


def test_classes_without_labels():
    request = request_of(RequestedOutput("y0", class_count=1))
    result = received(encode_answer(answer_of(np.array([1, 3])), request))
    assert result.as_numpy("y0").tolist() == ["3:1"]


def test_classes_of_text():
    request = request_of(RequestedOutput("y0", class_count=1))
    with pytest.raises(BadRequestError, match="'y0' is text, and only numbers can be classified"):
        encode_answer(answer_of(np.array(["a"])), request)


@given(st.text())
def test_errors(message):
    assert json.loads(encode_error(message)) == {"error": message}
