"""How busy a replica is: time that its slots ran requests, and what a request takes."""

from __future__ import annotations

__all__ = ["BusyTime"]

_SMOOTHING = 0.2
"""Weight of the newest service time in the moving average."""


class BusyTime:
    """Adds up how long slots were busy, side by side or not. Not thread-safe.

    A request that still runs counts up to now, so that long ones are seen while they last.

    Attributes:
        answered: requests that were answered.
        service_time_s: moving average of a request's time on the device; None before the first.
    """

    def __init__(self) -> None:
        self.answered = 0
        self.service_time_s: float | None = None
        self._running = 0
        self._since_s = 0.0
        self._total_s = 0.0

    def began(self, now_s: float) -> None:
        """Count a slot that is busy from now on."""
        self._total_s = self.total_s(now_s)
        self._since_s = max(now_s, self._since_s)
        self._running += 1

    def ended(self, now_s: float, answered: int = 1) -> None:
        """Count a slot that is free again, and how many requests it has answered."""
        self._total_s = self.total_s(now_s)
        self._since_s = max(now_s, self._since_s)
        self._running -= 1
        self.answered += answered

    def took(self, service_time_s: float) -> None:
        """Take a request's time on the device into the average; 0 says nothing."""
        if service_time_s > 0:
            before = self.service_time_s
            newest = service_time_s
            self.service_time_s = (
                newest if before is None else before + _SMOOTHING * (newest - before)
            )

    def total_s(self, now_s: float) -> float:
        """Return the time up to now; a clock that went back for a moment takes nothing off."""
        return self._total_s + self._running * max(0.0, now_s - self._since_s)
