"""Small requests that wait together run together, where the model treats every row by itself."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from atriva_inference.binding import BoundInputs
from atriva_inference.errors import InferenceRuntimeError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.lanes.runner import Runner, run_one
from atriva_ray.lanes.server_lane import INLINE_BYTES, Job, Result

__all__ = ["Together", "find_together"]

_WORTHWHILE_S = 100e-6
"""A request that takes the device longer than this gains nothing in company."""

_MAX_ROWS = 32
_PROBE_SCALES = (1.0, 0.01, 3.0, 255.0, 0.3)
"""Sizes of the numbers of each row that is tried: pixels may be up to 1 or up to 255."""

_TRIAL_S = 50e-3
"""How long a model may show that it is fast after all, on a processor that others use too."""

_TOLERANCE = 0.02
"""Difference that counts as rounding, as a share of a row's largest value: with bfloat16, it may
come out this much differently in company."""


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

    A leading dimension that is dynamic in every input and output may be a batch, but also a
    sequence, so the model is tried: rows must come out in company as they do alone.
    """
    if not all(_has_rows(port) for port in (*inputs, *outputs)):
        return None
    if any(port.dtype.kind != "f" for port in inputs):
        return None
    random = np.random.default_rng(0)
    rows = [
        {
            port.name: (scale * random.standard_normal((1, *(port.shape or ())[1:]))).astype(
                port.dtype
            )
            for port in inputs
        }
        for scale in _PROBE_SCALES
    ]
    try:
        alone = [runner.run(BoundInputs(rows[0]))]  # the first run prepares what later ones use
        started_s = time.monotonic()
        runner.run(BoundInputs(rows[0]))
        if time.monotonic() - started_s > _WORTHWHILE_S and not _is_fast(runner, rows[0]):
            return None
        alone += [runner.run(BoundInputs(row)) for row in rows[1:]]
        stacked = {port.name: np.concatenate([row[port.name] for row in rows]) for port in inputs}
        together = runner.run(BoundInputs(stacked))
    except InferenceRuntimeError:  # it does not take such inputs at all
        return None
    for port in outputs:
        if not _are_rows(together[port.name], [each[port.name] for each in alone]):
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


def _has_rows(port: Port) -> bool:
    shape = port.shape
    return shape is not None and len(shape) > 1 and shape[0] == -1 and min(shape[1:]) > 0


def _is_one_row(job: Job) -> bool:
    return all(tensor.shape[0] == 1 for tensor in job.layout.tensors)


def _row(outputs: dict[str, Array], row: int) -> dict[str, Array]:
    return {name: array[row : row + 1] for name, array in outputs.items()}


def _are_rows(together: Array, alone: list[Array]) -> bool:
    """Whether rows came out in company as they did alone, but for rounding.

    The rows that are tried differ by orders of magnitude, so that what one adds to another shows.
    """
    if any(each.shape != (1, *together.shape[1:]) for each in alone):
        return False
    expected = np.concatenate(alone)
    if together.shape != expected.shape:
        return False
    if together.dtype.kind != "f":
        return bool(np.array_equal(together, expected))
    expected, together = expected.astype(np.float64), together.astype(np.float64)
    if not np.isfinite(expected).all():
        return False
    largest = np.max(np.abs(expected), axis=tuple(range(1, expected.ndim)), keepdims=True)
    return bool((np.abs(together - expected) <= _TOLERANCE * largest).all())
