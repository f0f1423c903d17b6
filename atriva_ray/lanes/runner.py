"""What runs a lane's requests, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from atriva_inference.binding import BoundInputs
from atriva_inference.errors import DeadlineExceededError, OverloadedError
from atriva_inference.executor import Outputs
from atriva_inference.tensor import Array
from atriva_inference.terms import USUAL, Terms
from atriva_ray.lanes.server_lane import Job, Result

__all__ = ["Runner", "run_one", "submit_one"]

Value = TypeVar("Value")


class Runner(Protocol):
    """Runs requests; an executor does."""

    def run(self, bound: BoundInputs, memory: dict[str, Array] | None = None) -> Outputs:
        """Run one request and block; into `memory` if it is given."""
        ...

    def submit(
        self, bound: BoundInputs, wrap: Callable[[Outputs], Value], *, terms: Terms = USUAL
    ) -> Future[Value]:
        """Run one request on another thread."""
        ...


def run_one(runner: Runner, job: Job) -> Result:
    """Run one job by itself."""
    started_s = time.monotonic()
    try:
        outputs = runner.run(job.bound, job.results)
    except Exception as error:  # noqa: BLE001 - whatever it is, its caller is told
        return Result(job, None, error)
    return Result(job, outputs, None, time.monotonic() - started_s)


def submit_one(runner: Runner, job: Job) -> Future[Outputs]:
    """Begin one job on another thread; what is refused comes back through the future as well."""
    try:
        return runner.submit(job.bound, dict, terms=job.terms)
    except (DeadlineExceededError, OverloadedError) as error:
        refused: Future[Outputs] = Future()
        refused.set_exception(error)
        return refused
