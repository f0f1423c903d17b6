"""This project on the cluster: `atriva_ray`, by each of its calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

from atriva_inference.tensor import Array
from atriva_ray import InferenceRuntime
from benchmarks.job import Job
from benchmarks.peers.peer import Peer

__all__ = ["Cluster"]


class Cluster(Peer):
    """Programs with the same job share one replica, as any programs do."""

    def __init__(self, job: Job) -> None:
        self._runtime = InferenceRuntime()
        self._model = self._runtime.load_model(
            job.model,
            "CPU",
            performance_hint=job.hint,
            replicas=1,
            cpus_per_replica=job.threads,
        )
        self._stream = self._model.create_stream()
        self._name = self._model.inputs[0].name
        self._in_flight = job.in_flight
        flows = {
            "map": self._map,
            "run_async": self._run_async,
            "async_request": self._async_request,
        }
        self._flow = flows[job.mode or "map"]

    def settings(self) -> dict[str, Any]:
        (use,) = self._model.replicas
        return {"parallelism": self._model.parallelism, "threads": use.info.thread_count}

    def pids(self) -> list[int]:
        return [use.info.pid for use in self._model.replicas]

    def flow(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        self._flow(arrays, until_s, finished)

    def trip(self, array: Array) -> None:
        self._stream.run({self._name: array})

    def close(self) -> None:
        self._runtime.close()

    def _map(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        def inputs() -> Iterator[dict[str, Array]]:
            for array in cycle(arrays):
                if time.perf_counter() >= until_s:
                    return
                yield {self._name: array}

        finished.extend(time.perf_counter() for _ in self._stream.map(inputs()))

    def _run_async(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        async def one_after_the_other(array: Array) -> None:
            while time.perf_counter() < until_s:
                await self._model.run_async({self._name: array})
                finished.append(time.perf_counter())

        async def together() -> None:
            each = cycle(arrays)
            await asyncio.gather(*(one_after_the_other(next(each)) for _ in range(self._in_flight)))

        asyncio.run(together())

    def _async_request(
        self, arrays: Sequence[Array], until_s: float, finished: list[float]
    ) -> None:
        requests = [self._model.create_async_request() for _ in range(self._in_flight)]
        each = cycle(arrays)
        for request in requests:
            request.start({self._name: next(each)})
        for request in cycle(requests):
            request.wait()
            finished.append(time.perf_counter())
            if finished[-1] >= until_s:
                break
            request.start({self._name: next(each)})
        for request in requests:
            request.wait()
