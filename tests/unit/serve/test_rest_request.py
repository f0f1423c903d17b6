"""Requests over HTTP: what Triton's own client sends, and all that nobody should."""

from __future__ import annotations

import json
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.http import InferRequestedOutput
from tritonclient.utils import serialize_byte_tensor

from atriva_inference.tensor import Tensor
from atriva_ray.errors import BadRequestError, NotSupportedError
from atriva_ray.serve.protocol.datatypes import datatype_of
from atriva_ray.serve.protocol.messages import RequestedOutput
from atriva_ray.serve.protocol.rest_request import parse_infer_request
from tests.unit.serve.rest_bodies import plain, sent

DTYPES = ["?", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f4", "f8"]
BINARY_DTYPES = [*DTYPES, "f2"]
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8)
SHAPES = hnp.array_shapes(min_dims=0, min_side=0, max_side=4)


def refused(body, header_length=None, error=BadRequestError):
    with pytest.raises(error) as caught:
        parse_infer_request(body, header_length)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@given(st.lists(st.sampled_from(BINARY_DTYPES), min_size=1, max_size=3), st.data())
def test_binary_inputs(dtypes, data):
    arrays = [data.draw(hnp.arrays(np.dtype(dtype), SHAPES)) for dtype in dtypes]
    body, header_length = sent(arrays)
    request = parse_infer_request(body, header_length)
    assert request.is_binary_wanted
    assert request.outputs == ()
    assert [each.name for each in request.inputs] == [f"x{index}" for index in range(len(arrays))]
    for each, array in zip(request.inputs, arrays, strict=True):
        assert each.datatype == datatype_of(array.dtype)
        assert each.parameters == {}
        assert each.array.dtype == array.dtype
        assert each.array.shape == array.shape
        assert each.array.tobytes() == array.tobytes()


@given(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3), st.data())
def test_json_inputs(dtypes, data):
    arrays = [data.draw(hnp.arrays(np.dtype(dtype), SHAPES)) for dtype in dtypes]
    request = parse_infer_request(*sent(arrays, is_binary=False))
    for each, array in zip(request.inputs, arrays, strict=True):
        assert each.array.dtype == array.dtype
        assert each.array.shape == array.shape
        assert np.array_equal(each.array, array, equal_nan=array.dtype.kind == "f")


@given(st.sampled_from(DTYPES), st.data())
def test_json_inputs_may_be_nested(dtype, data):
    array = data.draw(hnp.arrays(np.dtype(dtype), hnp.array_shapes()))
    tensor = {"shape": array.shape, "datatype": datatype_of(array.dtype), "data": array.tolist()}
    (each,) = parse_infer_request(plain(tensor), None).inputs
    assert each.array.dtype == array.dtype
    assert np.array_equal(each.array, array, equal_nan=array.dtype.kind == "f")


@given(st.lists(TEXT, min_size=1), st.booleans())
def test_text(texts, is_binary):
    (each,) = parse_infer_request(*sent([np.array(texts, object)], is_binary=is_binary)).inputs
    assert each.datatype == "BYTES"
    assert each.array.tolist() == texts
    assert Tensor.from_numpy(each.array).to_numpy().tolist() == texts


def test_bf16():
    array = np.array([[1.5, -2]], ml_dtypes.bfloat16)
    (each,) = parse_infer_request(*sent([array])).inputs
    assert each.datatype == "BF16"
    assert each.array.tolist() == [[1.5, -2]]


def test_both_ways_in_one_request():
    binary = {"name": "y", "shape": [3], "datatype": "UINT8", "parameters": {"binary_data_size": 3}}
    text = {"name": "z", "shape": [1], "datatype": "BYTES", "data": ["ä"], "parameters": {"a": 1}}
    last = {**binary, "name": "w", "shape": []}
    last["parameters"] = {"binary_data_size": 1, "more": "b"}
    header = json.dumps({"inputs": [binary, text, last]}).encode()
    body = bytearray(header + b"\1\2\3\4")
    request = parse_infer_request(body, len(header))
    assert [each.array.tolist() for each in request.inputs] == [[1, 2, 3], ["ä"], 4]
    assert [each.parameters for each in request.inputs] == [{}, {"a": 1}, {"more": "b"}]


def test_large_inputs_are_not_copied():
    body, header_length = sent([np.zeros((3, 224, 224), np.float32)])
    (each,) = parse_infer_request(memoryview(body), header_length).inputs
    assert np.shares_memory(each.array, np.frombuffer(body, np.uint8))


def test_what_else_a_client_can_say():
    outputs = [
        InferRequestedOutput("a", binary_data=True),
        InferRequestedOutput("b", binary_data=False, class_count=3),
    ]
    custom = {"flag": True, "count": 2, "share": 0.5, "text": "ü"}
    body, header_length = sent(
        [np.zeros(1)],
        outputs,
        request_id="42",
        priority=7,
        timeout=1_500_000,
        sequence_id=3,
        parameters=custom,
    )
    request = parse_infer_request(body, header_length)
    assert request.id == "42"
    assert request.priority == 7
    assert request.timeout_s == 1.5
    assert not request.is_binary_wanted
    sequence = {"sequence_id": 3, "sequence_start": False, "sequence_end": False}
    assert request.parameters == custom | sequence
    assert request.outputs == (
        RequestedOutput("a", is_binary=True),
        RequestedOutput("b", is_binary=False, class_count=3),
    )


def test_what_a_client_need_not_say():
    nothing = {"id": None, "parameters": None, "outputs": None, "more": {"deep": [None]}}
    for fields in ({}, nothing, {"outputs": [], "parameters": {"timeout": 0}}):
        request = parse_infer_request(plain(**fields), None)
        assert request.outputs == ()
        assert request.id == ""
        assert request.timeout_s is None
        assert request.priority == 0
        assert request.parameters == {}
        assert not request.is_binary_wanted
    wishes = [{"name": "a", "parameters": {"mine": 1}}, {"name": "b"}]
    request = parse_infer_request(plain(outputs=wishes), None)
    assert request.outputs == (RequestedOutput("a", parameters={"mine": 1}), RequestedOutput("b"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body is not JSON: Expecting value"),
        (b"{", "the body is not JSON"),
        (b"\xff{}", "the body is not JSON: 'utf-8' codec can't decode"),
        ("{}".encode("utf-16"), "the body is not JSON"),
        (b"9" * 10_000, "the body is not JSON"),
        (b"[" * 1_000_000, "nested too deep"),
        (b'{"inputs":' * 100_000, "nested too deep"),
        (b"[]", "the JSON is a list; a request is an object"),
        (b"3", "the JSON is 3; a request is an object"),
        (b"{}", "'inputs' is missing; it is to be a list"),
        (b'{"inputs": null}', "'inputs' is null; it is to be a list"),
        (b'{"inputs": {}}', "'inputs' is an object; it is to be a list"),
        (b'{"inputs": [1]}', "inputs[0] is 1, not an object"),
        (plain(outputs={}), "'outputs' is an object"),
        (plain(outputs=["y"]), "outputs[0] is 'y', not an object"),
        (plain(outputs=[{}]), "the name of an output is null, not a string"),
        (plain(outputs=[{"name": "y"}] * 2), "output 'y' comes twice"),
        (plain(id=3), "the id is 3, not a string"),
        (plain(id="\ud800"), r"the id is '\ud800', which is no Unicode"),
        (plain({"name": ...}), "the name of an input is null"),
        (plain({"name": ""}), "the name of an input is empty"),
        (plain({"name": 1}), "the name of an input is 1, not a string"),
        (plain({"name": "\udfff"}), "which is no Unicode"),
        (plain({"name": "x" * 10_000, "data": 1}), "…': its data is 1; it is to be a list"),
        (plain({"datatype": ...}), "the datatype of input 'x' is null"),
        (plain({"datatype": ["FP32"]}), "the datatype of input 'x' is a list"),
        (plain({"datatype": "FP8"}), "the protocol has no datatype 'FP8'; it has BOOL"),
        (plain({"shape": ...}), "the shape of input 'x' is null, not a list of sizes"),
        (plain({"shape": 2}), "the shape of input 'x' is 2, not a list of sizes"),
        (plain({"shape": [2.0]}), "has 2.0 in it; sizes are whole"),
        (plain({"shape": [True]}), "has true in it"),
        (plain({"shape": [[2]]}), "has a list in it"),
        (plain({"shape": [-2]}), "shape [-2] has a negative size"),
        (plain({"shape": [10**20]}), "no array can have shape [100000000000000000000]"),
        (plain({"shape": [10**9, 10**9]}), "shape [1000000000, 1000000000]"),
        (plain({"shape": [3]}), "shape [3] has 3 elements, and there are 2"),
        (plain({"shape": []}), "shape [] has 1 elements, and there are 2"),
        (plain({"data": ...}), "input 'x' has no elements: send them as data"),
        (plain({"data": None}), "its data is null; it is to be a list"),
        (plain({"data": "12"}), "its data is '12'; it is to be a list"),
        (plain({"data": [[1, 2]]}), "not nested like shape [2]: along axis 0"),
        (plain({"data": [[1], [2]]}), "element 0 is a list; the elements of INT32 are whole"),
        (plain({"data": [1, [2]]}), "element 1 is a list"),
        (
            plain({"shape": [2, 2], "data": [[1, 2], [3]]}),
            "not nested like shape [2, 2]: along axis 1",
        ),
        (plain({"shape": [2, 2], "data": [[1, 2], 3]}), "along axis 1"),
        (plain({"shape": [4], "data": [[1, 2], [3, 4]]}), "along axis 0"),
        (plain({"shape": [1], "data": [[[[1]]]]}), "element 0 is a list"),
        (plain({"data": [1, 1.5]}), "element 1 is 1.5; the elements of INT32 are whole numbers"),
        (plain({"data": [1, 2.0]}), "element 1 is 2.0"),
        (plain({"data": [1, True]}), "element 1 is true"),
        (plain({"data": [1, None]}), "element 1 is null"),
        (plain({"data": [1, "2"]}), "element 1 is '2'"),
        (plain({"data": [1, math.nan]}), "element 1 is nan"),
        (plain({"data": [1, 2**31]}), "2147483648 is not in the range of INT32, -2147483648 to"),
        (plain({"data": [1, -(2**31) - 1]}), "-2147483649 is not in the range of INT32"),
        (plain({"data": [1, 10**1000]}), "… is not in the range"),
        (plain({"datatype": "UINT64", "data": [1, -1]}), "-1 is not in the range of UINT64"),
        (plain({"datatype": "UINT64", "data": [1, 2**64]}), "is not in the range of UINT64"),
        (
            plain({"datatype": "INT8", "data": [1, 128]}),
            "128 is not in the range of INT8, -128 to 127",
        ),
        (plain({"datatype": "BOOL"}), "element 0 is 1; the elements of BOOL are true or false"),
        (plain({"datatype": "BYTES"}), "element 0 is 1; the elements of BYTES are strings"),
        (plain({"datatype": "BYTES", "data": ["a", "\ud800"]}), "element 1 is not text in UTF-8"),
        (plain({"datatype": "BYTES", "data": ["a", "b\0"]}), "element 1 has a NUL character"),
        (plain({"datatype": "FP32", "data": [1, True]}), "element 1 is true; the elements of FP32"),
        (plain({"datatype": "FP32", "data": ["1", 2]}), "element 0 is '1'"),
        (plain({"datatype": "FP32", "data": [1, 1e39]}), "a number is too large for FP32"),
        (plain({"datatype": "FP32", "data": [1, 10**400]}), "a number is too large for FP32"),
        (plain({"datatype": "FP64", "data": [1, 10**400]}), "a number is too large for FP64"),
        (
            plain({"datatype": "FP64", "data": [1, 0.5]}).replace(b"0.5", b"1e400"),
            "1e400 is too large",
        ),
        (plain({"datatype": "FP16"}), "FP16 cannot be sent in JSON; send it as binary data"),
        (plain({"datatype": "BF16"}), "BF16 cannot be sent in JSON; send it as binary data"),
        (plain({"parameters": []}), "the parameters of input 'x' are a list, not an object"),
        (plain({"parameters": {"a": None}}), "parameter 'a' of input 'x' is null"),
        (plain({"parameters": {"a": [1]}}), "parameter 'a' of input 'x' is a list"),
        (plain({"parameters": {"a": 2**64}}), "which has more than 64 bits"),
        (plain({"parameters": {"a": "\ud800"}}), "which is no Unicode"),
        (plain({"parameters": {"\ud800": 1}}), "which is no Unicode"),
        (plain({"parameters": {"binary_data_size": 8}}), "has both data and binary_data_size"),
        (plain(parameters=3), "the parameters of the request are 3"),
        (plain(parameters={"timeout": 1.5}), "'timeout' of the request is 1.5; it can be a whole"),
        (plain(parameters={"timeout": -1}), "'timeout' of the request is -1; it can be a whole"),
        (plain(parameters={"timeout": True}), "'timeout' of the request is true"),
        (plain(parameters={"priority": "1"}), "'priority' of the request is '1'"),
        (plain(parameters={"binary_data_output": 1}), "is 1; it can be true or false"),
        (
            plain(outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}]),
            "is 'yes'; it can be",
        ),
        (plain(outputs=[{"name": "y", "parameters": {"classification": -1}}]), "is -1; it can be"),
    ],
)
def test_json_that_is_no_request(body, says):
    assert says in refused(body)


def test_an_input_that_comes_twice():
    body = json.loads(plain())
    body["inputs"] *= 2
    assert "input 'x' comes twice" in refused(json.dumps(body).encode())


@pytest.mark.parametrize("size_bytes", [None, 0, 7, 9, 2**40, -1, "8", 8.0, True])
def test_sizes_that_do_not_fit(size_bytes):
    parameters = {} if size_bytes is None else {"binary_data_size": size_bytes}
    header = plain({"data": ..., "parameters": parameters})
    refused(header + bytes(8), len(header))


@pytest.mark.parametrize(
    ("tail", "header_length", "says"),
    [
        (bytes(8), None, "the body is not JSON"),
        (b"", None, "is said to have 8 bytes behind the JSON, and there are 0; the header Inf"),
        (b"", 0, "is said to have 8 bytes behind the JSON, and there are 0"),
        (bytes(7), 0, "is said to have 8 bytes behind the JSON, and there are 7"),
        (bytes(9), 0, "1 bytes are left at the end of the body"),
        (bytes(8), 9, "and the body has"),
        (bytes(8), -1, "the body is not JSON"),
        (bytes(8), -(10**6), "and the body has"),
    ],
)
def test_lengths_that_do_not_fit(tail, header_length, says):
    header = plain({"data": ..., "parameters": {"binary_data_size": 8}})
    length = None if header_length is None else len(header) + header_length
    assert says in refused(header + tail, length)


def test_binary_text_that_does_not_fit():
    parameters = {"binary_data_size": 8}
    header = plain({"data": ..., "parameters": parameters, "datatype": "BYTES"})
    assert "said to have 9 bytes" in refused(header + b"\x09\0\0\0\0\0\0\0", len(header))


def test_shared_memory_is_not_for_here():
    memory = {"shared_memory_region": "r", "shared_memory_byte_size": 8}
    for body in (
        plain({"data": ..., "parameters": memory}),
        plain(outputs=[{"name": "y", "parameters": memory}]),
    ):
        says = refused(body, error=NotSupportedError)
        assert "does not have shared memory" in says
        assert "send the elements in the request" in says


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_numbers_that_json_lacks(datatype, literal):
    body = plain({"datatype": datatype, "data": [1, float(literal)]})
    assert literal.encode() in body
    array = parse_infer_request(body, None).inputs[0].array
    assert np.array_equal(array, np.array([1, float(literal)]), equal_nan=True)


def test_numbers_are_rounded_as_any_float_is():
    data = [2**53 + 1, 1e-400, 3.4028235e38]
    tensor = {"datatype": "FP32", "data": data, "shape": [3]}
    array = parse_infer_request(plain(tensor), None).inputs[0].array
    assert array.tolist() == [2**53, 0, np.finfo(np.float32).max]


def test_deep_nesting_of_data():
    # As deep as `json` itself reads; what comes after must not go deeper.
    for depth in (10, 100, 500, 900, 5000):
        data = b"[" * depth + b"1" + b"]" * depth
        body = plain({"shape": [1]}).replace(b"[1, 2]", data)
        refused(body)


def test_text_as_triton_writes_it():
    texts = np.array(["a", "bc"], object)
    tail = serialize_byte_tensor(texts).item()
    header = plain(
        {"data": ..., "datatype": "BYTES", "parameters": {"binary_data_size": len(tail)}}
    )
    assert parse_infer_request(header + tail, len(header)).inputs[0].array.tolist() == ["a", "bc"]
