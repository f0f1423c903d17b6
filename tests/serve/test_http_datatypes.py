"""Every datatype of the protocol over HTTP, byte by byte."""

from __future__ import annotations

import math
import struct

import pytest

from tests.serve.http_tools import request, serving, tensor

WHOLE = {
    "INT8": ("b", -(2**7), 2**7 - 1),
    "INT16": ("h", -(2**15), 2**15 - 1),
    "INT32": ("i", -(2**31), 2**31 - 1),
    "INT64": ("q", -(2**63), 2**63 - 1),
    "UINT8": ("B", 0, 2**8 - 1),
    "UINT16": ("H", 0, 2**16 - 1),
    "UINT32": ("I", 0, 2**32 - 1),
    "UINT64": ("Q", 0, 2**64 - 1),
}
CODES = {
    **{name: code for name, (code, _, _) in WHOLE.items()},
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}


@pytest.fixture(scope="module")
def running():
    with serving() as served:
        yield served


@pytest.fixture
def served(running):
    return running.renewed()


def packed(datatype, *elements):
    if datatype == "BF16":
        return b"".join(struct.pack("<f", each)[2:] for each in elements)
    if datatype == "BYTES":
        texts = [each.encode() for each in elements]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if datatype == "BOOL":
        return bytes(elements)
    return struct.pack(f"<{len(elements)}{CODES[datatype]}", *elements)


def described(datatype, data, shape, **fields):
    document = {"name": "x", "datatype": datatype, "shape": shape, **fields}
    return document if data is ... else document | {"data": data}


CASES = [
    ("BOOL", [True, False, True], [True, False, True]),
    *((name, [0, 1, 50], [0, 2, 100]) for name in WHOLE),
    *((name, [1, -0.5, 3.25], [2, -1, 6.5]) for name in ("FP16", "FP32", "FP64", "BF16")),
    ("BYTES", ["one", "zwölf", ""], ["oneone", "zwölfzwölf", ""]),
]
BINARY_ONLY = ("FP16", "BF16")


@pytest.mark.parametrize("is_binary_wanted", [True, False])
@pytest.mark.parametrize("is_binary", [True, False])
def test_elements(served, is_binary, is_binary_wanted):
    """There and back, each way in JSON and as bytes."""
    parameters = {"binary_data_output": is_binary_wanted}
    for datatype, given, expected in CASES:
        if datatype in BINARY_ONLY and not (is_binary and is_binary_wanted):
            continue
        content = packed(datatype, *given)
        size = {"parameters": {"binary_data_size": len(content)}}
        each = (
            described(datatype, ..., [3], **size) if is_binary else described(datatype, given, [3])
        )
        answer = served.infer(request(each, parameters=parameters), content if is_binary else b"")
        assert answer.status == 200, answer.body
        if is_binary_wanted:
            document, tail = answer.parts
            assert tail == packed(datatype, *expected)
            assert document["outputs"][0]["parameters"] == {"binary_data_size": len(tail)}
        else:
            document = answer.json
            assert document["outputs"][0]["data"] == expected
        assert document["outputs"][0]["datatype"] == datatype
        assert document["outputs"][0]["shape"] == [3]


def test_what_json_cannot_hold(served):
    for datatype in BINARY_ONLY:
        for given, tail, told in [
            (described(datatype, [1.5], [1]), b"", "cannot be sent in JSON"),
            (
                described(datatype, ..., [1], parameters={"binary_data_size": 2}),
                b"\0\0",
                "binary_data",
            ),
        ]:
            answer = served.infer(request(given), tail)
            assert answer.status == 400
            assert told in answer.error


def test_the_ends_of_ranges(served):
    for datatype, (_, low, high) in WHOLE.items():
        for value in (low, high):
            answer = served.infer(request(tensor([value], datatype, [1])))
            bits = 8 * len(packed(datatype, 0))
            doubled = (2 * value) % 2**bits
            if low and doubled > high:
                doubled -= 2**bits
            assert answer.json["outputs"][0]["data"] == [doubled]
        for value in (low - 1, high + 1, 10**30):
            answer = served.infer(request(tensor([value], datatype, [1])))
            assert answer.status == 400
            assert f"range of {datatype}" in answer.error


def test_numbers_that_are_none(served):
    for datatype in ("FP32", "FP64"):
        answer = served.infer(request(tensor([math.nan, math.inf, -math.inf], datatype, [3])))
        nan, *others = answer.json["outputs"][0]["data"]
        assert math.isnan(nan)
        assert others == [math.inf, -math.inf]
    for digits, datatype in [(b"1e39", "FP32"), (b"1e999", "FP64")]:
        body = b'{"inputs": [{"name": "x", "datatype": "%b", "shape": [1], "data": [%b]}]}' % (
            datatype.encode(),
            digits,
        )
        answer = served.infer(body)
        assert answer.status == 400
        assert "too large" in answer.error


def test_shapes(served):
    flat = list(range(6))
    for shape, data in [
        ([6], flat),
        ([2, 3], flat),
        ([2, 3], [[0, 1, 2], [3, 4, 5]]),
        ([1, 3, 1, 2], [[[[0, 1]], [[2, 3]], [[4, 5]]]]),
        ([2, 3], [flat[:3], flat[3:]]),
    ]:
        (output,) = served.infer(request(tensor(data, shape=shape))).json["outputs"]
        assert output["shape"] == shape
        assert output["data"] == [2 * each for each in flat]
    for shape in ([0], [3, 0], [0, 5]):
        (output,) = served.infer(request(tensor([], shape=shape))).json["outputs"]
        assert (output["shape"], output["data"]) == (shape, [])
    (output,) = served.infer(request(tensor([4], shape=[]))).json["outputs"]
    assert (output["shape"], output["data"]) == ([], [8])
    for shape, data in [
        ([5], flat),
        ([7], flat),
        ([-1], flat),
        ([2.0, 3], flat),
        ([True], [1]),
        ([3, 2], [[0, 1, 2], [3, 4, 5]]),
        ([2, 3], [[0, 1, 2], [3, 4]]),
        ([2**62, 4], flat),
        ([1] * 40, [1]),
        ("6", flat),
        (None, flat),
    ]:
        answer = served.infer(request(tensor(data, shape=shape)))
        assert answer.status == 400
        assert "'x'" in answer.error


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("BOOL", [0, 1]),
        ("INT32", [1.0, 2]),
        ("INT32", [True, 2]),
        ("INT32", ["1", 2]),
        ("FP32", ["1", 2]),
        ("FP32", [None, 2]),
        ("FP32", {"0": 1}),
        ("BYTES", [1, 2]),
        ("BYTES", ["a\0b", ""]),
        ("BYTES", ["\ud800", ""]),
        ("STRING", ["a", "b"]),
        ("fp32", [1, 2]),
        (None, [1, 2]),
        (["FP32"], [1, 2]),
    ],
)
def test_elements_of_another_datatype(served, datatype, data):
    answer = served.infer(request(tensor(data, datatype)))
    assert answer.status == 400
    assert "'x'" in answer.error or "has no datatype" in answer.error


def test_bytes_that_do_not_fit(served):
    for datatype, shape, content in [
        ("INT32", [2], bytes(7)),
        ("INT32", [2], bytes(9)),
        ("BOOL", [2], b"\0\2"),
        ("BYTES", [2], b"\1\0\0\0a"),
        ("BYTES", [1], b"\2\0\0\0a"),
        ("BYTES", [1], b"\1\0\0\0ab"),
        ("BYTES", [1], b"\1\0\0\0\xff"),
        ("BYTES", [1], b"\xff\xff\xff\xffa"),
        ("FP16", [2**61], bytes(2)),
    ]:
        size = {"binary_data_size": len(content)}
        given = described(datatype, ..., shape, parameters=size)
        answer = served.infer(request(given), content)
        assert answer.status == 400
        assert "'x'" in answer.error


def test_what_is_behind_the_json_is_what_the_inputs_say(served):
    given = described("INT32", ..., [2], parameters={"binary_data_size": 8})
    for document, tail, told in [
        (request(given), bytes(4), "8 bytes behind the JSON, and there are 4"),
        (request(given), bytes(12), "4 bytes are left"),
        (request(given | {"data": [1, 2]}), bytes(8), "both data and binary_data_size"),
        (request(), bytes(8), "8 bytes are left"),
        (request(given), b"", "is missing"),
        (request(described("INT32", ..., [2])), b"", "no elements"),
        (
            request(given | {"parameters": {"binary_data_size": -8}}),
            bytes(8),
            "0 or more",
        ),
    ]:
        answer = served.infer(document, tail)
        assert answer.status == 400
        assert told in answer.error


def test_several_inputs_some_in_json_and_some_as_bytes(served):
    inputs = [
        described("BYTES", ..., [2], name="a", parameters={"binary_data_size": 10}),
        described("FP32", [0.5, 1.5], [1, 2], name="b"),
        described("BF16", ..., [1], name="c", parameters={"binary_data_size": 2}),
    ]
    tail = packed("BYTES", "a", "b") + packed("BF16", 1.5)
    outputs = [
        {"name": "c_doubled", "parameters": {"binary_data": True}},
        {"name": "b_doubled"},
        {"name": "a_doubled", "parameters": {"binary_data": True}},
    ]
    document, back = served.infer(request(*inputs, outputs=outputs), tail).parts
    assert [each["name"] for each in document["outputs"]] == [
        "c_doubled",
        "b_doubled",
        "a_doubled",
    ]
    assert document["outputs"][1]["data"] == [1.0, 3.0]
    assert back == packed("BF16", 3.0) + packed("BYTES", "aa", "bb")
