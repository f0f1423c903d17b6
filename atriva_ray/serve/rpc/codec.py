"""Inference requests and answers, between the messages of gRPC and what they mean."""

# Types of protobuf may not be there.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError

from atriva_inference.tensor import Array
from atriva_ray.errors import BadRequestError, NotSupportedError
from atriva_ray.serve.protocol.classification import classify
from atriva_ray.serve.protocol.datatypes import (
    Buffer,
    decode,
    dtype_of,
    element_count,
    encode,
)
from atriva_ray.serve.protocol.messages import (
    InferAnswer,
    InferRequest,
    InputTensor,
    OutputTensor,
    ParameterValue,
    RequestedOutput,
)
from atriva_ray.serve.protocol.parameters import take_count
from atriva_ray.serve.protocol.text_elements import elements_of, text_array
from atriva_ray.serve.protocol.wording import shown
from atriva_ray.serve.rpc.messages import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)
from atriva_ray.serve.rpc.wire import field_parts

__all__ = ["answer_parts", "parse_infer", "parse_message"]

Message = TypeVar("Message")

_CONTENTS = {
    "BOOL": "bool_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field that holds the elements; FP16 and BF16 have none."""

_FIELD_DTYPES = {
    "bool_contents": np.dtype(np.bool_),
    "int_contents": np.dtype(np.int32),
    "int64_contents": np.dtype(np.int64),
    "uint_contents": np.dtype(np.uint32),
    "uint64_contents": np.dtype(np.uint64),
    "fp32_contents": np.dtype(np.float32),
    "fp64_contents": np.dtype(np.float64),
}
"""What a field can hold: more than some of the datatypes in it."""

_HTTP_ONLY = frozenset({"binary_data", "binary_data_output", "binary_data_size"})
"""They say how elements travel over HTTP; some clients send them here too."""

_US_PER_S = 1_000_000
_REQUEST = "the request"
_RAW_ANSWERS = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_FINAL_WANTED = "triton_enable_empty_final_response"
_FINAL = "triton_final_response"


def parse_message(kind: type[Message], data: bytes) -> Message:
    """Return a message from its bytes.

    Raises:
        BadRequestError: they are none.
    """
    try:
        return kind.FromString(data)  # type: ignore[attr-defined,no-any-return]
    except DecodeError:
        raise BadRequestError(
            f"what was sent is no {kind.__name__}; see inference.proto, or use a client library"
        ) from None


def parse_infer(message: ModelInferRequest) -> InferRequest:
    """Return what a message asks for.

    Elements come either all as bytes, in `raw_input_contents`, or all one by one, in `contents`.
    The answer is to travel likewise: so `is_binary_wanted` is set for the former.

    Raises:
        BadRequestError: it contradicts itself, or is not as the protocol has it.
        NotSupportedError: it asks for shared memory.
    """
    parameters = _parameters(_REQUEST, message.parameters)
    timeout_us = take_count(_REQUEST, parameters, "timeout", 0)
    inputs = _inputs(message)
    outputs = tuple(_requested(each) for each in message.outputs)
    _check_distinct("output", (output.name for output in outputs))
    return InferRequest(
        inputs,
        outputs,
        id=message.id,
        is_binary_wanted=len(message.raw_input_contents) > 0 or not inputs,
        timeout_s=timeout_us / _US_PER_S if timeout_us else None,
        priority=take_count(_REQUEST, parameters, "priority", 0),
        parameters=parameters,
    )


def answer_parts(answer: InferAnswer, request: InferRequest) -> list[Buffer]:
    """Return a `ModelInferResponse` as the parts that its bytes consist of.

    Elements that travel as bytes are not copied: they are views of the answer's arrays. Elements
    travel one by one only if those of the request did, and only if every output can.

    Args:
        answer: what the model says.
        request: what it was asked.
    """
    class_counts = {each.name: each.class_count for each in request.outputs if each.class_count}
    outputs = [
        classify(output, class_counts[output.name]) if output.name in class_counts else output
        for output in answer.outputs
    ]
    head = ModelInferResponse(
        model_name=answer.model_name, model_version=answer.model_version, id=answer.id
    )
    if request.parameters.get(_FINAL_WANTED) is True:
        head.parameters[_FINAL].bool_param = True
    for output in outputs:
        head.outputs.add(name=output.name, datatype=output.datatype, shape=output.array.shape)
    if not request.is_binary_wanted and all(each.datatype in _CONTENTS for each in outputs):
        for tensor, output in zip(head.outputs, outputs, strict=True):
            getattr(tensor.contents, _CONTENTS[output.datatype]).extend(_elements(output))
        return [head.SerializeToString()]
    parts: list[Buffer] = [head.SerializeToString()]
    for output in outputs:
        parts += field_parts(_RAW_ANSWERS, [encode(output.datatype, output.array)])
    return parts


def _elements(output: OutputTensor) -> Iterable[object]:
    if output.datatype == "BYTES":
        return (
            each.encode() if isinstance(each, str) else each for each in elements_of(output.array)
        )
    elements: list[object] = output.array.reshape(-1).tolist()
    return elements


def _inputs(message: ModelInferRequest) -> tuple[InputTensor, ...]:
    raw_count = len(message.raw_input_contents)
    if raw_count not in (0, len(message.inputs)):
        raise BadRequestError(
            f"there are {len(message.inputs):,} inputs and {raw_count:,} entries of "
            "raw_input_contents; send one for each input, in the same order, or none at all"
        )
    _check_distinct("input", (tensor.name for tensor in message.inputs))
    raw_contents = message.raw_input_contents if raw_count else [None] * len(message.inputs)
    return tuple(
        _input(tensor, raw) for tensor, raw in zip(message.inputs, raw_contents, strict=True)
    )


def _input(tensor: ModelInferRequest.InferInputTensor, raw: bytes | None) -> InputTensor:
    name = tensor.name
    owner = f"input {shown(name)}"
    parameters = _parameters(owner, tensor.parameters)
    if raw is None:
        array = _from_contents(name, tensor.datatype, tuple(tensor.shape), tensor.contents)
    elif tensor.contents.ListFields():
        raise BadRequestError(
            f"{owner} has contents, and there are raw_input_contents too; "
            "send the elements in one of the two"
        )
    else:
        array = decode(name, tensor.datatype, tuple(tensor.shape), raw)
    return InputTensor(name, tensor.datatype, array, parameters)


def _from_contents(
    name: str, datatype: str, shape: tuple[int, ...], contents: InferTensorContents
) -> Array:
    dtype = dtype_of(datatype)
    count = element_count(name, shape)
    field = _CONTENTS.get(datatype)
    if field is None:
        raise BadRequestError(
            f"input {shown(name)}: {datatype} has no contents; send it as raw_input_contents"
        )
    others = [each.name for each, _ in contents.ListFields() if each.name != field]
    if others:
        raise BadRequestError(
            f"input {shown(name)}: the elements of {datatype} are in {field}, "
            f"and there are some in {', '.join(others)}"
        )
    elements = getattr(contents, field)
    if len(elements) != count:
        raise BadRequestError(
            f"input {shown(name)}: its shape says {count:,} elements, "
            f"and {field} has {len(elements):,}"
        )
    if datatype == "BYTES":
        return text_array(name, list(elements), shape)
    sent = np.fromiter(elements, _FIELD_DTYPES[field], count)
    array = sent.astype(dtype, copy=False)
    if array is not sent and not np.array_equal(array, sent):
        limits = np.iinfo(dtype)
        raise BadRequestError(
            f"input {shown(name)}: elements of {datatype} are from {limits.min} to {limits.max}, "
            "and some are not"
        )
    return array.reshape(shape)


def _requested(output: ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    owner = f"output {shown(output.name)}"
    parameters = _parameters(owner, output.parameters)
    class_count = take_count(owner, parameters, "classification", 0)
    return RequestedOutput(output.name, class_count=class_count, parameters=parameters)


def _parameters(owner: str, values: Mapping[str, InferParameter]) -> dict[str, ParameterValue]:
    parameters: dict[str, ParameterValue] = {}
    for name, value in values.items():
        if name.startswith("shared_memory_"):
            raise NotSupportedError(
                f"shared memory, which parameter {shown(name)} of {owner} asks for; let the "
                "elements travel in the messages"
            )
        field = value.WhichOneof("parameter_choice")
        if field is None:
            raise BadRequestError(f"parameter {shown(name)} of {owner} has no value; give it one")
        if name not in _HTTP_ONLY:
            parameters[name] = getattr(value, field)
    return parameters


def _check_distinct(kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequestError(f"{kind} {shown(name)} comes twice; send each one once")
        seen.add(name)
