"""An inference request as it comes over HTTP: JSON, and the elements of tensors behind it.

Triton's binary tensor data extension: the header ``Inference-Header-Content-Length`` says how many
bytes of the body are JSON; elements of inputs with the parameter ``binary_data_size`` follow, in
the order of the inputs. If it says 0, the whole body is the one input of the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable

import numpy as np

from atriva_inference.errors import format_shape
from atriva_inference.ports import Port
from atriva_ray.errors import BadRequestError
from atriva_ray.serve.protocol.datatypes import (
    Buffer,
    datatype_of,
    decode,
    item_size_bytes,
)
from atriva_ray.serve.protocol.json_elements import array_of_json
from atriva_ray.serve.protocol.messages import InferRequest, InputTensor, RequestedOutput
from atriva_ray.serve.protocol.parameters import (
    checked_text,
    parameters_of,
    take_count,
    take_flag,
)
from atriva_ray.serve.protocol.text_elements import text_array
from atriva_ray.serve.protocol.wording import shape_text, shown

__all__ = ["HEADER_LENGTH", "parse_infer_request", "parse_raw_request"]

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The HTTP header that says how much of a body is JSON, if not all is."""

_US_PER_S = 1_000_000
_REQUEST = "the request"


def parse_infer_request(body: Buffer, header_length: int | None) -> InferRequest:
    """Return what a client asks for.

    What is allocated is in proportion to the body, whatever sizes it speaks of; only text may
    become an array of 64 MiB beyond that.

    Args:
        body: all of it. It must not change as long as the request is used: inputs that are sent
            as bytes are views of it.
        header_length: value of the header `HEADER_LENGTH`; None: it is not there, and the body is
            JSON to its end. For 0, see `parse_raw_request`.

    Raises:
        BadRequestError: it is not JSON, not what the protocol says, or a tensor is not what is
            said about it.
        NotSupportedError: elements are in shared memory.
    """
    view = memoryview(body)
    json_size = len(view) if header_length is None else header_length
    if not 0 <= json_size <= len(view):
        raise BadRequestError(
            f"{HEADER_LENGTH} is {json_size:,}, and the body has {len(view):,} bytes; it is to be "
            "the size of the JSON that the body begins with"
        )
    document = _document(view[:json_size])
    parameters = parameters_of(_REQUEST, document.get("parameters"))
    name = document.get("id")
    timeout_us = take_count(_REQUEST, parameters, "timeout", 0)
    tail = _Tail(view[json_size:], is_announced=header_length is not None)
    specs = _objects(document, "inputs", is_needed=True)
    inputs = tuple(_input(each, tail) for each in specs)
    tail.check_end()
    if any(_has_infinity(each, array) for each, array in zip(specs, inputs, strict=True)):
        _document(view[:json_size], _finite)
    outputs = tuple(_output(each) for each in _objects(document, "outputs", is_needed=False))
    _check_distinct("input", inputs)
    _check_distinct("output", outputs)
    return InferRequest(
        inputs=inputs,
        outputs=outputs,
        id="" if name is None else checked_text("the id", name),
        is_binary_wanted=take_flag(_REQUEST, parameters, "binary_data_output", default=False),
        timeout_s=timeout_us / _US_PER_S if timeout_us else None,
        priority=take_count(_REQUEST, parameters, "priority", 0),
        parameters=parameters,
    )


def parse_raw_request(body: Buffer, port: Port) -> InferRequest:
    """Return a request whose whole body is one tensor; its outputs are to be bytes as well.

    Args:
        body: the elements; for text, the one element, without its length. It must not change as
            long as the request is used.
        port: the only input of the model. One of its sizes may be dynamic, and is then what the
            body has elements for; for text it is 1.

    Raises:
        BadRequestError: the shape cannot be told, or the body does not fill it.
        NotSupportedError: the protocol has no name for the model's dtype.
    """
    datatype = datatype_of(port.dtype)
    if port.shape is None or sum(size < 0 for size in port.shape) > 1:
        shape = "any rank" if port.shape is None else format_shape(port.shape)
        raise BadRequestError(
            f"the body has no JSON, and the shape of input {port.name!r} ({shape}) cannot be told "
            "from its size; send JSON that says it"
        )
    item_bytes = item_size_bytes(datatype)
    fixed = math.prod(size for size in port.shape if size >= 0)
    count = 1 if item_bytes is None else len(body) // max(item_bytes * fixed, 1)
    shape_sent = tuple(count if size < 0 else size for size in port.shape)
    if item_bytes is None:
        if math.prod(shape_sent) != 1:
            raise BadRequestError(
                f"the body has no JSON and is one element of text, and input {port.name!r} takes "
                f"{shape_text(shape_sent)}; send JSON, and each element after its length"
            )
        array = text_array(port.name, [memoryview(body)], shape_sent)
    else:
        array = decode(port.name, datatype, shape_sent, body)
    return InferRequest((InputTensor(port.name, datatype, array),), is_binary_wanted=True)


class _Tail:
    """The bytes behind the JSON, taken piece by piece."""

    def __init__(self, view: memoryview, *, is_announced: bool) -> None:
        self._view = view
        self._is_announced = is_announced
        self._offset = 0

    def take(self, owner: str, size_bytes: int) -> memoryview:
        begin = self._offset
        left_bytes = len(self._view) - begin
        if size_bytes > left_bytes:
            hint = "" if self._is_announced else f"; the header {HEADER_LENGTH} is missing"
            raise BadRequestError(
                f"{owner} is said to have {size_bytes:,} bytes behind the JSON, and there are "
                f"{left_bytes:,}{hint}"
            )
        self._offset += size_bytes
        return self._view[begin : self._offset]

    def check_end(self) -> None:
        left_bytes = len(self._view) - self._offset
        if left_bytes:
            raise BadRequestError(
                f"{left_bytes:,} bytes are left at the end of the body; {HEADER_LENGTH} and every "
                "input's binary_data_size are to make up the whole body"
            )


def _document(
    view: memoryview, parse_float: Callable[[str], float] | None = None
) -> dict[str, object]:
    try:
        # As text: `json.loads` would guess at UTF-16 and UTF-32 where it is given bytes.
        document = json.loads(str(view, "utf-8"), parse_float=parse_float)
    except RecursionError:
        raise BadRequestError("the JSON is nested too deep") from None
    except ValueError as error:
        raise BadRequestError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise BadRequestError(f"the JSON is {shown(document)}; a request is an object")
    return document


def _finite(digits: str) -> float:
    """Return a number, unless it only becomes infinite because it is too large."""
    value = float(digits)
    if math.isinf(value):
        raise BadRequestError(f"{digits:.40} is too large; if that is meant, write Infinity")
    return value


def _has_infinity(spec: dict[str, object], tensor: InputTensor) -> bool:
    """Whether an input that came in JSON has one: it may be `Infinity`, or 1e999."""
    return "data" in spec and tensor.array.dtype.kind == "f" and bool(np.isinf(tensor.array).any())


def _objects(
    document: dict[str, object], field: str, *, is_needed: bool
) -> list[dict[str, object]]:
    value = document.get(field)
    if value is None and not is_needed:
        return []
    if not isinstance(value, list):
        missing = shown(value) if field in document else "missing"
        raise BadRequestError(f"{field!r} is {missing}; it is to be a list of objects")
    for index, each in enumerate(value):
        if not isinstance(each, dict):
            raise BadRequestError(f"{field}[{index}] is {shown(each)}, not an object")
    return value


def _input(document: dict[str, object], tail: _Tail) -> InputTensor:
    name = _name("an input", document)
    owner = f"input {shown(name)}"
    datatype = checked_text(f"the datatype of {owner}", document.get("datatype"))
    shape = _shape(owner, document.get("shape"))
    parameters = parameters_of(owner, document.get("parameters"))
    size_bytes = take_count(owner, parameters, "binary_data_size", None)
    if size_bytes is not None:
        if "data" in document:
            raise BadRequestError(f"{owner} has both data and binary_data_size; send one of them")
        array = decode(name, datatype, shape, tail.take(owner, size_bytes))
    elif "data" in document:
        array = array_of_json(name, datatype, shape, document["data"])
    else:
        raise BadRequestError(
            f"{owner} has no elements: send them as data in the JSON, or behind it and their size "
            "in the parameter binary_data_size"
        )
    return InputTensor(name, datatype, array, parameters)


def _output(document: dict[str, object]) -> RequestedOutput:
    name = _name("an output", document)
    owner = f"output {shown(name)}"
    parameters = parameters_of(owner, document.get("parameters"))
    return RequestedOutput(
        name=name,
        is_binary=take_flag(owner, parameters, "binary_data", None),
        class_count=take_count(owner, parameters, "classification", 0),
        parameters=parameters,
    )


def _name(what: str, document: dict[str, object]) -> str:
    name = checked_text(f"the name of {what}", document.get("name"))
    if not name:
        raise BadRequestError(f"the name of {what} is empty")
    return name


def _shape(owner: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise BadRequestError(f"the shape of {owner} is {shown(value)}, not a list of sizes")
    for size in value:
        if type(size) is not int:  # `True` is one, to `isinstance`
            raise BadRequestError(f"the shape of {owner} has {shown(size)} in it; sizes are whole")
    return tuple(value)


def _check_distinct(what: str, tensors: Iterable[InputTensor | RequestedOutput]) -> None:
    names = set()
    for tensor in tensors:
        if tensor.name in names:
            raise BadRequestError(f"{what} {shown(tensor.name)} comes twice")
        names.add(tensor.name)
