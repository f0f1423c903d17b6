"""From values as they lie in a file to what one input of a model takes, or why they cannot be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from atriva_inference.errors import InputDtypeError, InputShapeError
from atriva_inference.ports import Port, batch_axis
from atriva_inference.tensor import Array

__all__ = ["cast_block", "check_kind", "fit_block", "is_safe", "sample_shape"]

_TEXT = "OSU"
_NUMBERS = "biuf"
_SINGLE_BYTES = 4
_PIXEL_RANK = 3


def sample_shape(port: Port) -> tuple[int, ...] | None:
    """Return the shape of one sample, -1 for what is open; None if even the rank is."""
    if port.shape is None:
        return None
    return port.shape[1:] if batch_axis(port) else port.shape


def fit_block(port: Port, block: Array) -> Array:
    """View rows, which lie along the first axis, in the shape of the port's samples.

    Rows that are flat, or differ only in dimensions of 1, are reshaped; pixels in the other order
    of axes are transposed. Nothing is copied if the memory allows.

    Raises:
        InputShapeError: the rows have another shape.
    """
    shape = block.shape[1:]
    wanted = sample_shape(port)
    if 0 in shape:
        raise InputShapeError(port.name, shape, wanted, "its rows have no elements")
    if wanted is None or _accepts(wanted, shape):
        return block
    if len(shape) == _PIXEL_RANK and port.layout in ("NCHW", "NHWC"):
        turned = block.transpose((0, 3, 1, 2) if port.layout == "NCHW" else (0, 2, 3, 1))
        if _accepts(wanted, turned.shape[1:]):
            return turned
    is_alike = len(shape) == 1 or _without_ones(shape) == _without_ones(wanted)
    sizes = _resolved(wanted, math.prod(shape)) if is_alike else None
    if sizes is None:
        raise InputShapeError(port.name, shape, wanted, "pass rows of that shape")
    return block.reshape(len(block), *sizes)


def check_kind(port: Port, dtype: np.dtype[Any]) -> None:
    """Refuse an element type of which no value can become the port's.

    Raises:
        InputDtypeError: that is so.
    """
    is_text = port.dtype.kind in _TEXT
    if dtype.kind not in ("SU" if is_text else _NUMBERS):
        hint = "pass text" if is_text else "pass numbers"
        raise InputDtypeError(port.name, str(dtype), str(port.dtype), hint)


def is_safe(port: Port, dtype: np.dtype[Any]) -> bool:
    """Whether every value of an element type can become the port's, so that none need be looked at.

    Floats may become less precise on the way.
    """
    target = port.dtype
    if target.kind in _TEXT:
        return True
    if target.kind in "fV" and dtype.kind in "biu":
        return target.itemsize >= _SINGLE_BYTES
    return np.can_cast(dtype, target, "safe")


def cast_block(port: Port, block: Array) -> Array:
    """Change the element type to the port's; an array that has it is returned as it is.

    Raises:
        InputDtypeError: a value would not survive: it is no whole number where the model takes
            whole numbers, or does not fit into the type. Floats may become less precise.
    """
    source, target = block.dtype, port.dtype
    check_kind(port, source)
    if source == target or target.kind in _TEXT:
        return block
    if target.kind in "fV":
        return _narrowed(port, block)
    bounds = (0, 1) if target.kind == "b" else (np.iinfo(target).min, np.iinfo(target).max)
    if source.kind == "f" and not (np.isfinite(block) & (block == np.trunc(block))).all():
        hint = "its values are not whole numbers"
    elif block.size and not (bounds[0] <= int(block.min()) and int(block.max()) <= bounds[1]):
        hint = f"values from {block.min()} to {block.max()} do not fit into it"
    else:
        return block.astype(target)
    raise InputDtypeError(port.name, str(source), str(target), hint)


def _narrowed(port: Port, block: Array) -> Array:
    try:
        with np.errstate(over="raise", invalid="ignore"):
            return block.astype(port.dtype)
    except FloatingPointError:
        raise InputDtypeError(
            port.name, str(block.dtype), str(port.dtype), "some values are too large for it"
        ) from None


def _accepts(wanted: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(wanted) == len(shape) and all(
        mine in (-1, theirs) for mine, theirs in zip(wanted, shape, strict=True)
    )


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [size for size in shape if size != 1]


def _resolved(wanted: tuple[int, ...], size: int) -> tuple[int, ...] | None:
    """Return sizes with `size` elements in all, None if there is no such or no only choice."""
    known = math.prod(dim for dim in wanted if dim >= 0)
    open_count = wanted.count(-1)
    if open_count == 0:
        return wanted if known == size else None
    if open_count > 1 or known == 0 or size % known:
        return None
    return tuple(size // known if dim < 0 else dim for dim in wanted)
