"""Where the time of a job goes: seconds per stage, added up over threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

__all__ = ["Stage", "StageTimes"]


class Stage(StrEnum):
    """What a row goes through.

    READ gets bytes from the filesystem, DECODE makes arrays of them, WAIT is time that the thread
    which feeds the model waited for rows, INFER that it waited for answers, WRITE makes the output.
    """

    READ = "read"
    DECODE = "decode"
    WAIT = "wait"
    INFER = "infer"
    WRITE = "write"


class StageTimes:
    """Seconds per stage; thread-safe. Threads that work at once add up to more than the clock.

    A stage inside another one, on the same thread, is not counted as the outer one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[Stage, float] = dict.fromkeys(Stage, 0.0)
        self._inner = threading.local()

    @contextmanager
    def during(self, stage: Stage) -> Iterator[None]:
        """Count what happens inside the block as `stage`."""
        outer_s: float = getattr(self._inner, "seconds", 0.0)
        self._inner.seconds = 0.0
        started_s = time.perf_counter()
        try:
            yield
        finally:
            elapsed_s = time.perf_counter() - started_s
            self.add(stage, elapsed_s - self._inner.seconds)
            self._inner.seconds = outer_s + elapsed_s

    def add(self, stage: Stage, seconds: float) -> None:
        """Add to a stage."""
        with self._lock:
            self._seconds[stage] += seconds

    def seconds(self) -> dict[str, float]:
        """Return what was added up so far, by stage; stages that never began have 0."""
        with self._lock:
            return {str(stage): seconds for stage, seconds in self._seconds.items()}
