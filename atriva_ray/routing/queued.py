"""`Queued`: requests that were sent and wait at their replicas, the latest answer first."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count

from atriva_ray.routing.load import Load

__all__ = ["Queued"]

_MARGIN = 0.25
_SHARED_MARGIN = 1.0
"""A request counts as begun from so many service times before it is expected to. Where others use
the replica too, the client does not know what is before it, and with less of a margin one request
in twenty ran twice."""

_LEAST_TO_CLEAN = 64
_MOST_PAST = 4


class Queued:
    """For each replica, the request of this client that was sent last, while it has not begun.

    Noting one and finding the latest cost O(log n).
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._entries: list[tuple[float, int, Load]] = []
        self._limit = _LEAST_TO_CLEAN

    def sent(self, load: Load, now_s: float) -> None:
        """Note that a request is sent to a replica; call it before it counts as under way."""
        number = load.newest = next(self._numbers)
        wait_s = load.wait_s(now_s)
        if not wait_s:
            return
        load.begins_s = now_s + wait_s
        load.due_s = load.begins_s + load.takes_s
        entries = self._entries
        heappush(entries, (-load.due_s, number, load))
        if len(entries) > self._limit:
            entries[:] = [each for each in entries if _waits(each, now_s)]
            heapify(entries)
            self._limit = max(_LEAST_TO_CLEAN, _MOST_PAST * len(entries))

    def taken(self, load: Load) -> None:
        """Note that the last one was taken back."""
        load.newest = 0

    def latest(self, now_s: float) -> Load | None:
        """Return the replica whose last request is answered last of all that have not begun."""
        entries = self._entries
        while entries and not _waits(entries[0], now_s):
            heappop(entries)
        return entries[0][2] if entries else None


def _waits(entry: tuple[float, int, Load], now_s: float) -> bool:
    """Whether a request has certainly not begun, as far as its client can know."""
    _, number, load = entry
    if number != load.newest or not load.in_flight:
        return False
    margin = _SHARED_MARGIN if load.others else _MARGIN
    return load.begins_s - now_s > margin * (load.service_time_s or 0.0)
