"""What every peer can do; the loops around it are the same for all."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from atriva_inference.tensor import Array

__all__ = ["Peer"]

_RAMP_PART = 0.25
_MAX_RAMP_S = 0.3


class Peer(ABC):
    """One way to run a model, loaded and ready."""

    def settings(self) -> dict[str, Any]:
        """Return what is known of how the model was compiled."""
        return {}

    def pids(self) -> list[int]:
        """Return the processes that hold the model."""
        return []

    @abstractmethod
    def flow(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        """Run one request after the other as fast as this way allows; then let all of them end.

        Args:
            arrays: inputs, to be used in turn.
            until_s: start no request after this time of `time.perf_counter`.
            finished: takes the time at which the caller had each request's outputs.
        """

    @abstractmethod
    def trip(self, array: Array) -> None:
        """Run one request and wait until its outputs are the caller's."""

    def close(self) -> None:  # noqa: B027 - many peers have nothing to end
        """End what was started."""

    def measure_flow(
        self, arrays: Sequence[Array], start_s: float, seconds: float
    ) -> tuple[int, float]:
        """Count requests that finish while the flow is steady.

        Requests are under way before counting starts and still when it ends, so neither an empty
        nor a draining queue is counted, however many requests a peer keeps under way.

        Returns:
            Requests, and the seconds in which they finished.
        """
        ramp_s = min(_MAX_RAMP_S, seconds * _RAMP_PART)
        finished: list[float] = []
        while time.perf_counter() < start_s:
            time.sleep(max(0.0, start_s - time.perf_counter()))
        from_s, until_s = start_s + ramp_s, start_s + ramp_s + seconds
        self.flow(arrays, until_s, finished)
        return sum(from_s < when <= until_s for when in finished), seconds

    def measure_trips(self, arrays: Sequence[Array], seconds: float) -> list[float]:
        """Return the seconds that each of a row of single requests took."""
        durations_s: list[float] = []
        self.trip(arrays[0])  # whatever an idle moment has cooled down
        now_s = time.perf_counter()
        until_s = now_s + seconds
        while now_s < until_s:
            self.trip(arrays[len(durations_s) % len(arrays)])
            ended_s = time.perf_counter()
            durations_s.append(ended_s - now_s)
            now_s = ended_s
        return durations_s
