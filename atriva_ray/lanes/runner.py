"""What runs a lane's requests, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

from atriva_inference.binding import BoundInputs
from atriva_inference.executor import Outputs
from atriva_inference.ports import Port
from atriva_inference.state import State
from atriva_inference.tensor import Array
from atriva_ray.lanes.server_lane import Job, Result

__all__ = ["Runner", "SessionRunner", "run_one"]

Value = TypeVar("Value")


class OneByOne(Protocol):
    """Runs a request while its caller waits."""

    def run(self, bound: BoundInputs, memory: dict[str, Array] | None = None) -> Outputs:
        """Run one request and block; into `memory` if it is given."""
        ...


class SessionRunner(OneByOne, Protocol):
    """Runs the requests of one session."""

    def state(self) -> State:
        """Return copies of what it remembers."""
        ...

    def set_state(self, state: State) -> None:
        """Give variables values that were checked."""
        ...

    def reset(self) -> None:
        """Give all variables their initial values."""
        ...

    def close(self) -> None:
        """Finish what runs, and forget."""
        ...

    def abandon(self) -> None:
        """Close without blocking."""
        ...


class Runner(OneByOne, Protocol):
    """Runs requests; an executor does."""

    @property
    def variables(self) -> tuple[Port, ...]:
        """What a session remembers."""
        ...

    def open_session(self, number: int) -> SessionRunner:
        """Open a session, which messages call by this number."""
        ...

    def submit(self, bound: BoundInputs, wrap: Callable[[Outputs], Value]) -> Future[Value]:
        """Run one request on another thread."""
        ...


def run_one(runner: OneByOne, job: Job) -> Result:
    """Run one job by itself."""
    started_s = time.monotonic()
    try:
        outputs = runner.run(job.bound, job.results)
    except Exception as error:  # noqa: BLE001 - whatever it is, its caller is told
        return Result(job, None, error)
    return Result(job, outputs, None, time.monotonic() - started_s)
