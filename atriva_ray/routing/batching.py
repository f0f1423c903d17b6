"""How many rows a device should run as one: learned from how long it takes over each number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean, median

__all__ = ["BatchLearner", "BatchingReport", "ShapeReport", "SizeReport"]

_GAIN = 1.1
"""What every doubling has to earn in rows per second; less is not worth that the first of a batch
wait for its last."""

_SHORT_S = 1e-3
"""Nobody minds waiting for the last of a batch that is over so soon: any gain will do."""

_GAIN_TO_GO_ON = 1.05
"""Larger sizes are tried after one that earned this much more than all before."""

_GAIN_TO_STAY = 1.03
"""A size that was good enough before stays so with this much, or noise would turn it on and off."""

_MAX_SERVICE_S = 0.1
_MAX_STRETCH = 4.0
"""A batch may take so many times what one row takes, or `_MAX_SERVICE_S` if that is more."""

_MAX_PREPARATION_S = 1.0
"""Where a new size costs more than this the first time, no larger one is tried."""

_SAMPLES = 4
"""Runs that a size needs before anything is made of it."""

_MAX_MISSES = 2
"""Sizes in a row that gain nothing; then larger ones are not tried either."""

_RUNS_BETWEEN_TRIALS = 3
_SMOOTHING = 0.1
_CAUTION = 1.5
"""By how many times what chance does a size has to be better than one that is in use."""

_REMEMBERED = 16
"""Samples that an average of that smoothing is about as good as."""

_OUTLIER = 0.5
"""A run moves the estimate as if it were off by no more than this share of it: a processor that
others use too takes a hundred times as long now and then."""

_DRIFT = 1.6
"""By which factor the time of the size in use may change before all others are tried again."""

_FIRST_RETRY_S = 5.0
_MAX_RETRY_S = 320.0
_RUNS_BETWEEN_LOOKS = 16


@dataclass(frozen=True, slots=True)
class SizeReport:
    """What is known of batches of one size.

    Attributes:
        rows: they have at most so many rows, and more than half of that.
        runs: how many were run.
        service_time_s: how long one takes now; None if that is not known yet.
        rows_per_s: how many rows a second such batches make, of one slot.
    """

    rows: int
    runs: int
    service_time_s: float | None
    rows_per_s: float | None


@dataclass(frozen=True, slots=True)
class ShapeReport:
    """What is known of requests whose rows have one shape.

    Attributes:
        row_shapes: shape of a row of each input, without the leading dimension.
        best_rows: how many rows are run together when that many wait.
        sizes: what is known of each number of rows.
    """

    row_shapes: tuple[tuple[int, ...], ...]
    best_rows: int
    sizes: tuple[SizeReport, ...]


@dataclass(frozen=True, slots=True)
class BatchingReport:
    """What a replica has learned about running requests together.

    Attributes:
        shapes: what is known of each shape.
        is_mixing: whether the model was seen to mix rows, so that none are run together any more.
        wait_count: how often it waited for more requests.
        waited_s: for how long, all together.
        busy_share: part of the time that the device worked lately, 0 to 1.
    """

    shapes: tuple[ShapeReport, ...]
    is_mixing: bool
    wait_count: int
    waited_s: float
    busy_share: float


@dataclass(slots=True)
class _Size:
    """Batches of one size.

    Attributes:
        runs: how many there were, the first one included, which is not counted otherwise.
        samples: times of those since this size was last in doubt, until there are enough.
        rows: how many rows they had, on the average.
        time_s: how long they took; 0 while that is not known.
        count: samples that this stands on, up to what the average remembers.
        spread: how far they were from it, as a share of it, on the average.
        first_s: how long the very first took.
    """

    runs: int = 0
    samples: list[float] = field(default_factory=list)
    rows: float = 0.0
    time_s: float = 0.0
    count: int = 0
    spread: float = 0.0
    first_s: float = 0.0

    def add(self, rows: int, time_s: float) -> None:
        self.runs += 1
        self.rows += max(_SMOOTHING, 1 / self.runs) * (rows - self.rows)
        if self.runs == 1:  # every number of rows costs the device a preparation once
            self.first_s = time_s
        elif len(self.samples) < _SAMPLES:
            self.samples.append(time_s)
            if len(self.samples) == _SAMPLES:
                self.time_s = median(self.samples)
                self.count = _SAMPLES
                self.spread = mean(abs(each / self.time_s - 1) for each in self.samples)
        else:
            self.count = min(_REMEMBERED, self.count + 1)
            self.spread += _SMOOTHING * (min(1, abs(time_s / self.time_s - 1)) - self.spread)
            limit_s = _OUTLIER * self.time_s
            self.time_s += _SMOOTHING * min(limit_s, max(-limit_s, time_s - self.time_s))

    @property
    def is_in_doubt(self) -> bool:
        return len(self.samples) < _SAMPLES

    @property
    def doubt(self) -> float:
        """By which share the time may be wrong."""
        return self.spread / math.sqrt(self.count) if self.count else 0.0

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.time_s if self.time_s else 0.0


@dataclass(slots=True)
class _Retry:
    """When sizes that gained nothing are tried again: ever more rarely while that stays so."""

    at_s: float | None = None
    pause_s: float = field(default=_FIRST_RETRY_S)


class BatchLearner:
    """Learns from batches that were run how many rows the next should have. Not thread-safe.

    Sizes are powers of two. A new one is tried when that many rows wait anyhow, from the smallest
    up, and not beyond where two in a row gained nothing, nor where one would take too long. What a
    trial costs is a few batches that do their rows' work all the same. A device that takes as long
    for two rows in one as in two stays at one row; it is tried again after 5 s, 10 s, 20 s… up to
    320 s, and at once when the time of the size in use changes much.
    """

    def __init__(self, max_rows: int = 32) -> None:
        """Know nothing.

        Args:
            max_rows: the largest batch, a power of two.
        """
        self._sizes = [_Size() for _ in range(max_rows.bit_length())]
        self._choices = [0] * len(self._sizes)
        self._least = len(self._sizes)  # no request has fewer rows than this size
        self._trial: int | None = 0
        self._since_trial = 0
        self._since_look = 0
        self._settled_s: float | None = None
        self._retry = _Retry()

    @property
    def max_rows(self) -> int:
        """Rows of the largest batch there may be."""
        return 1 << (len(self._sizes) - 1)

    @property
    def best_rows(self) -> int:
        """Rows of the batches that the device does most with."""
        return 1 << self._choices[-1]

    @property
    def wanted_rows(self) -> int:
        """Rows that should wait together, for the best size or the one to be tried next."""
        return 1 << max(self._choices[-1], self._trial or 0)

    def limit(self, waiting_rows: int) -> int:
        """Return how many rows the next batch may have, a power of two.

        Args:
            waiting_rows: how many wait, at least 1.
        """
        trial = self._trial
        is_due = self._since_trial >= _RUNS_BETWEEN_TRIALS
        if trial is not None and is_due and waiting_rows >= 1 << trial:
            self._since_trial = 0
            return 1 << trial
        return self.best_of(waiting_rows)

    def best_of(self, waiting_rows: int) -> int:
        """Return how many of the rows that wait are best run as one, as far as that is known."""
        return 1 << self._choices[min(waiting_rows.bit_length(), len(self._sizes)) - 1]

    def expected_s(self, rows: int) -> float | None:
        """Return how long a batch takes; None if no batch of about that size is known."""
        number = (rows - 1).bit_length()
        if number >= len(self._sizes):
            return None
        for size in (self._sizes[number], *reversed(self._sizes[:number])):
            if size.time_s:
                return size.time_s if size.rows >= rows else size.time_s * rows / size.rows
        return None

    def ran(self, rows: int, service_time_s: float, now_s: float) -> None:
        """Take in a batch.

        Args:
            rows: how many it had; more than the largest batch may have says nothing.
            service_time_s: how long it took, with putting it together and taking it apart.
            now_s: when it was over.
        """
        number = (rows - 1).bit_length()
        if number >= len(self._sizes):
            return
        size = self._sizes[number]
        size.add(rows, service_time_s)
        self._least = min(self._least, number)
        self._since_trial += 1
        self._since_look += 1
        if self._trial is not None or self._since_look >= _RUNS_BETWEEN_LOOKS:
            self._since_look = 0
            self._look(now_s)

    def failed(self, rows: int) -> None:
        """Take in that rows could be run one by one only; such a size counts as no good."""
        number = min(len(self._sizes) - 1, (rows - 1).bit_length())
        size = self._sizes[number]
        size.runs += 1
        size.rows = size.rows or rows
        size.time_s = 2 * rows * (self._sizes[0].time_s or _MAX_SERVICE_S)
        size.samples = [size.time_s] * _SAMPLES
        self._choices = list(self._chosen())

    def report(self) -> tuple[SizeReport, ...]:
        """Return what is known of each size that was run, the smallest first."""
        return tuple(
            SizeReport(
                rows=1 << number,
                runs=size.runs,
                service_time_s=size.time_s or None,
                rows_per_s=size.rows_per_s or None,
            )
            for number, size in enumerate(self._sizes)
            if size.runs
        )

    # -- decisions -----------------------------------------------------------------------------

    def _look(self, now_s: float) -> None:
        self._doubt(now_s)
        self._choices = list(self._chosen())
        self._trial = self._next_trial()
        if self._trial is None and self._settled_s is None:
            self._settled_s = self._sizes[self._choices[-1]].time_s
            self._retry.at_s = now_s + self._retry.pause_s

    def _doubt(self, now_s: float) -> None:
        """Want to know again what may have changed, once it is time or the device has changed."""
        retry_s = self._retry.at_s
        if self._settled_s is None or retry_s is None:
            return
        best = self._choices[-1]
        time_s = self._sizes[best].time_s
        if not self._settled_s / _DRIFT <= time_s <= self._settled_s * _DRIFT:
            for number, size in enumerate(self._sizes):
                size.samples.clear()
                if number != best:
                    # Others on the same processor slow all sizes alike: until they have been
                    # tried, that is the best guess, and changes nothing.
                    size.time_s *= time_s / self._settled_s
            self._retry = _Retry()
        elif now_s >= retry_s:
            for size in self._sizes[max(0, best - 1) : best + 1 + _MAX_MISSES]:
                size.samples.clear()
            self._retry = _Retry(pause_s=min(_MAX_RETRY_S, 2 * self._retry.pause_s))
        else:
            return
        self._settled_s = None

    def _chosen(self) -> Iterator[int]:
        """Yield, for each size, the best of those up to it."""
        chosen = 0
        limit_s = self._limit_s
        for number, size in enumerate(self._sizes):
            if number <= self._least:
                chosen = number
            elif size.time_s and self._sizes[chosen].time_s and size.time_s <= limit_s:
                is_in_use = self._choices[number] == number
                gain = _GAIN_TO_STAY if is_in_use else _GAIN
                gain = 1.0 if size.time_s <= _SHORT_S else gain
                before = self._sizes[chosen]
                needed = before.rows_per_s * gain ** (number - chosen)
                if not is_in_use:  # on a processor that others use, it is to be more than chance
                    needed *= 1 + _CAUTION * (size.doubt + before.doubt)
                if size.rows_per_s >= needed:
                    chosen = number
            yield chosen

    def _next_trial(self) -> int | None:
        """Return the size to try next, None if there is nothing to be learned."""
        misses = 0
        most = 0.0
        limit_s = self._limit_s
        for number, size in enumerate(self._sizes):
            if number < self._least:
                continue
            is_first = number == self._least
            if not is_first and not size.time_s and 2 * self._sizes[number - 1].time_s > limit_s:
                return None
            if size.is_in_doubt:
                return number
            if not is_first and (size.first_s > _MAX_PREPARATION_S or size.time_s > limit_s):
                return None
            misses = 0 if size.rows_per_s >= most * _GAIN_TO_GO_ON else misses + 1
            most = max(most, size.rows_per_s)
            if misses >= _MAX_MISSES and number >= self._choices[-1]:
                return None
        return None

    @property
    def _limit_s(self) -> float:
        least = self._sizes[min(self._least, len(self._sizes) - 1)]
        return max(_MAX_SERVICE_S, _MAX_STRETCH * least.time_s)
