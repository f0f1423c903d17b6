"""Whether it pays to stay awake for the next request."""

from __future__ import annotations

__all__ = ["Attention"]

_PATIENCE_S = 200e-6
_SMOOTHING = 0.2


class Attention:
    """Learns how soon after an answer the next request comes.

    To wake a thread that sleeps takes tens of microseconds, more than a small model itself, and it
    wakes with cold caches. So a replica whose clients come back at once stays awake for a moment
    after each answer, at most 200 µs; one whose clients take longer sleeps at once.
    """

    def __init__(self) -> None:
        self._gap_s = 10 * _PATIENCE_S
        self._answered_s: float | None = None

    def answered(self, now_s: float) -> None:
        """Note that an answer was sent."""
        self._answered_s = now_s

    def arrived(self, now_s: float) -> None:
        """Note that a request came."""
        if self._answered_s is None:
            return
        gap_s = min(now_s - self._answered_s, 10 * _PATIENCE_S)
        self._gap_s += _SMOOTHING * (gap_s - self._gap_s)
        self._answered_s = None

    @property
    def awake_until_s(self) -> float:
        """When to go to sleep; in the past if staying awake does not pay."""
        if self._answered_s is None or self._gap_s > _PATIENCE_S:
            return 0.0
        return self._answered_s + _PATIENCE_S
