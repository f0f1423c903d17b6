"""How a request's arrays lie in memory: said once on a lane, then referred to by number."""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atriva_inference.tensor import Array
from atriva_ray.lanes.errors import FrameError

__all__ = ["MAX_LAYOUTS", "Layout", "LayoutBook", "LayoutTable", "TensorLayout"]

MAX_LAYOUTS = 1024
"""Numbers that each end of a lane may give out; then they are used again, the oldest first."""

MAX_LAYOUT_BYTES = 64 * 1024
_ALIGNMENT_BYTES = 64
_MAX_TENSORS = 1024
_MAX_RANK = 32
_MAX_SIZE_BYTES = 2**40
_DTYPE = re.compile(r"[<|][biufc](1|2|4|8|16)|[<|][SU][1-9][0-9]{0,7}")
_OBJECT = "text:"
"""Marks text that was an array of Python strings, and is one again at the other end."""


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """One array: element type, shape, and where it begins.

    Attributes:
        dtype: element type as it travels; Python strings travel with a fixed width.
        shape: sizes of the axes.
        offset: first byte, a multiple of 64.
        is_object: whether it is to be an array of Python strings again.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    is_object: bool

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Layout:
    """Several arrays one behind the other, each at a multiple of 64 bytes.

    Attributes:
        tensors: the arrays in the order of the model's ports.
        nbytes: size of it all.
        number: what it is called on a lane.
        answer_bytes: size of the last answer to a request of this layout.
    """

    __slots__ = ("answer_bytes", "nbytes", "number", "tensors")

    def __init__(self, arrays: Sequence[tuple[np.dtype[Any], tuple[int, ...], bool]]) -> None:
        tensors = []
        end = 0
        for dtype, shape, is_object in arrays:
            tensor = TensorLayout(dtype, shape, aligned(end), is_object)
            tensors.append(tensor)
            end = tensor.offset + tensor.nbytes
        self.tensors = tuple(tensors)
        self.nbytes = end
        self.number = -1
        self.answer_bytes = 0

    @classmethod
    def of(cls, arrays: Sequence[Array]) -> Layout:
        """Describe arrays as they are; text must have a fixed width already."""
        return cls([(array.dtype, array.shape, False) for array in arrays])

    def encode(self) -> bytes:
        """Write it as JSON."""
        return json.dumps(
            [
                [(_OBJECT if tensor.is_object else "") + tensor.dtype.str, tensor.shape]
                for tensor in self.tensors
            ]
        ).encode()

    @classmethod
    def decode(cls, text: bytes | bytearray | memoryview) -> Layout:
        """Read what `encode` wrote.

        Raises:
            FrameError: it is malformed, or describes more than can be.
        """
        try:
            entries = json.loads(bytes(text))
            arrays = [_decoded(dtype, shape) for dtype, shape in entries]
        except (ValueError, TypeError, RecursionError) as error:
            raise FrameError(f"a layout that cannot be read ({error})") from None
        layout = cls(arrays)
        if len(arrays) > _MAX_TENSORS or layout.nbytes > _MAX_SIZE_BYTES:
            raise FrameError(f"a layout of {len(arrays)} tensors and {layout.nbytes:,} bytes")
        return layout

    def views(self, memory: Any, start: int = 0) -> list[Array]:
        """Return the arrays that lie in `memory` (anything with the buffer protocol)."""
        return [
            np.ndarray(tensor.shape, tensor.dtype, memory, start + tensor.offset)
            for tensor in self.tensors
        ]

    def restored(self, arrays: Sequence[Array]) -> list[Array]:
        """Make text arrays of Python strings again where it was said to."""
        return [
            array.astype(object) if tensor.is_object else array
            for tensor, array in zip(self.tensors, arrays, strict=True)
        ]


def aligned(offset: int) -> int:
    """Return the next multiple of 64: what the widest vector instructions load at once."""
    return -(-offset // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def flat(layout: Layout, arrays: Sequence[Array]) -> Iterator[memoryview]:
    """Yield the bytes of arrays, with what lies between them, without copying the arrays."""
    end = 0
    for tensor, array in zip(layout.tensors, arrays, strict=True):
        if tensor.offset > end:
            yield memoryview(bytes(tensor.offset - end))
        if array.nbytes:
            yield array.reshape(-1).view(np.uint8).data
        end = tensor.offset + tensor.nbytes


def _decoded(dtype: Any, shape: Any) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    is_object = dtype.startswith(_OBJECT) if isinstance(dtype, str) else False
    text = dtype[len(_OBJECT) :] if is_object else dtype
    if not isinstance(text, str) or not _DTYPE.fullmatch(text) or (is_object and text[1] != "U"):
        raise FrameError(f"element type {str(dtype)[:40]!r}")
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_RANK
        or any(type(size) is not int or not 0 <= size <= _MAX_SIZE_BYTES for size in shape)
        or math.prod(max(1, size) for size in shape) > _MAX_SIZE_BYTES  # numpy refuses these
    ):
        raise FrameError(f"shape {str(shape)[:80]}")
    return np.dtype(text), tuple(shape), is_object


class LayoutBook:
    """The layouts that this end has described to the other, by what arrays look like."""

    def __init__(self) -> None:
        self._layouts: OrderedDict[Any, Layout] = OrderedDict()

    def look_up(self, arrays: Sequence[Array]) -> tuple[Layout, bool, Sequence[Array]]:
        """Find or make the layout of arrays.

        Returns:
            The layout, whether the other end has yet to be told of it, and the arrays as they
            travel.
        """
        key: Any = [(array.dtype, array.shape) for array in arrays]
        key = key[0] if len(key) == 1 else tuple(key)
        layout = self._layouts.get(key)
        if layout is not None:
            return layout, False, arrays
        if any(array.dtype.kind in "OSU" for array in arrays):
            return self._text(arrays)
        return self._add(key, Layout.of(arrays)), True, arrays

    def _text(self, arrays: Sequence[Array]) -> tuple[Layout, bool, Sequence[Array]]:
        fixed = [_fixed_width(array) for array in arrays]
        marks = [array.dtype.kind == "O" for array in arrays]
        key = tuple(
            (array.dtype, array.shape, mark) for array, mark in zip(fixed, marks, strict=True)
        )
        layout = self._layouts.get(key)
        if layout is not None:
            return layout, False, fixed
        described = [
            (array.dtype, array.shape, mark) for array, mark in zip(fixed, marks, strict=True)
        ]
        return self._add(key, Layout(described)), True, fixed

    def _add(self, key: Any, layout: Layout) -> Layout:
        if len(self._layouts) < MAX_LAYOUTS:
            layout.number = len(self._layouts)
        else:
            layout.number = self._layouts.popitem(last=False)[1].number
        self._layouts[key] = layout
        return layout


class LayoutTable:
    """The layouts that the other end has described, by number."""

    def __init__(self) -> None:
        self._layouts: dict[int, Layout] = {}

    def add(self, number: int, layout: Layout) -> None:
        """Take a description in; it replaces an older one of the same number.

        Raises:
            FrameError: the number is too large.
        """
        if number >= MAX_LAYOUTS:
            raise FrameError(f"layout number {number}")
        layout.number = number
        self._layouts[number] = layout

    def get(self, number: int) -> Layout:
        """Return a layout.

        Raises:
            FrameError: it was never described.
        """
        try:
            return self._layouts[number]
        except KeyError:
            raise FrameError(f"layout {number} was never described") from None


def _fixed_width(array: Array) -> Array:
    if array.dtype.kind == "O":
        array = array.astype(np.str_)
    native = array.dtype.newbyteorder("=")
    return np.asarray(array, native, order="C")  # unlike ascontiguousarray, it keeps a scalar one
