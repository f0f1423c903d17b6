"""`Order`: replicas that have room, the one first that is expected to answer first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from atriva_ray.routing.load import Load

__all__ = ["Order"]

_STEPS_PER_OCTAVE = 4
"""Service times that differ by less than a fifth count as equal: by more than that a moving average
swings, and all clients would rush to the same replica for it."""

_LEAST_TO_CLEAN = 64
_MOST_PAST = 4
"""Entries of the past are thrown away when there are so many times as many as others."""

_Entry = tuple[float, int, float, int, Load]
"""How it is ordered, rank of the device, requests per slot, number, replica."""


class _Heap:
    """Entries in order. One whose replica has another number by now is of the past."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._limit = _LEAST_TO_CLEAN

    def push(self, entry: _Entry) -> None:
        entries = self._entries
        heappush(entries, entry)
        if len(entries) > self._limit:
            entries[:] = [each for each in entries if each[3] == each[4].entry]
            heapify(entries)
            self._limit = max(_LEAST_TO_CLEAN, _MOST_PAST * len(entries))

    def __len__(self) -> int:
        return len(self._entries)

    def top(self) -> Load | None:
        entries = self._entries
        while entries:
            entry = entries[0]
            load = entry[4]
            if entry[3] == load.entry:
                return load
            heappop(entries)
        return None


class Order:
    """Replicas by expected completion. Putting one in and finding the first cost O(log n).

    What is expected changes with time without anybody saying so, but not in every way: a request
    that nothing is before takes what it takes, whenever it is sent; so does one that waits for as
    many others as always; and one that waits for requests that were seen there is answered at a
    time that stays the same while these run. So there are three heaps: the first of each are
    compared. A replica that is in the wrong one by now, its request is expected to take longer than
    it was: it comes to the top too early, never too late, and is put right then.
    """

    def __init__(self, numbers: Iterator[int]) -> None:
        """Make one that is empty.

        Args:
            numbers: from 1, each once, for all orders that the same replicas may be in.
        """
        self._numbers = numbers
        self._idle = _Heap()
        self._own = _Heap()
        self._queued = _Heap()

    @property
    def size(self) -> int:
        """Entries that are kept, those of the past among them."""
        return len(self._idle) + len(self._own) + len(self._queued)

    def put(self, load: Load, now_s: float) -> None:
        """Put a replica in; where it was before, in any order, it is no more."""
        number = load.entry = next(self._numbers)
        route = load.route
        share = load.in_flight / route.slot_count
        wait_s = load.wait_s(now_s)
        takes_s = load.takes_s
        if not wait_s:
            step = round(math.log2(takes_s) * _STEPS_PER_OCTAVE) if takes_s else -math.inf
            self._idle.push((step, route.rank, share, number, load))  # last used, last again
            return
        if load.known_until_s > now_s:
            self._queued.push((now_s + wait_s + takes_s, route.rank, share, number, load))
        else:
            self._own.push((wait_s + takes_s, route.rank, share, number, load))

    def first(self, now_s: float, cost: float = 1.0) -> Load | None:
        """Return the replica that is expected to answer first; None: there is none.

        Args:
            now_s: the time.
            cost: what the request takes, as a multiple of others.
        """
        while (load := self._queued.top()) is not None and load.known_until_s <= now_s:
            self.put(load, now_s)  # what was seen there has run
        while (load := self._idle.top()) is not None and load.wait_s(now_s):
            self.put(load, now_s)  # others will have sent something meanwhile
        best: tuple[float, int, float] | None = None
        first = None
        for load in (self._idle.top(), self._own.top(), self._queued.top()):
            if load is None:
                continue
            expected_s = load.wait_s(now_s) + cost * load.takes_s
            route = load.route
            found = (expected_s, route.rank, load.in_flight / route.slot_count)
            if best is None or found < best:
                best, first = found, load
        return first
