"""Requests and answers as messages of gRPC."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf import descriptor_pool
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import service_pb2 as triton_messages
from tritonclient.utils import np_to_triton_dtype

from atriva_ray.errors import BadRequestError, NotSupportedError, ServeError
from atriva_ray.serve.protocol.messages import InferAnswer, InferRequest, OutputTensor
from atriva_ray.serve.rpc import messages
from atriva_ray.serve.rpc.codec import answer_parts, parse_infer, parse_message
from atriva_ray.serve.rpc.messages import InferParameter, ModelInferRequest, ModelInferResponse
from atriva_ray.serve.rpc.wire import field_parts, joined

UNTIMED = settings(deadline=None)

FIELDS = {
    "BOOL": ("bool_contents", "?"),
    "UINT8": ("uint_contents", "u1"),
    "UINT16": ("uint_contents", "u2"),
    "UINT32": ("uint_contents", "u4"),
    "UINT64": ("uint64_contents", "u8"),
    "INT8": ("int_contents", "i1"),
    "INT16": ("int_contents", "i2"),
    "INT32": ("int_contents", "i4"),
    "INT64": ("int64_contents", "i8"),
    "FP32": ("fp32_contents", "f4"),
    "FP64": ("fp64_contents", "f8"),
}
DTYPES = {name: np.dtype(dtype) for name, (_, dtype) in FIELDS.items()} | {"FP16": np.dtype("f2")}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)


@st.composite
def numbers(draw, names=tuple(DTYPES)):
    name = draw(st.sampled_from(names))
    return name, draw(hnp.arrays(DTYPES[name], SHAPES))


@st.composite
def texts(draw):
    shape = draw(SHAPES)
    elements = draw(st.lists(TEXTS, min_size=math.prod(shape), max_size=math.prod(shape)))
    return np.array(elements, np.str_).reshape(shape)


def raw_message(*tensors):
    """A request as Triton's client writes it."""
    message = ModelInferRequest(model_name="m")
    for name, datatype, shape, raw in tensors:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_input_contents.append(raw)
    return message


def typed_message(datatype, shape, name="x", **contents):
    message = ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
    for field, elements in contents.items():
        getattr(tensor.contents, field).extend(elements)
    return message


def answered(outputs, request=None):
    """What a client gets: Triton's messages, from our bytes."""
    answer = InferAnswer("m", "3", tuple(outputs), "7")
    request = request or InferRequest((), is_binary_wanted=True)
    return triton_messages.ModelInferResponse.FromString(joined(answer_parts(answer, request)))


@UNTIMED
@given(numbers())
def test_numbers_as_bytes(value):
    datatype, array = value
    (tensor,) = parse_infer(raw_message(("x", datatype, array.shape, array.tobytes()))).inputs
    assert (tensor.name, tensor.datatype, tensor.array.dtype) == ("x", datatype, array.dtype)
    np.testing.assert_array_equal(tensor.array, array)
    assert tensor.array.shape == array.shape

    response = answered([OutputTensor("y", datatype, array)])
    back = triton.InferResult(response).as_numpy("y")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@UNTIMED
@given(numbers(tuple(FIELDS)))
def test_numbers_one_by_one(value):
    datatype, array = value
    field, _ = FIELDS[datatype]
    elements = array.ravel().tolist()
    request = parse_infer(typed_message(datatype, array.shape, **{field: elements}))
    (tensor,) = request.inputs
    assert tensor.array.dtype == array.dtype
    np.testing.assert_array_equal(tensor.array, array)
    assert tensor.array.shape == array.shape

    assert not request.is_binary_wanted
    response = answered([OutputTensor("y", datatype, array)], request)
    assert not response.raw_output_contents
    assert tuple(response.outputs[0].shape) == array.shape
    np.testing.assert_array_equal(getattr(response.outputs[0].contents, field), elements)


@UNTIMED
@given(texts())
def test_text(array):
    elements = [element.encode() for element in array.ravel().tolist()]
    raw = b"".join(len(each).to_bytes(4, "little") + each for each in elements)
    for message in (
        raw_message(("x", "BYTES", array.shape, raw)),
        typed_message("BYTES", array.shape, bytes_contents=elements),
    ):
        request = parse_infer(message)
        (tensor,) = request.inputs
        assert tensor.array.dtype.kind == "U"
        np.testing.assert_array_equal(tensor.array, array)

        response = answered([OutputTensor("y", "BYTES", array)], request)
        if request.is_binary_wanted:
            assert response.raw_output_contents[0] == raw
        else:
            assert list(response.outputs[0].contents.bytes_contents) == elements


@UNTIMED
@given(hnp.arrays(np.float32, SHAPES))
def test_bfloat16(array):
    with np.errstate(all="ignore"):
        narrow = array.astype(ml_dtypes.bfloat16)
    (tensor,) = parse_infer(raw_message(("x", "BF16", array.shape, narrow.tobytes()))).inputs
    assert tensor.array.dtype == np.float32
    np.testing.assert_array_equal(tensor.array, narrow.astype(np.float32))

    response = answered([OutputTensor("y", "BF16", array)])
    back = triton.InferResult(response).as_numpy("y")
    assert back.dtype == narrow.dtype
    np.testing.assert_array_equal(back.astype(np.float32), narrow.astype(np.float32))


@pytest.mark.parametrize(
    "array",
    [np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1), np.arange(9)[::-2]],
)
def test_outputs_that_are_not_contiguous(array):
    response = answered([OutputTensor("y", np_to_triton_dtype(array.dtype), array)])
    np.testing.assert_array_equal(triton.InferResult(response).as_numpy("y"), array)


def test_large_outputs_are_views_until_they_are_sent():
    array = np.arange(10, dtype=np.float32)
    answer = InferAnswer("m", "", (OutputTensor("y", "FP32", array),))
    *_, content = answer_parts(answer, InferRequest((), is_binary_wanted=True))
    assert np.shares_memory(np.frombuffer(content, np.uint8), array)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_all_outputs_travel_as_bytes_if_one_has_to(datatype):
    request = parse_infer(typed_message("FP32", [1], fp32_contents=[1]))
    half = OutputTensor("h", datatype, np.ones(2, "f2" if datatype == "FP16" else "f4"))
    response = answered([OutputTensor("y", "FP32", np.ones(1, "f4")), half], request)
    assert [len(each) for each in response.raw_output_contents] == [4, 4]
    assert not response.outputs[0].HasField("contents")


def test_what_is_written_by_hand_is_what_protobuf_writes():
    for size in (0, 1, 127, 128, 300, 16_384, 70_000):
        content = bytes(size)
        parts = field_parts(6, [content[: size // 2], content[size // 2 :]])
        theirs = triton_messages.ModelInferResponse(raw_output_contents=[content])
        assert joined(parts) == theirs.SerializeToString()


class Huge(bytes):
    def __len__(self):
        return 2**31


def test_an_answer_that_no_client_could_read():
    with pytest.raises(NotSupportedError, match="2 GiB"):
        joined([b"head", Huge()])


def test_all_that_a_request_may_say():
    message = raw_message(("a", "INT8", [2], b"\1\2"), ("b", "BOOL", [], b"\1"))
    message.id = "7"
    message.inputs[0].parameters["k"].string_param = "v"
    message.outputs.add(name="y").parameters["classification"].int64_param = 3
    message.outputs.add(name="z").parameters["binary_data"].bool_param = True
    message.parameters["timeout"].int64_param = 2_500_000
    message.parameters["priority"].uint64_param = 4
    message.parameters["binary_data_output"].bool_param = True
    message.parameters["flag"].bool_param = False
    message.parameters["count"].int64_param = -5
    message.parameters["text"].string_param = "t"
    message.parameters["real"].double_param = 0.5
    message.parameters["large"].uint64_param = 2**64 - 1
    request = parse_infer(message)
    assert (request.id, request.timeout_s, request.priority) == ("7", 2.5, 4)
    assert request.is_binary_wanted
    assert request.parameters == {
        "flag": False,
        "count": -5,
        "text": "t",
        "real": 0.5,
        "large": 2**64 - 1,
    }
    assert [each.name for each in request.inputs] == ["a", "b"]
    assert request.inputs[0].parameters == {"k": "v"}
    assert [(each.name, each.class_count) for each in request.outputs] == [("y", 3), ("z", 0)]
    assert not any(each.parameters for each in request.outputs)


def test_what_a_request_need_not_say():
    request = parse_infer(ModelInferRequest())
    assert request == InferRequest((), is_binary_wanted=True)
    message = raw_message()
    message.parameters["timeout"].int64_param = 0
    assert parse_infer(message).timeout_s is None


def with_parameter(place="request", key="k", **value):
    message = raw_message(("x", "INT8", [1], b"\1"))
    message.outputs.add(name="y")
    owner = {"request": message, "input": message.inputs[0], "output": message.outputs[0]}[place]
    owner.parameters[key].CopyFrom(InferParameter(**value))
    return message


def with_both():
    message = raw_message(("x", "INT8", [1], b"\1"))
    message.inputs[0].contents.int_contents.append(1)
    return message


def with_outputs(*names):
    message = raw_message(("x", "INT8", [1], b"\1"))
    for name in names:
        message.outputs.add(name=name)
    return message


def with_raw(count):
    message = raw_message(("x", "INT8", [1], b"\1"), ("y", "INT8", [1], b"\1"))
    message.raw_input_contents[:] = [b"\1"] * count
    return message


HUGE = 2**62


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (raw_message(("x", "FP32", [2], bytes(7))), "takes 8 bytes, and there are 7"),
        (raw_message(("x", "FP33", [2], bytes(8))), "no datatype 'FP33'"),
        (raw_message(("x", "FP32", [-1], bytes(4))), "negative size"),
        (raw_message(("x", "FP32", [HUGE, HUGE], bytes(4))), "no array can have"),
        (raw_message(("x", "FP32", [0, HUGE, HUGE], b"")), "no array can have"),
        (raw_message(("x", "FP32", [1] * 100, bytes(4))), "no array can have"),
        (raw_message(("x", "BOOL", [1], b"\2")), "0 or 1"),
        (raw_message(("x", "BYTES", [1], b"\5\0\0\0abc")), "3 are left"),
        (raw_message(("x", "BYTES", [2], b"\1\0\0\0abc")), "cut off|4 bytes each"),
        (raw_message(("x", "INT8", [1], b"1"), ("x", "INT8", [1], b"1")), "'x' comes twice"),
        (with_raw(1), "2 inputs and 1 entries of raw_input_contents"),
        (with_raw(3), "2 inputs and 3 entries"),
        (with_both(), "has contents, and there are raw_input_contents too"),
        (with_outputs("y", "z", "y"), "output 'y' comes twice"),
        (typed_message("FP32", [2], fp32_contents=[1]), "says 2 elements, and fp32_contents has 1"),
        (typed_message("FP32", [1]), "says 1 elements, and fp32_contents has 0"),
        (typed_message("FP32", [HUGE], fp32_contents=[1]), "no array can have"),
        (typed_message("FP32", [-1], fp32_contents=[1]), "negative size"),
        (typed_message("FP32", [1], fp64_contents=[1]), "are in fp32_contents, .* in fp64_cont"),
        (
            typed_message("FP32", [1], fp32_contents=[1], int_contents=[1]),
            "some in int_contents",
        ),
        (typed_message("FP16", [1], fp32_contents=[1]), "FP16 has no contents"),
        (typed_message("BF16", [1]), "BF16 has no contents"),
        (typed_message("FP33", [1], fp32_contents=[1]), "no datatype 'FP33'"),
        (typed_message("INT8", [1], int_contents=[128]), "from -128 to 127"),
        (typed_message("INT16", [1], int_contents=[-32769]), "from -32768 to 32767"),
        (typed_message("UINT8", [1], uint_contents=[256]), "from 0 to 255"),
        (typed_message("UINT16", [1], uint_contents=[65536]), "from 0 to 65535"),
        (typed_message("BYTES", [1], bytes_contents=[b"\xff"]), "not text in UTF-8"),
        (typed_message("BYTES", [1], bytes_contents=[b"a\0b"]), "NUL"),
        (with_parameter(), "parameter 'k' of the request has no value"),
        (with_parameter("input"), "parameter 'k' of input 'x' has no value"),
        (with_parameter("output"), "parameter 'k' of output 'y' has no value"),
        (with_parameter(key="timeout", int64_param=-1), "'timeout' of the request is -1"),
        (with_parameter(key="timeout", string_param="1"), "'timeout' of the request is '1'"),
        (with_parameter(key="timeout", bool_param=True), "'timeout' of the request is true"),
        (with_parameter(key="priority", double_param=1), "'priority' of the request is 1.0"),
        (
            with_parameter("output", "classification", int64_param=-1),
            "'classification' of output 'y' is -1",
        ),
    ],
)
def test_what_is_refused(message, text):
    with pytest.raises(BadRequestError, match=text):
        parse_infer(message)


@pytest.mark.parametrize("place", ["input", "output"])
def test_shared_memory_is_not_there(place):
    message = with_parameter(place, "shared_memory_region", string_param="r")
    with pytest.raises(NotSupportedError, match="shared memory, which parameter"):
        parse_infer(message)


def test_names_of_any_length_make_short_messages():
    long = "n" * 100_000
    for message in (
        raw_message((long, long, [1], b"")),
        typed_message(long, [1], name=long, fp32_contents=[1]),
        with_outputs(long, long),
        with_parameter(key=long),
        with_parameter("input", f"shared_memory_{long}", bool_param=True),
    ):
        with pytest.raises(ServeError) as caught:
            parse_infer(message)
        assert len(str(caught.value)) < 1000


def parse_bytes(data):
    """Return a request, or None where a client is told that it is none."""
    try:
        return parse_infer(parse_message(ModelInferRequest, data))
    except ServeError:
        return None


@UNTIMED
@given(st.binary(max_size=300))
def test_random_bytes(data):
    parse_bytes(data)


VALID = (
    raw_message(("x", "FP32", [2], bytes(8)), ("t", "BYTES", [1], b"\1\0\0\0a")),
    typed_message("INT8", [2], int_contents=[1, 2]),
    typed_message("BYTES", [1], bytes_contents=[b"a"]),
    with_parameter("output", "classification", int64_param=2),
)


@UNTIMED
@given(st.sampled_from(VALID), st.data())
def test_messages_with_damage(message, data):
    text = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    begin = data.draw(st.integers(0, len(text)))
    del text[begin : begin + data.draw(st.integers(0, 2))]
    parse_bytes(bytes(text))


ANY_SIZE = st.one_of(st.integers(-2, 4), st.sampled_from([2**31, HUGE, 2**63 - 1, -(2**63)]))


@UNTIMED
@given(
    st.sampled_from(["BOOL", "UINT8", "INT64", "FP16", "FP32", "BF16", "BYTES", "", "FP33"]),
    st.lists(ANY_SIZE, max_size=40),
    st.binary(max_size=40),
    st.booleans(),
)
def test_random_tensors(datatype, shape, content, is_raw):
    message = ModelInferRequest()
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    if is_raw:
        message.raw_input_contents.append(content)
    else:
        tensor.contents.uint_contents.extend(content)
    request = parse_bytes(message.SerializeToString())
    if request is not None:
        assert request.inputs[0].array.shape == tuple(shape)
        assert request.inputs[0].array.nbytes <= 64 * len(content)


def test_messages_of_the_same_names_live_beside_ours():
    ours = raw_message(("x", "INT8", [2], b"\1\2"))
    theirs = triton_messages.ModelInferRequest.FromString(ours.SerializeToString())
    assert type(theirs) is not type(ours)
    assert MessageToDict(theirs) == MessageToDict(ours)
    assert theirs.DESCRIPTOR.file.pool is descriptor_pool.Default()
    assert ours.DESCRIPTOR.file.pool is not descriptor_pool.Default()


def fields_of(message):
    return {
        field.name: (field.number, field.type, field.is_repeated, field.message_type and True)
        for field in message.fields
    }


def test_fields_are_those_of_triton():
    from tritonclient.grpc import model_config_pb2  # noqa: PLC0415 - for this comparison only

    pool = ModelInferRequest.DESCRIPTOR.file
    extra = {"RepositoryModelLoadResponse", "RepositoryModelUnloadResponse"}  # KServe's fields
    compared = 0

    def compare(ours, theirs):
        nonlocal compared
        their_fields = fields_of(theirs)
        for name, description in fields_of(ours).items():
            assert their_fields[name] == description, f"{ours.full_name}.{name}"
            compared += 1
        for nested in ours.nested_types:
            compare(nested, theirs.nested_types_by_name[nested.name])
        for enum in ours.enum_types:
            values = {value.name: value.number for value in enum.values}
            their_enum = theirs.enum_types_by_name[enum.name]
            assert values == {value.name: value.number for value in their_enum.values}

    theirs = {
        **triton_messages.DESCRIPTOR.message_types_by_name,
        **model_config_pb2.DESCRIPTOR.message_types_by_name,
    }
    for name, message in pool.message_types_by_name.items():
        if name not in extra:
            compare(message, theirs[name])
    assert compared > 100

    our_types = {each.name: each.number for each in pool.enum_types_by_name["DataType"].values}
    assert our_types == dict(model_config_pb2.DataType.items())
    service = triton_messages.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    for method in pool.services_by_name["GRPCInferenceService"].methods:
        other = service.methods_by_name[method.name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
        assert method.client_streaming == other.client_streaming


def test_the_description_is_found_or_its_making_told(monkeypatch, tmp_path):
    monkeypatch.setattr(messages.resources, "files", lambda _: tmp_path)
    with pytest.raises(ImportError, match="make venv"):
        messages._message_classes()


def test_a_response_of_ours_is_what_protobuf_reads():
    answer = InferAnswer("m", "3", (OutputTensor("y", "INT8", np.array([1, 2], np.int8)),), "7")
    data = joined(answer_parts(answer, InferRequest((), is_binary_wanted=True)))
    message = ModelInferResponse.FromString(data)
    assert (message.model_name, message.model_version, message.id) == ("m", "3", "7")
    assert list(message.raw_output_contents) == [b"\1\2"]
