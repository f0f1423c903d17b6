"""What a measurement comes to: pure arithmetic on latencies and durations."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Figures", "Ratio", "Sample", "pooled", "ratio_of", "summarise"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured without a break.

    Attributes:
        latencies_s: start to answer of each request, in seconds.
        elapsed_s: first start to last answer, in seconds.
    """

    latencies_s: Sequence[float]
    elapsed_s: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.latencies_s) / self.elapsed_s if self.elapsed_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What ``benchmark_app`` prints.

    Attributes:
        count: requests answered.
        duration_s: time they took together, in seconds.
        median_s: median latency, in seconds.
        average_s: mean latency, in seconds.
        min_s: shortest latency, in seconds.
        max_s: longest latency, in seconds.
        throughput: batch entries per second (requests per second where the batch is 1).
    """

    count: int
    duration_s: float
    median_s: float
    average_s: float
    min_s: float
    max_s: float
    throughput: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """How two programs compare that ran in turns.

    Attributes:
        median: median over the rounds of one's rate divided by the other's.
        lowest: the smallest of the rounds.
        highest: the largest of the rounds.
    """

    median: float
    lowest: float
    highest: float


def pooled(samples: Sequence[Sample]) -> Sample:
    """Join what was measured in several turns; breaks between them do not count."""
    return Sample(
        [latency_s for sample in samples for latency_s in sample.latencies_s],
        sum(sample.elapsed_s for sample in samples),
    )


def summarise(sample: Sample, batch_size: int = 1) -> Figures:
    """Return the figures of a sample; all of them 0 if nothing was answered.

    Args:
        sample: what was measured.
        batch_size: batch entries in each request.
    """
    latencies_s = sample.latencies_s
    if not latencies_s:
        return Figures(0, sample.elapsed_s, 0.0, 0.0, 0.0, 0.0, 0.0)
    return Figures(
        count=len(latencies_s),
        duration_s=sample.elapsed_s,
        median_s=statistics.median(latencies_s),
        average_s=statistics.fmean(latencies_s),
        min_s=min(latencies_s),
        max_s=max(latencies_s),
        throughput=sample.rate * batch_size,
    )


def ratio_of(ours: Sequence[Sample], theirs: Sequence[Sample]) -> Ratio | None:
    """Compare rates round by round, so that what slows the machine for a while slows both.

    Args:
        ours: one sample per round.
        theirs: the same rounds of the other.

    Returns:
        None if no round has answers of the other.
    """
    ratios = [
        mine.rate / other.rate for mine, other in zip(ours, theirs, strict=True) if other.rate > 0
    ]
    if not ratios:
        return None
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))
