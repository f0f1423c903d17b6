"""`Tensor`: an array together with what its axes mean."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from atriva_inference.errors import InputDtypeError, InputShapeError, OptionError

__all__ = ["Array", "Tensor", "parse_layout"]

type_error_hint = "use a numeric, bool, or (for text models) str/bytes array"

Array = npt.NDArray[Any]
"""Any numpy array that can travel as a tensor."""

DEFAULT_LAYOUT = "NCHW"


def parse_layout(layout: str | None) -> str | None:
    """Return the layout in capitals, one distinct letter per axis (``"nchw"`` → ``"NCHW"``).

    Raises:
        OptionError: a letter comes twice or is not a letter.
    """
    if layout is None:
        return None
    text = layout.strip().upper() if isinstance(layout, str) else ""
    if not text or not text.isalpha() or len(set(text)) != len(text):
        raise OptionError(
            "layout", str(layout), "distinct letters, one per axis, like 'NCHW' or 'NHWC'"
        )
    return text


class Tensor:
    """A view of a numpy array with a layout; it never owns a second copy of the data.

    The array is kept as it was given. Whatever the model needs instead (another element type, axis
    order or contiguous memory) is done once, when the tensor is run. Do not write to the array
    while a request that uses it runs.
    """

    __slots__ = ("_array", "_layout", "_specialise")

    def __init__(
        self, array: Array, layout: str | None = None, *, specialise: bool = False
    ) -> None:
        self._array = array
        self._layout = layout
        self._specialise = specialise

    @classmethod
    def from_numpy(
        cls,
        array: npt.ArrayLike,
        layout: str | None = DEFAULT_LAYOUT,
        shape_override: Sequence[int] | None = None,
    ) -> Tensor:
        """Wrap an array; nothing is copied unless `array` is not a numpy array yet.

        Args:
            array: numbers, bools, or (for text models) strings; of any rank.
            layout: what the axes mean. The default applies to arrays of rank 4 only; any other
                rank then has no layout. Given explicitly as something else, its length must be the
                array's rank. None: the axes are already in the model's order.
            shape_override: run the model compiled for exactly this shape (with the same number of
                elements as `array`, in the order of `layout`); the array is viewed in this shape.

        Raises:
            InputShapeError: no elements, or `shape_override` or `layout` does not fit the array.
            InputDtypeError: Python objects or another type that is no tensor element.
            OptionError: `layout` or `shape_override` is malformed.
        """
        try:
            data = np.asarray(array)
        except ValueError as error:  # a ragged list is no array
            raise InputDtypeError("array", "ragged", "numbers", str(error)) from None
        if data.dtype.kind not in "biufcUS" and not is_half_like(data.dtype):
            raise InputDtypeError("array", str(data.dtype), "numbers", type_error_hint)
        if data.size == 0:
            raise InputShapeError(
                "array", data.shape, None, "it has no elements; pass at least one"
            )
        if shape_override is not None:
            wanted = _sizes(shape_override)
            if any(dim <= 0 for dim in wanted) or math.prod(wanted) != data.size:
                raise InputShapeError(
                    "array",
                    data.shape,
                    None,
                    f"shape_override={wanted} must be positive sizes with the same "
                    f"{data.size} elements",
                )
            data = data.reshape(wanted)
        letters = parse_layout(layout)
        if letters is not None and len(letters) != data.ndim:
            if letters != DEFAULT_LAYOUT:
                raise InputShapeError(
                    "array",
                    data.shape,
                    None,
                    f"layout {letters!r} names {len(letters)} axes; give one letter per axis",
                )
            letters = None
        return cls(data, letters, specialise=shape_override is not None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes, in the order of `layout`."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the data as it was given, not of the model's input."""
        return self._array.dtype

    @property
    def layout(self) -> str | None:
        """One letter per axis, or None where that is not known."""
        return self._layout

    @property
    def specialise(self) -> bool:
        """Whether the model is to be compiled for exactly this shape."""
        return self._specialise

    @property
    def nbytes(self) -> int:
        """Size of the data as it was given, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def to_numpy(self) -> Array:
        """Return the data without copying; a result stays valid as long as it is referenced."""
        return self._array

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """Let numpy functions take the tensor directly."""
        if dtype is None and not copy:
            return self._array
        return np.array(self._array, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"Tensor(shape={self.shape}, dtype={self.dtype}, layout={self.layout})"


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    try:
        return tuple(operator.index(dim) for dim in shape)
    except TypeError:
        raise OptionError(
            "shape_override", repr(shape), "whole numbers, one per axis, like (1, 3, 224, 224)"
        ) from None


def is_half_like(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is one of the narrow floats that numpy itself lacks (bfloat16, float8)."""
    return dtype.kind == "V" and dtype.name.startswith(("bfloat", "float8"))
