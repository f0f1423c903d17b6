"""`Events`: a clock that stands still while something happens, and jumps to what comes next."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count
from math import inf
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

    def run(self, coming: Iterable[tuple[float, Callable[..., None], Any]] = ()) -> None:
        """Let everything happen, until nothing is left.

        Args:
            coming: what else happens: when, what, and with which argument; in the order of time.
                It happens after all else that is to happen at the same time. Here and not in `at`,
                because all of it in one heap would make everything slower.
        """
        waiting, pop = self._waiting, heapq.heappop
        pending = iter(coming)
        nothing: tuple[float, Callable[..., None], Any] = (inf, _nothing, None)
        next_s, happen, argument = next(pending, nothing)
        while waiting or next_s < inf:
            if waiting and waiting[0][0] <= next_s:
                self.now_s, _, action, arguments = pop(waiting)
                action(*arguments)
            else:
                self.now_s = next_s
                happen(argument)
                next_s, happen, argument = next(pending, nothing)


def _nothing(_: None) -> None:
    """Not called."""
