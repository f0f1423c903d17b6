"""A plain Ray actor that holds the model: what one writes without any framework."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import ray

from atriva_inference.tensor import Array
from benchmarks.job import Job
from benchmarks.peers.async_model import AsyncModel
from benchmarks.peers.peer import Peer

__all__ = ["RayActor"]


@ray.remote
class _ModelActor:
    """An asynchronous actor around asynchronous infer requests."""

    def __init__(self, job: Job) -> None:
        self._model = AsyncModel(job)

    async def about(self) -> tuple[int, dict[str, Any]]:
        return os.getpid(), self._model.settings

    async def infer(self, array: Array) -> list[Array]:
        return await self._model.infer(array)


class RayActor(Peer):
    """Calls the actor with several calls under way."""

    def __init__(self, job: Job) -> None:
        ray.init(configure_logging=False, log_to_driver=False)
        self._in_flight = job.in_flight
        self._actor = _ModelActor.options(num_cpus=job.threads).remote(job)
        self._pid, self._settings = ray.get(self._actor.about.remote())

    def settings(self) -> dict[str, Any]:
        return self._settings

    def pids(self) -> list[int]:
        return [self._pid]

    def flow(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        calls: deque[Any] = deque()
        for array in cycle(arrays):
            if len(calls) == self._in_flight:
                ray.get(calls.popleft())
                finished.append(time.perf_counter())
            if time.perf_counter() >= until_s:
                break
            calls.append(self._actor.infer.remote(array))
        ray.get(list(calls))

    def trip(self, array: Array) -> None:
        ray.get(self._actor.infer.remote(array))

    def close(self) -> None:
        ray.kill(self._actor)
        ray.shutdown()
