"""How many replicas a model wants: quickly more, slowly fewer, and none when nobody asks."""

from __future__ import annotations

import math
from collections import deque

from atriva_ray.routing.reports import ModelLoad

__all__ = ["Scaler"]

_FULL_SHARE = 0.8
"""Replicas that are busy for this share of the time are full: requests that come in bursts wait."""

_SPARE_SHARE = 0.5
"""So few replicas are kept that they are this busy at most. The gap between the two shares is what
keeps a steady load from adding and removing the same replica for ever."""

_WORK_OFF_S = 2.0
"""What waits is to be worked off within about this time by the replicas that are added for it."""

_QUIET_S = 15.0
_MAX_QUIET_S = 600.0
_QUIET_PER_START = 10.0
"""A replica that took long to start is kept for so many times as long before it is given up."""


class Scaler:
    """The wanted number of replicas of one model, from one look at its load to the next."""

    def __init__(self, wanted: int, now_s: float) -> None:
        """Begin with as many replicas as there are.

        Args:
            wanted: that number.
            now_s: the time; the model counts as asked for now.
        """
        self.wanted = wanted
        self.why = "as many as were asked for"
        self._asked_s = now_s
        self._needs: deque[tuple[float, int]] = deque()
        self._since_s = now_s

    def decide(
        self,
        now_s: float,
        load: ModelLoad,
        ready_count: int,
        limits: tuple[int, int],
        start_time_s: float = 0.0,
    ) -> int:
        """Look at the load and say how many replicas the model wants now.

        It wants more as soon as its replicas are full and requests wait all the same, at most twice
        as many at a time. It wants fewer when fewer would have done for a while, at most half as
        many at a time.

        Args:
            now_s: the time, never before that of the last call.
            load: what its replicas and clients say.
            ready_count: replicas that answer now.
            limits: the least and the most that it may want.
            start_time_s: how long a replica takes to start.
        """
        least, most = limits
        if self.wanted < least or self.wanted > most:
            self._want(max(least, min(self.wanted, most)), now_s, "as many as were asked for")
        if load.was_asked or load.outstanding or not load.is_known:
            self._asked_s = now_s
        if not load.is_known or ready_count == 0:
            self._restart(now_s)  # without knowledge, nothing is changed
            return self.wanted
        busy = load.busy_slots / load.slots_each
        waiting = load.outstanding - load.slots_each * ready_count
        if busy >= _FULL_SHARE * ready_count and waiting > 0:
            self._restart(now_s)
            backlog = waiting * load.service_time_s / load.slots_each / _WORK_OFF_S
            needed = max(ready_count + 1, math.ceil(busy / _FULL_SHARE + backlog))
            needed = min(needed, 2 * self.wanted, most)
            if needed > self.wanted:
                share = busy / ready_count
                self._want(
                    needed,
                    now_s,
                    f"requests waited ({math.ceil(waiting)}) and replicas were busy ({share:.0%})",
                )
            return self.wanted
        quiet_s = min(_MAX_QUIET_S, max(_QUIET_S, _QUIET_PER_START * start_time_s))
        self._needs.append((now_s, math.ceil(busy / _SPARE_SHARE)))
        while self._needs[0][0] < now_s - quiet_s:
            self._needs.popleft()
        needed = max(need for _, need in self._needs)
        if needed < self.wanted and now_s - self._since_s >= quiet_s:
            fewer = max(needed, math.ceil(self.wanted / 2), least)
            if fewer < self.wanted:
                self._want(fewer, now_s, f"{fewer} would have done for the last {quiet_s:.0f} s")
        return self.wanted

    def is_idle(self, now_s: float, idle_s: float | None) -> bool:
        """Whether no request came for `idle_s` seconds; never if that is None."""
        return idle_s is not None and now_s - self._asked_s >= idle_s

    def asked(self, now_s: float) -> None:
        """Note that somebody wants the model."""
        self._asked_s = max(self._asked_s, now_s)

    def _want(self, count: int, now_s: float, why: str) -> None:
        self.wanted = count
        self.why = why
        self._restart(now_s)

    def _restart(self, now_s: float) -> None:
        """Begin a new time of quiet."""
        self._needs.clear()
        self._since_s = now_s
