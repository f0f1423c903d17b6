"""Which feeder does which fragment: in order, a few at once each, again if a feeder is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Generic, TypeVar

__all__ = ["FRAGMENTS_AT_ONCE", "Schedule", "feeder_count"]

FRAGMENTS_AT_ONCE = 2
"""Per feeder: while one ends, the other keeps the devices busy."""

MAX_ATTEMPTS = 3
_CPUS_PER_FEEDER = 8

Item = TypeVar("Item")


def feeder_count(cpu_count: float) -> int:
    """Return how many feeders a node gets; one process decodes and feeds for about eight CPUs."""
    return max(1, int(cpu_count) // _CPUS_PER_FEEDER)


class Schedule(Generic[Item]):
    """Hands out items, each until it is done; knows nothing of what they are."""

    def __init__(self, items: Iterator[tuple[int, Item]]) -> None:
        """Take items lazily.

        Args:
            items: index and item; an index comes once.
        """
        self._items = items
        self._again: list[tuple[int, Item]] = []  # a heap: first what comes first
        self._running: dict[int, tuple[str, Item]] = {}
        self._attempts: Counter[int] = Counter()
        self._is_exhausted = False

    @property
    def is_done(self) -> bool:
        """Whether nothing runs and nothing is left."""
        return self._is_exhausted and not self._running and not self._again

    def take(self, feeder_id: str) -> tuple[int, Item] | None:
        """Give a feeder its next item, if it has room and there is one; lost ones come first."""
        mine = sum(owner == feeder_id for owner, _ in self._running.values())
        if mine >= FRAGMENTS_AT_ONCE:
            return None
        found = heappop(self._again) if self._again else next(self._items, None)
        if found is None:
            self._is_exhausted = True
            return None
        index, item = found
        self._running[index] = (feeder_id, item)
        self._attempts[index] += 1
        return found

    def done(self, index: int) -> None:
        """Note that an item is done."""
        del self._running[index]

    def lost(self, feeder_id: str) -> list[int]:
        """Take back what a feeder had; return those that were begun too often to be tried again."""
        given_up = []
        for index in sorted(self._running):
            owner, item = self._running[index]
            if owner != feeder_id:
                continue
            del self._running[index]
            if self._attempts[index] >= MAX_ATTEMPTS:
                given_up.append(index)
            else:
                heappush(self._again, (index, item))
        return given_up
