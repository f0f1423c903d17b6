"""`Activity`: who has used a replica of late."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Activity"]

_MEMORY_S = 0.25
"""Who has not been seen for longer leaves the replica to others. A client that has much to ask is
seen with every request and every answer."""

Owner = TypeVar("Owner", bound=Hashable)


class Activity(Generic[Owner]):
    """Who was seen when, as far as that matters. Not thread-safe; constant time."""

    def __init__(self) -> None:
        self._seen_s: OrderedDict[Owner, float] = OrderedDict()

    def seen(self, owner: Owner, now_s: float) -> None:
        """Note that somebody sent a request, or got an answer; `now_s` never goes back."""
        self._seen_s[owner] = now_s
        self._seen_s.move_to_end(owner)

    def forget(self, owner: Owner) -> None:
        """Note that somebody is gone."""
        self._seen_s.pop(owner, None)

    def others(self, owner: Owner, now_s: float) -> int:
        """Return how many others were seen of late."""
        seen_s = self._seen_s
        while seen_s:
            oldest = next(iter(seen_s))
            if now_s - seen_s[oldest] <= _MEMORY_S:
                break
            del seen_s[oldest]
        return len(seen_s) - (owner in seen_s)
