"""`Events`: a clock that stands still while something happens, and jumps to what comes next."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

__all__ = ["Events"]


class Events:
    """What is to happen when. What is to happen at the same time happens in the order of `at`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._numbers = count()
        self._waiting: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []

    def at(self, time_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Have something happen at a time, which must not be over."""
        heapq.heappush(self._waiting, (time_s, next(self._numbers), action, arguments))

    def run(self) -> None:
        """Let everything happen, until nothing is left."""
        waiting = self._waiting
        while waiting:
            self.now_s, _, action, arguments = heapq.heappop(waiting)
            action(*arguments)
