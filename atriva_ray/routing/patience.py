"""Whether a device that is free should wait for more requests before it runs what is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from atriva_ray.routing.batching import BatchLearner

__all__ = ["Patience", "Wait"]

_HORIZONS_S = tuple(50e-6 * 2**number for number in range(8))
"""Waits that are told apart, 50 µs to 6.4 ms."""

_WORTHWHILE_S = 500e-6
"""Shorter batches gain nothing from waiting: to wait so exactly costs as much."""

_GAIN = 1.1
"""How much more a second a device has to do with waiting than without."""

_BUSY = 0.5
"""A device that works for less of the time than this has no need of larger batches."""

_PROBE_SHARE = 0.01
"""Part of the service time that may be spent on waiting just to see who comes."""

_PROBE_LENGTH = 0.25
_MAX_VAIN = 7
"""So often is the next probe put off for twice as long because nobody came in the last one."""

_CAUTION = 1.5
"""How many deviations fewer than usual are counted on."""

_SMOOTHING = 0.2
_DECAY = 0.9
_LONGEST_PAUSE = 20
"""Without work, a device counts as idle for so many service times and no more, so that it is soon
seen as busy when it is."""


@dataclass(slots=True)
class Wait:
    """A wait for more requests.

    Attributes:
        waiting: requests that were there when it began.
        enough: with how many it ends early.
        hoped: how many have to come so that it was not in vain.
        started_s: when it began.
        until_s: when it ends.
        arrivals: how long after the beginning how many were there, one entry for each that came.
    """

    waiting: int
    enough: int
    hoped: int
    started_s: float
    until_s: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)

    def saw(self, waiting: int, now_s: float) -> None:
        """Note how many requests wait now."""
        if waiting > self.waiting + (self.arrivals[-1][1] if self.arrivals else 0):
            self.arrivals.append((now_s - self.started_s, waiting - self.waiting))


@dataclass(slots=True)
class _Coming:
    """How many requests come within some time: the mean, and how far from it on the average."""

    count: int = 0
    mean: float = 0.0
    deviation: float = 0.0

    def add(self, came: int) -> None:
        self.count += 1
        share = max(_SMOOTHING, 1 / self.count)
        self.deviation += share * (abs(came - self.mean) - self.deviation)
        self.mean += share * (came - self.mean)
        if self.count == 1:
            self.deviation = came / 2

    @property
    def at_least(self) -> int:
        """What may be counted on, so that nobody waits for those that come by chance."""
        return max(0, round(self.mean - _CAUTION * self.deviation))


class Patience:
    """Learns how many requests come soon, and waits where that is sooner for all. Not thread-safe.

    To wait is right where those that wait and those that come get their answers earlier on the
    average: where programs send the next request when they have an answer, and a batch takes the
    device about as long with more of them. What is compared is the sum of times until the answers,
    so that at a low load, or on a device whose time grows with the rows, nobody ever waits.

    How many come is seen by waiting, at first for a hundredth of the time that the device works.
    """

    def __init__(self, slot_count: int = 1) -> None:
        """Know nothing.

        Args:
            slot_count: batches that run at once.
        """
        self._slot_count = slot_count
        self._coming = [_Coming() for _ in _HORIZONS_S]
        self._vain_count = 0
        self._credit_s = 0.0
        self._busy_s = 0.0
        self._time_s = 0.0
        self._ended_s: float | None = None
        self.wait_count = 0
        self.waited_s = 0.0

    @property
    def busy_share(self) -> float:
        """Part of the time that the device worked lately, 0 to 1."""
        return self._busy_s / self._time_s if self._time_s else 0.0

    def ran(self, service_time_s: float, now_s: float) -> None:
        """Take in that a batch, or a request by itself, was run."""
        if self._ended_s is not None:
            pause_s = min(now_s - self._ended_s, _LONGEST_PAUSE * service_time_s)
            self._busy_s = _DECAY * self._busy_s + service_time_s
            self._time_s = _DECAY * self._time_s + pause_s * self._slot_count
        self._ended_s = now_s
        self._credit_s = min(
            _HORIZONS_S[-1], self._credit_s + _PROBE_SHARE * service_time_s / 2**self._vain_count
        )

    def plan(
        self, waiting: int, rows_each: int, learner: BatchLearner, room_s: float, now_s: float
    ) -> Wait | None:
        """Return how long to wait, None for not at all.

        Args:
            waiting: requests that wait, at least 1.
            rows_each: rows of each.
            learner: knows how long batches of them take.
            room_s: how long the first of them may wait at most.
            now_s: when the wait would begin.
        """
        rows = waiting * rows_each
        most = learner.wanted_rows
        if rows >= most or self.busy_share < _BUSY:
            return None
        alone_s = learner.expected_s(rows)
        if alone_s is None or alone_s < _WORTHWHILE_S:
            return None
        probe_s = min(_PROBE_LENGTH * alone_s, _HORIZONS_S[-1])
        enough = -(-most // rows_each)
        is_trial = most > learner.best_rows  # of a size that is not known yet
        if probe_s <= min(self._credit_s, room_s) and (
            is_trial or self._gain(learner, waiting, waiting, rows_each, 0.0) >= _GAIN
        ):
            self._credit_s -= probe_s
            hoped = enough - waiting if is_trial else 1
            return Wait(waiting, enough, hoped, now_s, now_s + probe_s)
        plans = self._plans(learner, waiting, rows_each, min(room_s, alone_s))
        gain, wait_s = max(plans, default=(0.0, 0.0))
        if gain < _GAIN:
            return None
        enough = -(-learner.best_rows // rows_each)
        return Wait(waiting, enough, 1, now_s, now_s + wait_s)

    def waited(self, wait: Wait, now_s: float) -> None:
        """Take in who came during a wait."""
        lasted_s = now_s - wait.started_s
        self.wait_count += 1
        self.waited_s += lasted_s
        came = wait.arrivals[-1][1] if wait.arrivals else 0
        self._vain_count = 0 if came >= wait.hoped else min(_MAX_VAIN, self._vain_count + 1)
        for horizon_s, coming in zip(_HORIZONS_S, self._coming, strict=True):
            came = max((count for at_s, count in wait.arrivals if at_s <= horizon_s), default=0)
            if horizon_s <= lasted_s or came > coming.mean:  # if it ended early, more may come
                coming.add(came)

    def _plans(
        self, learner: BatchLearner, waiting: int, rows_each: int, room_s: float
    ) -> Iterator[tuple[float, float]]:
        """Yield what is gained by each wait, and how long it is."""
        for horizon_s, coming in zip(_HORIZONS_S, self._coming, strict=True):
            if horizon_s > room_s:
                return
            at_least = coming.at_least
            if not at_least:
                continue
            more = learner.best_of((waiting + at_least) * rows_each) // rows_each - waiting
            if more > 0:
                yield self._gain(learner, waiting, more, rows_each, horizon_s), horizon_s

    def _gain(
        self, learner: BatchLearner, waiting: int, more: int, rows_each: int, wait_s: float
    ) -> float:
        """Return how much more the device does a second if the first ones wait for the others.

        Without a wait, those that come later run when the next slot is free. Where all together
        would get their answers later for the wait, nothing is gained.
        """
        alone_s = learner.expected_s(waiting * rows_each)
        later_s = learner.expected_s(more * rows_each)
        together_s = learner.expected_s((waiting + more) * rows_each)
        if alone_s is None or later_s is None or together_s is None:
            return 0.0
        next_slot_s = max(alone_s / self._slot_count, wait_s)
        apart_s = waiting * alone_s + more * (next_slot_s + later_s)
        if apart_s < (waiting + more) * (wait_s + together_s):
            return 0.0
        return (waiting + more) / (wait_s + together_s) * alone_s / waiting
