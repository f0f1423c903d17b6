"""`StoredTensor`: a tensor whose data waits in Ray's object store."""

from __future__ import annotations

from typing import Any

import numpy as np
import ray

from atriva_inference.tensor import Array, Tensor
from atriva_ray.ray_errors import translated

__all__ = ["INLINE_LIMIT_BYTES", "StoredTensor"]

INLINE_LIMIT_BYTES = 100 * 1024
"""Ray carries values up to this size inside the call itself, and larger ones in its store."""


class StoredTensor(Tensor):
    """A tensor that travels as a reference; `to_numpy` fetches the data once and maps it.

    The mapped array is read-only and shares the store's memory.
    """

    __slots__ = ("_dtype", "_reference", "_shape")

    def __init__(
        self, reference: Any, shape: tuple[int, ...], dtype: np.dtype[Any], layout: str | None
    ) -> None:
        super().__init__(np.empty(0, dtype), layout)
        self._reference = reference
        self._shape = shape
        self._dtype = dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes; known without fetching."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type; known without fetching."""
        return self._dtype

    def to_numpy(self) -> Array:
        """Return the data; blocks while it is fetched from another node the first time.

        Raises:
            ReplicaLostError: the replica that holds it ended before it was fetched.
        """
        if self._reference is not None:
            try:
                self._array = ray.get(self._reference)
            except ray.exceptions.RayError as error:
                raise translated(error, "a stored tensor") from None
            self._reference = None
        return self._array

    def fetched(self) -> Tensor:
        """Return the tensor with its data; blocks while it is fetched."""
        return Tensor(self.to_numpy(), self._layout)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Let numpy functions take the tensor directly."""
        return np.array(self.to_numpy(), dtype=dtype, copy=copy)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the reference, or as the data once it was fetched."""
        if self._reference is None:
            return (Tensor, (self._array, self._layout))
        return (StoredTensor, (self._reference, self._shape, self._dtype, self._layout))
