"""Tensors whose elements are in the JSON itself: a list, flat or nested as the shape says."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from atriva_inference.tensor import Array
from atriva_ray.errors import BadRequestError
from atriva_ray.serve.protocol import text_elements
from atriva_ray.serve.protocol.datatypes import dtype_of, element_count
from atriva_ray.serve.protocol.wording import shape_text, shown

__all__ = ["array_of_json", "json_of_array"]

_BINARY_ONLY = ("FP16", "BF16")
"""As Triton has it: nobody knows how their numbers would look in JSON."""

_KINDS: dict[str, tuple[set[type], str]] = {
    "b": ({bool}, "true or false"),
    "i": ({int}, "whole numbers"),
    "u": ({int}, "whole numbers"),
    "f": ({int, float}, "numbers"),
    "U": ({str}, "strings"),
}
"""By kind of dtype: the types that elements have, and what to call them. `bool` is no `int`."""


def array_of_json(name: str, datatype: str, shape: Sequence[int], data: object) -> Array:
    """Return an input's elements.

    Args:
        name: the input, for messages.
        datatype: as the protocol names it.
        shape: the sizes.
        data: what JSON has for them. NaN, Infinity and -Infinity, which are no JSON but which
            most programs write, are floats.

    Raises:
        BadRequestError: it is not as many elements as the shape says, they are nested otherwise,
            or one is not an element of the datatype.
    """
    dtype = dtype_of(datatype)
    if datatype in _BINARY_ONLY:
        raise BadRequestError(
            f"input {shown(name)}: {datatype} cannot be sent in JSON; send it as binary data, "
            "or as FP32"
        )
    elements = _flat(name, shape, data)
    types, what = _KINDS[dtype.kind]
    if not types.issuperset(map(type, elements)):
        index = next(index for index, each in enumerate(elements) if type(each) not in types)
        raise BadRequestError(
            f"input {shown(name)}: element {index:,} is {shown(elements[index])}; the elements "
            f"of {datatype} are {what}"
        )
    if datatype == "BYTES":
        return text_elements.text_array(name, elements, shape)
    if dtype.kind in "iu":
        _check_range(name, datatype, dtype, elements)
    if dtype.kind == "f":
        return _floats(name, datatype, dtype, elements).reshape(shape)
    return np.array(elements, dtype).reshape(shape)


def json_of_array(name: str, datatype: str, array: Array) -> list[object]:
    """Return an output's elements for JSON, as a flat list.

    NaN and infinities stay floats, which `json` writes as ``NaN`` and ``Infinity``: that is no
    JSON, but Triton writes the same, and its clients read it.

    Raises:
        BadRequestError: JSON cannot have them; the client can ask for binary data.
        TypeError: the elements of ``BYTES`` are neither str nor bytes.
    """
    if datatype in _BINARY_ONLY:
        raise BadRequestError(
            f"output {shown(name)} is {datatype}, which cannot be sent in JSON; ask for it as "
            'binary data: {"binary_data": true} among the parameters of the output'
        )
    if datatype != "BYTES":
        elements: list[object] = array.reshape(-1).tolist()
        return elements
    try:
        return [
            each if isinstance(each, str) else each.decode()
            for each in text_elements.elements_of(array)
        ]
    except UnicodeDecodeError:
        raise BadRequestError(
            f"output {shown(name)} has bytes that are no text in UTF-8; ask for it as binary "
            'data: {"binary_data": true} among the parameters of the output'
        ) from None


def _flat(name: str, shape: Sequence[int], data: object) -> list[Any]:
    """Return the elements row by row; level by level, for nesting may be deeper than a stack."""
    if not isinstance(data, list):
        raise BadRequestError(f"input {shown(name)}: its data is {shown(data)}; it is to be a list")
    count = element_count(name, shape)
    if not (data and isinstance(data[0], list)):
        if len(data) != count:
            raise BadRequestError(
                f"input {shown(name)}: shape {shape_text(shape)} has {count:,} elements, and "
                f"there are {len(data):,}"
            )
        return data
    level: list[Any] = [data]
    for axis, size in enumerate(shape):
        rows = [row for row in level if isinstance(row, list) and len(row) == size]
        if len(rows) != len(level):
            raise BadRequestError(
                f"input {shown(name)}: its data is not nested like shape {shape_text(shape)}: "
                f"along axis {axis}, there are not {size:,} everywhere; nest it so, or not at all"
            )
        level = list(chain.from_iterable(rows))
    return level


def _check_range(
    name: str, datatype: str, dtype: np.dtype[np.signedinteger], elements: Sequence[int]
) -> None:
    bounds = np.iinfo(dtype)
    low, high = min(elements, default=0), max(elements, default=0)
    if low < bounds.min or high > bounds.max:
        raise BadRequestError(
            f"input {shown(name)}: {shown(low if low < bounds.min else high)} is not in the "
            f"range of {datatype}, {bounds.min} to {bounds.max}"
        )


def _floats(
    name: str, datatype: str, dtype: np.dtype[np.floating], elements: list[object]
) -> Array:
    try:
        wide = np.array(elements, np.float64)
    except OverflowError:
        is_beyond = np.array([False])
    else:
        with np.errstate(over="ignore"):
            narrow = wide.astype(dtype, copy=False)
        is_beyond = np.isinf(narrow) & np.isfinite(wide)
        if not is_beyond.any():
            return narrow
    raise BadRequestError(
        f"input {shown(name)}: a number is too large for {datatype}; if that is meant, write "
        "Infinity"
    )
