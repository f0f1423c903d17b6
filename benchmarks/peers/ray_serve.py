"""A Ray Serve deployment, called through its handle."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import ray
from ray import serve

from atriva_inference.tensor import Array
from benchmarks.job import Job
from benchmarks.peers.async_model import AsyncModel
from benchmarks.peers.peer import Peer

__all__ = ["RayServe"]


class _ModelDeployment:
    def __init__(self, job: Job) -> None:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # no access log: it costs a fifth
        self._model = AsyncModel(job)

    async def about(self) -> tuple[int, dict[str, Any]]:
        return os.getpid(), self._model.settings

    async def __call__(self, array: Array) -> list[Array]:
        return await self._model.infer(array)


class RayServe(Peer):
    """One replica, no HTTP proxy, several requests under way through the handle."""

    def __init__(self, job: Job) -> None:
        ray.init(configure_logging=False, log_to_driver=False)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        self._in_flight = job.in_flight
        serve.start(proxy_location="Disabled")
        deployment = serve.deployment(
            _ModelDeployment,
            max_ongoing_requests=2 * job.in_flight,
            ray_actor_options={"num_cpus": job.threads},
        )
        self._handle = serve.run(deployment.bind(job), route_prefix=None)
        self._pid, self._settings = self._handle.about.remote().result()

    def settings(self) -> dict[str, Any]:
        return self._settings

    def pids(self) -> list[int]:
        return [self._pid]

    def flow(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        calls: deque[Any] = deque()
        for array in cycle(arrays):
            if len(calls) == self._in_flight:
                calls.popleft().result()
                finished.append(time.perf_counter())
            if time.perf_counter() >= until_s:
                break
            calls.append(self._handle.remote(array))
        for call in calls:
            call.result()

    def trip(self, array: Array) -> None:
        self._handle.remote(array).result()

    def close(self) -> None:
        serve.shutdown()
        ray.shutdown()
