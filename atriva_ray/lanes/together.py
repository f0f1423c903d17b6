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
_PROBES = 5
_TOLERANCE = 0.02
"""Largest difference that counts as rounding, as a share of the largest value: with bfloat16, a row
may come out this much differently in company, and a model that mixes rows differs by far more."""


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
            port.name: random.random((1, *(port.shape or ())[1:]), np.float32).astype(port.dtype)
            for port in inputs
        }
        for _ in range(_PROBES)
    ]
    try:
        alone = [runner.run(BoundInputs(row)) for row in rows]
        times_s = []
        for row in rows:
            started_s = time.monotonic()
            runner.run(BoundInputs(row))
            times_s.append(time.monotonic() - started_s)
        if min(times_s) > _WORTHWHILE_S:
            return None
        stacked = {port.name: np.concatenate([row[port.name] for row in rows]) for port in inputs}
        together = runner.run(BoundInputs(stacked))
    except InferenceRuntimeError:  # it does not take such inputs at all
        return None
    for number, outputs_alone in enumerate(alone):
        for name, value in _row(together, number).items():
            if not _is_close(value, outputs_alone[name]):
                return None
    return Together(inputs, outputs)


def _has_rows(port: Port) -> bool:
    shape = port.shape
    return shape is not None and len(shape) > 1 and shape[0] == -1 and min(shape[1:]) > 0


def _is_one_row(job: Job) -> bool:
    return all(tensor.shape[0] == 1 for tensor in job.layout.tensors)


def _row(outputs: dict[str, Array], row: int) -> dict[str, Array]:
    return {name: array[row : row + 1] for name, array in outputs.items()}


def _is_close(value: Array, expected: Array) -> bool:
    if value.shape != expected.shape:
        return False
    if value.dtype.kind != "f":
        return bool(np.array_equal(value, expected))
    scale = float(np.max(np.abs(expected), initial=0.0))
    return bool(np.allclose(value, expected, rtol=0.0, atol=_TOLERANCE * scale, equal_nan=True))
