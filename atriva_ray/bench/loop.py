"""The measuring loops: one request at a time, or several under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from atriva_inference.model import Model
from atriva_inference.request import AsyncRequest
from atriva_ray.bench.inputs import InputSet
from atriva_ray.bench.options import Limits
from atriva_ray.bench.stats import Sample

__all__ = ["OnProgress", "measure_async", "measure_sync"]

OnProgress = Callable[[float], None]
"""Told now and then how much of the measurement is behind, from 0 to 1."""

_PROGRESS_EVERY_S = 0.2


class _Progress:
    """Passes progress on, seldom enough to disturb nothing."""

    def __init__(self, limits: Limits, tell: OnProgress) -> None:
        self._limits = limits
        self._tell = tell
        self._next_s = 0.0

    def update(self, elapsed_s: float, started: int) -> None:
        if elapsed_s >= self._next_s:
            self._next_s = elapsed_s + _PROGRESS_EVERY_S
            self._tell(self._limits.progress(elapsed_s, started))


def measure_sync(
    model: Model, inputs: Sequence[InputSet], limits: Limits, on_progress: OnProgress
) -> Sample:
    """Run one request after the other through a stream.

    Raises:
        InferenceRuntimeError: a request failed.
    """
    latencies_s: list[float] = []
    progress = _Progress(limits, on_progress)
    with model.create_stream() as stream:
        begin_s = now_s = time.perf_counter()
        while not limits.reached(now_s - begin_s, len(latencies_s)):
            progress.update(now_s - begin_s, len(latencies_s))
            stream.run(inputs[len(latencies_s) % len(inputs)])
            ended_s = time.perf_counter()
            latencies_s.append(ended_s - now_s)
            now_s = ended_s
    return Sample(latencies_s, now_s - begin_s)


def measure_async(
    model: Model, inputs: Sequence[InputSet], limits: Limits, on_progress: OnProgress
) -> Sample:
    """Keep one asynchronous request per set of inputs under way.

    Raises:
        InferenceRuntimeError: a request failed.
    """
    done: SimpleQueue[tuple[int, float]] = SimpleQueue()
    latencies_s: list[float] = []
    started_s = [0.0] * len(inputs)
    requests = [model.create_async_request(_reporting(index, done)) for index in range(len(inputs))]
    progress = _Progress(limits, on_progress)
    begin_s = now_s = last_s = time.perf_counter()
    started = answered = 0

    def start(index: int) -> None:
        started_s[index] = time.perf_counter()
        requests[index].start(inputs[index])

    while started < len(requests) and not limits.reached(0.0, started):
        start(started)
        started += 1
    while answered < started:
        index, ended_s = done.get()
        requests[index].wait()  # raises what the request raised
        latencies_s.append(ended_s - started_s[index])
        last_s = max(last_s, ended_s)
        answered += 1
        now_s = time.perf_counter()
        if not limits.reached(now_s - begin_s, started):
            start(index)
            started += 1
        progress.update(now_s - begin_s, answered)
    return Sample(latencies_s, last_s - begin_s)


def _reporting(index: int, done: SimpleQueue[tuple[int, float]]) -> Callable[[AsyncRequest], None]:
    return lambda _request: done.put((index, time.perf_counter()))
