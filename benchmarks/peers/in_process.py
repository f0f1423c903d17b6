"""This project in one process: `atriva_inference`, through a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

from atriva_inference import InferenceRuntime
from atriva_inference.tensor import Array
from benchmarks.job import Job
from benchmarks.peers.peer import Peer

__all__ = ["InProcess"]


class InProcess(Peer):
    """`stream.map`, and `stream.run` for one request at a time."""

    def __init__(self, job: Job) -> None:
        self._runtime = InferenceRuntime()
        threads = {"INFERENCE_NUM_THREADS": job.threads}
        self._model = self._runtime.load_model(
            job.model, "CPU", performance_hint=job.hint, config=threads
        )
        self._stream = self._model.create_stream()
        self._name = self._model.inputs[0].name

    def settings(self) -> dict[str, Any]:
        return {"parallelism": self._model.parallelism}

    def flow(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        def inputs() -> Iterator[dict[str, Array]]:
            for array in cycle(arrays):
                if time.perf_counter() >= until_s:
                    return
                yield {self._name: array}

        finished.extend(time.perf_counter() for _ in self._stream.map(inputs()))

    def trip(self, array: Array) -> None:
        self._stream.run({self._name: array})

    def close(self) -> None:
        self._runtime.close()
