"""From what programs counted to medians over rounds: pure arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["differences", "median", "percentile", "ratios", "together"]


def median(values: Sequence[float]) -> float | None:
    """Return the median, None of nothing."""
    return statistics.median(values) if values else None


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def together(turns: Sequence[Sequence[tuple[int, float]]]) -> float:
    """Return the requests per second of programs that ran at the same time.

    Args:
        turns: per turn, per program: requests, and the seconds in which they finished.
    """
    count = sum(count for turn in turns for count, _ in turn)
    seconds = sum(max(duration_s for _, duration_s in turn) for turn in turns)
    return count / seconds if seconds else 0.0


def ratios(ours: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Divide round by round, so that what slows the machine for a while slows both sides."""
    return [mine / base for mine, base in zip(ours, baseline, strict=True) if base > 0]


def differences(ours: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Subtract round by round."""
    return [mine - base for mine, base in zip(ours, baseline, strict=True)]
