"""A compiled model behind ``await``: what a good actor of one's own would have inside."""

from __future__ import annotations

import asyncio
from typing import Any

import openvino as ov

from atriva_inference.tensor import Array
from benchmarks.job import Job
from benchmarks.peers.compiled import compile_job, copy_outputs, settings_of

__all__ = ["AsyncModel"]


class AsyncModel:
    """Runs as many requests at once as OpenVINO advises; further ones wait on the event loop."""

    def __init__(self, job: Job) -> None:
        compiled = compile_job(job)
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._output_count = len(compiled.outputs)
        self._idle: list[ov.InferRequest] = [compiled.create_infer_request() for _ in range(count)]
        self._free = asyncio.Semaphore(count)
        self.settings: dict[str, Any] = settings_of(compiled)

    async def infer(self, array: Array) -> list[Array]:
        """Run one request."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def wake(_userdata: object) -> None:
            loop.call_soon_threadsafe(done.set_result, None)

        async with self._free:
            request = self._idle.pop()
            try:
                request.set_callback(wake, None)
                request.start_async({0: array})
                await done
                return copy_outputs(request, self._output_count)
            finally:
                self._idle.append(request)
