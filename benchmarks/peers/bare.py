"""OpenVINO's own `AsyncInferQueue` in one process: the baseline."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import openvino as ov

from atriva_inference.tensor import Array
from benchmarks.job import Job
from benchmarks.peers.compiled import compile_job, copy_outputs, settings_of
from benchmarks.peers.peer import Peer

__all__ = ["Bare"]


class Bare(Peer):
    """The way OpenVINO's documentation shows, outputs copied out in the callback."""

    def __init__(self, job: Job) -> None:
        self._compiled = compile_job(job)
        self._request = self._compiled.create_infer_request()
        self._queue = ov.AsyncInferQueue(self._compiled)
        self._queue.set_callback(self._collect)
        self._answers: deque[list[Array]] = deque(maxlen=job.in_flight)
        self._output_count = len(self._compiled.outputs)

    def settings(self) -> dict[str, Any]:
        return settings_of(self._compiled)

    def flow(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        for array in cycle(arrays):
            if time.perf_counter() >= until_s:
                break
            self._queue.start_async({0: array}, finished)
        self._queue.wait_all()

    def trip(self, array: Array) -> None:
        self._request.infer({0: array})

    def _collect(self, request: ov.InferRequest, finished: list[float]) -> None:
        self._answers.append(copy_outputs(request, self._output_count))
        finished.append(time.perf_counter())
