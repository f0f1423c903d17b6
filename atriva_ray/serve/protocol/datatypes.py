"""The element types of the protocol: their names, their numpy dtypes, and their bytes.

As bytes, elements are little-endian and row by row, with nothing between them. These are the
dtypes that they have here:

============================  ==================================================================
``BOOL``                      bool; one byte, 0 or 1
``UINT8`` to ``UINT64``       uint8 to uint64
``INT8`` to ``INT64``         int8 to int64
``FP16``, ``FP32``, ``FP64``  float16, float32, float64
``BF16``                      float32, which holds every value of it: numpy has no such type, and
                              the models here take and give float32 in its place
``BYTES``                     str; see `atriva_ray.serve.protocol.text_elements`
============================  ==================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from atriva_inference.tensor import Array
from atriva_ray.errors import BadRequestError, NotSupportedError
from atriva_ray.serve.protocol import text_elements
from atriva_ray.serve.protocol.wording import shape_text, shown

__all__ = [
    "DATATYPES",
    "Buffer",
    "datatype_of",
    "decode",
    "dtype_of",
    "element_count",
    "encode",
    "item_size_bytes",
]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Memory that holds bytes; a memoryview must be of plain ones (format ``B``), contiguous."""

_WIRE = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_NATIVE = {name: wire.newbyteorder("=") for name, wire in _WIRE.items()}
_NAMES = {(wire.kind, wire.itemsize): name for name, wire in _WIRE.items()}
_BF16_BYTES = 2
_BF16_BITS = np.uint32(16)

DATATYPES = (*_WIRE, "BF16", "BYTES")
"""Every name that the protocol has."""

_MAX_RANK = 32
"""What every numpy that this runs with can do."""
_MAX_INDEX = 2**63 - 1


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Return what the protocol calls a dtype, a model's for example.

    Raises:
        NotSupportedError: the protocol has no name for it.
    """
    if dtype.kind in "OSU":
        return "BYTES"
    name = _NAMES.get((dtype.kind, dtype.itemsize))
    if name is not None:
        return name
    if dtype.name == "bfloat16":
        return "BF16"
    raise NotSupportedError(
        f"tensors of {dtype}: the protocol has no name for it, only {', '.join(DATATYPES)}"
    )


def dtype_of(datatype: str) -> np.dtype[Any]:
    """Return the dtype that decoded elements have; for ``BYTES`` it is str without a length.

    Raises:
        BadRequestError: the protocol has no such datatype.
    """
    dtype = _NATIVE.get(datatype)
    if dtype is not None:
        return dtype
    if datatype == "BF16":
        return np.dtype(np.float32)
    if datatype == "BYTES":
        return np.dtype(np.str_)
    raise BadRequestError(
        f"the protocol has no datatype {shown(datatype)}; it has {', '.join(DATATYPES)}"
    )


def item_size_bytes(datatype: str) -> int | None:
    """Return how many bytes one element takes on its way; None if that differs, as in ``BYTES``.

    Raises:
        BadRequestError: the protocol has no such datatype.
    """
    if datatype == "BF16":
        return _BF16_BYTES
    dtype = dtype_of(datatype)
    return None if datatype == "BYTES" else dtype.itemsize


def element_count(name: str, shape: Sequence[int]) -> int:
    """Return how many elements an input of this shape has; nothing is allocated.

    Raises:
        BadRequestError: a size is negative, or no array can have this shape.
    """
    if any(size < 0 for size in shape):
        raise BadRequestError(
            f"input {shown(name)}: shape {shape_text(shape)} has a negative size; "
            "give the sizes that the data really has"
        )
    # Sizes of zero do not count here: numpy cannot have the others too large beside them either.
    if len(shape) > _MAX_RANK or 8 * math.prod(size for size in shape if size) > _MAX_INDEX:
        raise BadRequestError(
            f"input {shown(name)}: no array can have shape {shape_text(shape)}; "
            f"there may be {_MAX_RANK} sizes, and no more elements than were sent"
        )
    return math.prod(shape)


def decode(name: str, datatype: str, shape: Sequence[int], data: Buffer) -> Array:
    """Return an input's elements from their bytes.

    Args:
        name: the input, for messages.
        datatype: as the protocol names it.
        shape: sizes, as many elements in all as `data` holds.
        data: the bytes; they must not change as long as the result is used.

    Returns:
        A view of `data`, which need not be aligned and cannot be written to if `data` cannot;
        a new array for ``BF16`` and ``BYTES``.

    Raises:
        BadRequestError: there is no such datatype, it is more or fewer bytes than the shape says,
            or one of them cannot be what it should be.
    """
    item_bytes = item_size_bytes(datatype)
    count = element_count(name, shape)
    if item_bytes is None:
        parts = text_elements.split(name, data, count)
        return text_elements.text_array(name, parts, shape)
    if count * item_bytes != len(data):
        raise BadRequestError(
            f"input {shown(name)}: {datatype} in shape {shape_text(shape)} takes "
            f"{count * item_bytes:,} bytes, and there are {len(data):,}"
        )
    if not count:
        return np.empty(shape, dtype_of(datatype))
    if datatype == "BF16":
        return _widened(data).reshape(shape)
    if datatype == "BOOL" and np.frombuffer(data, np.uint8).max() > 1:
        raise BadRequestError(f"input {shown(name)}: a byte of BOOL is 0 or 1, there are others")
    array = np.frombuffer(data, _WIRE[datatype]).reshape(shape)
    return array.astype(_NATIVE[datatype], copy=False)


def encode(datatype: str, array: Array) -> bytes | memoryview:
    """Return the bytes of an output's elements.

    Args:
        datatype: what `datatype_of` says of the array's dtype; or ``BF16`` for float32, and then
            values are rounded to the nearest that it has.
        array: the elements; it must not change as long as the result is used.

    Returns:
        A view of the array if it is contiguous and little-endian, else of a copy.

    Raises:
        TypeError: the array's dtype is another one.
    """
    is_rounded = datatype == "BF16" and array.dtype == np.float32
    if not is_rounded and datatype != datatype_of(array.dtype):
        raise TypeError(f"an array of {array.dtype} is not {datatype}")
    if datatype == "BYTES":
        return text_elements.join(array)
    wire: Array
    if datatype == "BF16":
        wire = _rounded(array) if is_rounded else np.ascontiguousarray(array).view(np.uint16)
        wire = wire.astype("<u2", copy=False)
    else:
        wire = array.astype(_WIRE[datatype], copy=False)
    return np.ascontiguousarray(wire).reshape(-1).view(np.uint8).data


def _widened(data: Buffer) -> Array:
    """Return bfloat16 as float32: the same bits, followed by zeros."""
    bits = np.frombuffer(data, "<u2").astype(np.uint32)
    bits <<= _BF16_BITS
    return bits.view(np.float32)


def _rounded(array: Array) -> Array:
    """Return the bits of bfloat16 that are nearest to float32, of two the even one."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    high = bits >> _BF16_BITS
    # What a NaN carries in its low bits alone would be lost, and leave an infinity.
    is_nan_below = np.isnan(array) & (high & 0x7F == 0)
    finite = (bits + (np.uint32(0x7FFF) + (high & 1))) >> _BF16_BITS
    nan = np.where(is_nan_below, high | 0x40, high)
    return np.where(np.isnan(array), nan, finite).astype(np.uint16)
