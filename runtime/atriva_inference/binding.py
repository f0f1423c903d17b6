"""From what the caller passed to exactly what the model takes: names, layout, dtype, memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from atriva_inference.errors import (
    InputDtypeError,
    InputShapeError,
    InputSizeError,
    OptionError,
)
from atriva_inference.ports import Port, match_names
from atriva_inference.tensor import Array, Tensor

__all__ = [
    "Allocate",
    "BoundInputs",
    "Inputs",
    "ShapeSignature",
    "Staging",
    "bind_inputs",
    "max_input_bytes",
]

Inputs: TypeAlias = Mapping[str, "Tensor | npt.ArrayLike"]
"""What users pass: one Tensor or array per input, under any of the input's names."""

Allocate: TypeAlias = Callable[[str, tuple[int, ...], np.dtype[Any]], Array]
"""Gives uninitialised memory for one converted input."""

ShapeSignature: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
"""Input shapes that a model is compiled for, sorted by name."""

MAX_INPUT_VARIABLE = "ATRIVA_MAX_INPUT_BYTES"
DEFAULT_MAX_INPUT_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class BoundInputs:
    """Inputs that fit the model: C-contiguous arrays by primary name.

    Attributes:
        arrays: the data; an array of the caller's where nothing had to change.
        signature: the shapes to specialise for, or None to run the model as it was loaded.
    """

    arrays: Mapping[str, Array]
    signature: ShapeSignature | None = None


class Staging:
    """Memory for converted inputs that is used again for the next request of the same shape.

    Only one request at a time may use it.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, Array] = {}

    def allocate(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the buffer kept for this input, a new one if its shape or dtype changed."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != shape or buffer.dtype != dtype:
            buffer = self._buffers[name] = np.empty(shape, dtype)
        return buffer


def _allocate_new(_name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    return np.empty(shape, dtype)


def bind_inputs(
    ports: Sequence[Port], inputs: Inputs, allocate: Allocate = _allocate_new
) -> BoundInputs:
    """Fit a request's inputs to the model's ports.

    An array is passed on without a copy when it is C-contiguous, has the port's dtype, and its
    layout is the port's or either is unknown. Otherwise it is copied once, into memory from
    `allocate`, with the axes and the element type changed on the way.

    Raises:
        InputNameError: names do not match the ports.
        InputShapeError: rank, sizes or layout do not fit, or an input is empty.
        InputDtypeError: the element type cannot be converted without losing values.
        InputSizeError: an input is larger than ``ATRIVA_MAX_INPUT_BYTES`` (2 GiB by default).
    """
    if not isinstance(inputs, Mapping):
        raise InputDtypeError(
            "inputs", type(inputs).__name__, "a dict", 'pass {"name": tensor}, one per input'
        )
    matched = match_names(ports, inputs)
    arrays: dict[str, Array] = {}
    specialise = False
    for port in ports:
        value = matched[port.name]
        tensor = value if isinstance(value, Tensor) else _wrapped(port, value)
        specialise = specialise or (tensor.specialise and port.is_dynamic)
        arrays[port.name] = _fit(port, tensor, allocate)
    signature = None
    if specialise:
        signature = tuple(sorted((name, array.shape) for name, array in arrays.items()))
    return BoundInputs(arrays, signature)


def _wrapped(port: Port, value: npt.ArrayLike) -> Tensor:
    try:
        return Tensor.from_numpy(value, layout=None)
    except InputShapeError as error:
        raise InputShapeError(port.name, error.shape, port.shape, error.hint) from None
    except InputDtypeError as error:
        raise InputDtypeError(port.name, error.dtype, str(port.dtype), error.hint) from None


def _fit(port: Port, tensor: Tensor, allocate: Allocate) -> Array:
    array = tensor.to_numpy()
    axes = _axes(port, tensor)
    shape = array.shape if axes is None else tuple(array.shape[axis] for axis in axes)
    if not port.accepts(shape):
        raise InputShapeError(port.name, array.shape, port.shape, _shape_hint(port, tensor))
    if array.size == 0:
        raise InputShapeError(
            port.name, array.shape, port.shape, "it has no elements; pass at least one"
        )
    limit_bytes = max_input_bytes()
    size_bytes = math.prod(shape) * max(array.itemsize, port.dtype.itemsize)
    if size_bytes > limit_bytes:
        raise InputSizeError(port.name, size_bytes, limit_bytes)
    if port.dtype.kind in "OSU" or array.dtype.kind in "SU":
        return _fit_text(port, array)
    if array.dtype != port.dtype:
        _check_cast(port, array)
    view = array if axes is None else array.transpose(axes)
    if array.dtype == port.dtype and view.flags.c_contiguous:
        return view
    fitted = allocate(port.name, shape, port.dtype)
    try:
        with np.errstate(over="raise", invalid="ignore"):
            np.copyto(fitted, view, casting="unsafe")
    except FloatingPointError:
        raise InputDtypeError(
            port.name,
            str(array.dtype),
            str(port.dtype),
            "some values are too large for it; scale them first",
        ) from None
    return fitted


def max_input_bytes() -> int:
    """Return the size that one input may have, in bytes."""
    text = os.environ.get(MAX_INPUT_VARIABLE)
    if text is None:
        return DEFAULT_MAX_INPUT_BYTES
    try:
        return int(text)
    except ValueError:
        raise OptionError(MAX_INPUT_VARIABLE, text, "a whole number of bytes") from None


def _fit_text(port: Port, array: Array) -> Array:
    if array.dtype.kind == "S" and port.dtype.kind in "OSU":
        # ONNX Runtime reads past bytes that fill their array's width, so they become str here.
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InputDtypeError(port.name, str(array.dtype), "text", str(error)) from error
    if array.dtype.kind == "U" and port.dtype.kind in "OSU":
        return np.ascontiguousarray(array)
    raise InputDtypeError(
        port.name,
        str(array.dtype),
        "text" if port.dtype.kind in "OSU" else str(port.dtype),
        "text and numbers do not convert into each other",
    )


def _axes(port: Port, tensor: Tensor) -> tuple[int, ...] | None:
    """Return the axis order that turns the tensor's layout into the port's, None if it is that."""
    if tensor.layout is None or port.layout is None or tensor.layout == port.layout:
        return None
    if set(tensor.layout) != set(port.layout):
        raise InputShapeError(
            port.name,
            tensor.shape,
            port.shape,
            f"layout {tensor.layout} cannot become the model's {port.layout}",
        )
    return tuple(tensor.layout.index(letter) for letter in port.layout)


def _shape_hint(port: Port, tensor: Tensor) -> str:
    if port.shape is not None and len(tensor.shape) != len(port.shape):
        return f"pass an array of rank {len(port.shape)}"
    if tensor.layout and port.layout and tensor.layout != port.layout:
        hint = f"the array was taken as {tensor.layout} and the model wants {port.layout}"
        if port.accepts(tensor.shape):
            hint += f"; if it already is {port.layout}, say layout={port.layout!r}"
        return hint
    return "pass an array of that shape"


def _check_cast(port: Port, array: Array) -> None:
    """Refuse a conversion that could lose more than floating-point precision.

    Floats narrow freely but must not overflow (seen while copying). Integers may become any integer
    type that holds every value that is there, and any float type.
    """
    source, target = array.dtype, port.dtype
    if source.kind in "iub" and target.kind in "iu":
        bounds = np.iinfo(target)
        if source.kind == "b" or np.can_cast(source, target):
            return
        if int(array.min()) >= bounds.min and int(array.max()) <= bounds.max:
            return
        hint = f"values from {array.min()} to {array.max()} do not fit into it"
    elif source.kind in "iubfV" and target.kind in "fV":
        return
    else:
        hint = f"convert it yourself if that is meant: array.astype('{target}')"
    raise InputDtypeError(port.name, str(source), str(target), hint)
