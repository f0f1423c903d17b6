"""A bounded cache of models compiled for one input shape each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from atriva_inference.binding import ShapeSignature

__all__ = ["ShapeCache", "ShapeCacheInfo"]

Compiled = TypeVar("Compiled")

DEFAULT_CAPACITY = 16


@dataclass(frozen=True, slots=True)
class ShapeCacheInfo:
    """State of a shape cache.

    Attributes:
        hits: look-ups that found the shape compiled or being compiled.
        misses: look-ups that compiled it.
        size: shapes held now.
        capacity: shapes held at most; beyond that the least recently used goes.
    """

    hits: int = 0
    misses: int = 0
    size: int = 0
    capacity: int = DEFAULT_CAPACITY

    def __add__(self, other: ShapeCacheInfo) -> ShapeCacheInfo:
        return ShapeCacheInfo(
            self.hits + other.hits,
            self.misses + other.misses,
            self.size + other.size,
            self.capacity + other.capacity,
        )


class ShapeCache(Generic[Compiled]):
    """Compiles each shape once, also when several threads ask at once; thread-safe.

    A shape that is evicted while a request uses it stays alive until that request ends.
    """

    def __init__(
        self, compile_: Callable[[ShapeSignature], Compiled], capacity: int = DEFAULT_CAPACITY
    ) -> None:
        self._compile = compile_
        self._capacity = capacity
        self._lock = threading.Lock()
        self._entries: OrderedDict[ShapeSignature, Future[Compiled]] = OrderedDict()
        self._hits = 0
        self._misses = 0

    def get(self, signature: ShapeSignature) -> Compiled:
        """Return the model for these shapes; blocks while it is compiled.

        A compilation that fails raises in every thread that waits for it and is forgotten.
        """
        with self._lock:
            entry = self._entries.get(signature)
            is_mine = entry is None
            if entry is None:
                self._misses += 1
                entry = self._entries[signature] = Future()
                while len(self._entries) > self._capacity:
                    self._entries.popitem(last=False)
            else:
                self._hits += 1
                self._entries.move_to_end(signature)
        if is_mine:
            try:
                entry.set_result(self._compile(signature))
            except BaseException as error:  # noqa: BLE001 - entry.result() raises it below
                with self._lock:
                    if self._entries.get(signature) is entry:
                        del self._entries[signature]
                entry.set_exception(error)
        return entry.result()

    def info(self) -> ShapeCacheInfo:
        """Return hits, misses and size."""
        with self._lock:
            return ShapeCacheInfo(self._hits, self._misses, len(self._entries), self._capacity)

    def clear(self) -> None:
        """Forget every compiled shape; hits and misses stay."""
        with self._lock:
            self._entries.clear()
