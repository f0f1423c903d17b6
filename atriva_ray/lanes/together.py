"""Small requests that wait together run together, where the model treats every row by itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from atriva_inference.binding import BoundInputs
from atriva_inference.errors import InferenceRuntimeError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.lanes.runner import Runner, run_one
from atriva_ray.lanes.server_lane import INLINE_BYTES, Job, Result
from atriva_ray.rows_apart import are_rows_apart, trial_rows

__all__ = ["Together", "find_together"]

_WORTHWHILE_S = 100e-6
"""A request that takes the device longer than this gains nothing in company."""

_MAX_ROWS = 32
_TRIAL_S = 50e-3
"""How long a model may show that it is fast after all, on a processor that others use too."""


class Together:
    """Runs requests of one row each as one request of many rows."""

    def __init__(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)

    def limit(self, waiting: int) -> int:
        """Return how many to take of those that wait: a power of two.

        Every number of rows costs the device a preparation the first time, and some at each change.
        """
        return min(_MAX_ROWS, 1 << (waiting.bit_length() - 1))

    def is_alike(self, first: Job, other: Job) -> bool:
        """Whether two requests may run as one: one row each, and small."""
        return (
            first.layout.nbytes <= INLINE_BYTES
            and first.bound.signature is None
            and other.bound.signature is None
            and not first.session
            and not other.session
            and _is_one_row(first)
            and (other.layout is first.layout or _is_one_row(other))
        )

    def run(self, runner: Runner, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs that are alike; each gets its share of the service time.

        If they fail together, each is run by itself, so that only those fail that have to.
        """
        started_s = time.monotonic()
        stacked = {
            port.name: np.concatenate([job.bound.arrays[port.name] for job in jobs])
            for port in self._inputs
        }
        try:
            outputs = runner.run(BoundInputs(stacked))
        except Exception:  # noqa: BLE001 - whose fault it is shows when each runs by itself
            return [run_one(runner, job) for job in jobs]
        if any(array.shape[:1] != (len(jobs),) for array in outputs.values()):
            return [run_one(runner, job) for job in jobs]
        share_s = (time.monotonic() - started_s) / len(jobs)
        return [Result(job, _row(outputs, row), None, share_s) for row, job in enumerate(jobs)]


def find_together(
    runner: Runner, inputs: Sequence[Port], outputs: Sequence[Port]
) -> Together | None:
    """Return how to run requests together, None if that would not pay or could be wrong.

    Not to be asked for a model that remembers: what it does with a row is not all in its answer.

    A leading dimension that is dynamic in every input and output may be a batch, but also a
    sequence, so the model is tried: rows must come out in company as they do alone.
    """
    rows = trial_rows(inputs, outputs)
    if rows is None or any(port.dtype.kind != "f" for port in inputs):
        return None

    def run(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return runner.run(BoundInputs(arrays))

    try:
        run(rows[0])  # the first run prepares what later ones use
        started_s = time.monotonic()
        run(rows[0])
    except InferenceRuntimeError:  # it does not take such inputs at all
        return None
    if time.monotonic() - started_s > _WORTHWHILE_S and not _is_fast(runner, rows[0]):
        return None
    if not are_rows_apart(run, rows):
        return None
    return Together(inputs, outputs)


def _is_fast(runner: Runner, row: dict[str, Array]) -> bool:
    """Whether a request takes little time, once others have left the processor alone."""
    deadline_s = time.monotonic() + _TRIAL_S
    while time.monotonic() < deadline_s:
        started_s = time.monotonic()
        runner.run(BoundInputs(row))
        if time.monotonic() - started_s <= _WORTHWHILE_S:
            return True
    return False


def _is_one_row(job: Job) -> bool:
    return all(tensor.shape[0] == 1 for tensor in job.layout.tensors)


def _row(outputs: dict[str, Array], row: int) -> dict[str, Array]:
    return {name: array[row : row + 1] for name, array in outputs.items()}
