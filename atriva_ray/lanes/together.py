"""Requests that wait together run together, as many as the device was seen to do best with."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from atriva_inference.binding import BoundInputs, Staging
from atriva_inference.errors import InferenceRuntimeError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.lanes.fair_queue import FairQueue
from atriva_ray.lanes.layout import Layout
from atriva_ray.lanes.runner import Runner, run_one
from atriva_ray.lanes.server_lane import INLINE_BYTES, Job, Result, ServerLane
from atriva_ray.routing.batching import BatchingReport, BatchLearner, ShapeReport
from atriva_ray.routing.patience import Patience, Wait
from atriva_ray.rows_apart import are_rows_apart, has_rows, is_number, trial_rows

__all__ = ["Together", "find_together"]

_MAX_ROWS = 32
_MAX_BATCH_BYTES = 64 * 2**20
_MAX_SHAPES = 16
"""Shapes of which it is known how many rows are best; the one used least recently is forgotten."""

_MAX_LAYOUTS = 4096
_MAX_ALONE_S = 50e-3
"""A model that takes longer than this over one row is not tried: that would hold up whoever loads
it, and such a model keeps a device busy with one row."""

_TRIES = 2

_Shape = tuple[tuple[str, tuple[int, ...]], ...]


class _Trial(Enum):
    """What is known of the model's rows."""

    TO_DO = auto()
    UNDER_WAY = auto()
    ARE_APART = auto()
    MIX = auto()


@dataclass(slots=True, eq=False)
class _Group:
    """Requests whose rows have the same shape, and may run together."""

    shape: _Shape
    learner: BatchLearner


_Place = tuple[int, _Group | None]
"""Rows of a request, and with which it may run; (0, None) for one that always runs alone."""

_ALONE: _Place = (0, None)


class Together:
    """Decides which requests run as one, and runs them. Only `run` may be called without a lock."""

    def __init__(
        self,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        slot_count: int | None = None,
        *,
        is_tried: bool = True,
    ) -> None:
        """Know nothing of the device yet.

        Args:
            inputs: what the model takes.
            outputs: what it gives.
            slot_count: how many batches run at once; None for as many as there are threads.
            is_tried: whether rows were seen to come out in company as they do alone; otherwise
                that is tried with the shape of the first requests that could run together.
        """
        self.slot_count = slot_count
        self.wanted = 1
        """Requests that should wait together, so that the device is used best."""
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._trial = _Trial.ARE_APART if is_tried else _Trial.TO_DO
        self._groups: OrderedDict[_Shape, _Group] = OrderedDict()
        self._places: dict[Layout, _Place] = {}
        self._patience = Patience(slot_count or 1)
        self._failures: list[tuple[_Group, int]] = []
        self._threads = threading.local()

    # -- which ---------------------------------------------------------------------------------

    def take(self, queue: FairQueue[ServerLane, Job]) -> list[Job]:
        """Remove and return the next request and those that are to run with it."""
        first = queue.take()
        if not len(queue):
            return [first]
        rows, group = self._place(first)
        if group is None or self._trial in (_Trial.UNDER_WAY, _Trial.MIX):
            return [first]
        limit = group.learner.limit((1 + len(queue)) * rows)
        if limit > rows and first.deadline_s is not None:
            limit = self._in_time(group, limit, first.deadline_s - time.monotonic())
        if limit <= rows:
            return [first]

        def weigh(job: Job) -> int:
            if job.layout is first.layout and _is_usual(job):
                return rows
            its_rows, its_group = self._place(job)
            return its_rows if its_group is group else 0

        jobs = [first, *queue.fill(limit - rows, weigh)]
        if len(jobs) > 1 and self._trial is _Trial.TO_DO:
            self._trial = _Trial.UNDER_WAY
        return jobs

    def plan_wait(self, queue: FairQueue[ServerLane, Job]) -> Wait | None:
        """Return how long to wait for more than there is, None for not at all."""
        rows, group = self._place(next(iter(queue)))
        if group is None or self._trial is not _Trial.ARE_APART:
            return None
        now_s = time.monotonic()
        room_s = self._room_s(queue, group, now_s)
        return self._patience.plan(len(queue), rows, group.learner, room_s, now_s)

    def left_s(self, wait: Wait, queue: FairQueue[ServerLane, Job]) -> float:
        """Return how much longer to wait; 0 if enough are there, or some have gone."""
        now_s = time.monotonic()
        wait.saw(len(queue), now_s)
        if not wait.waiting <= len(queue) < wait.enough:
            return 0.0
        left_s = wait.until_s - now_s
        _, group = self._place(next(iter(queue)))
        return left_s if group is None else min(left_s, self._room_s(queue, group, now_s))

    def waited(self, wait: Wait) -> None:
        """Take in who came during a wait."""
        self._patience.waited(wait, time.monotonic())

    def _room_s(self, queue: FairQueue[ServerLane, Job], group: _Group, now_s: float) -> float:
        """Return how long those that wait may go on with it and still be answered in time."""
        deadline_s = min(
            (job.deadline_s for job in queue if job.deadline_s is not None), default=None
        )
        if deadline_s is None:
            return float("inf")
        return deadline_s - now_s - (group.learner.expected_s(group.learner.wanted_rows) or 0.0)

    def _in_time(self, group: _Group, limit: int, left_s: float) -> int:
        """Return how many rows may run together so that it is over in time, if any are."""
        while limit > 1 and (group.learner.expected_s(limit) or 0.0) > left_s:
            limit //= 2
        return limit

    def _place(self, job: Job) -> _Place:
        if not _is_usual(job):
            return _ALONE
        place = self._places.get(job.layout)
        if place is None:
            if len(self._places) >= _MAX_LAYOUTS:
                self._places.clear()
            place = self._places[job.layout] = self._new_place(job.layout)
        return place

    def _new_place(self, layout: Layout) -> _Place:
        tensors = layout.tensors
        counts = {tensor.shape[0] if tensor.shape else 0 for tensor in tensors}
        rows = counts.pop() if len(counts) == 1 else 0
        most = min(_MAX_ROWS, _MAX_BATCH_BYTES * rows // max(1, layout.nbytes))
        if not 0 < rows <= most // 2:
            return _ALONE
        shape = tuple((tensor.dtype.str, tensor.shape[1:]) for tensor in tensors)
        group = self._groups.get(shape)
        if group is None:
            group = _Group(shape, BatchLearner(1 << (most.bit_length() - 1)))
            self._groups[shape] = group
            if len(self._groups) > _MAX_SHAPES:
                self._groups.popitem(last=False)
                self._places.clear()
        self._groups.move_to_end(shape)
        return rows, group

    # -- running -------------------------------------------------------------------------------

    def run(self, runner: Runner, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs that are alike; each gets its share of the service time.

        If they fail together, each is run by itself, so that only those fail that have to.
        """
        if self._trial is _Trial.UNDER_WAY and not self._try_rows(runner, jobs[0]):
            return [run_one(runner, job) for job in jobs]
        started_s = time.monotonic()
        rows = [job.layout.tensors[0].shape[0] for job in jobs]
        count = sum(rows)
        try:
            outputs = runner.run(BoundInputs(self._stacked(jobs, count)))
        except Exception:  # noqa: BLE001 - whose fault it is shows when each runs by itself
            return self._one_by_one(runner, jobs, count)
        if any(array.shape[:1] != (count,) for array in outputs.values()):
            return self._one_by_one(runner, jobs, count)
        share_s = (time.monotonic() - started_s) / count
        results = []
        end = 0
        for job, its_rows in zip(jobs, rows, strict=True):
            begin, end = end, end + its_rows
            its_outputs = {name: array[begin:end] for name, array in outputs.items()}
            results.append(Result(job, its_outputs, None, share_s * its_rows))
        return results

    def ran(self, jobs: Sequence[Job], service_time_s: float) -> None:
        """Take in how long jobs took that ran as one, or the one that ran alone.

        Args:
            jobs: those that were taken together.
            service_time_s: from when they were taken until their answers were sent.
        """
        while self._failures:
            failing, count = self._failures.pop()
            failing.learner.failed(count)
        each, group = self._place(jobs[0])
        now_s = time.monotonic()
        self._patience.ran(service_time_s, now_s)
        if group is None:
            return
        rows = each if len(jobs) == 1 else sum(self._place(job)[0] for job in jobs)
        group.learner.ran(rows, service_time_s, now_s)
        self.wanted = max(1, group.learner.wanted_rows // each)

    def report(self) -> BatchingReport:
        """Return what was learned so far."""
        return BatchingReport(
            shapes=tuple(
                ShapeReport(
                    row_shapes=tuple(shape for _, shape in group.shape),
                    best_rows=group.learner.best_rows,
                    sizes=group.learner.report(),
                )
                for group in self._groups.values()
            ),
            is_mixing=self._trial is _Trial.MIX,
            wait_count=self._patience.wait_count,
            waited_s=self._patience.waited_s,
            busy_share=self._patience.busy_share,
        )

    def _stacked(self, jobs: Sequence[Job], count: int) -> dict[str, Array]:
        """Copy inputs one behind the other; large ones into memory that is used again."""
        names = [port.name for port in self._inputs]
        if len(jobs) * jobs[0].layout.nbytes <= INLINE_BYTES:
            return {
                name: np.concatenate([job.bound.arrays[name] for job in jobs]) for name in names
            }
        staging: Staging | None = self._threads.__dict__.get("staging")
        if staging is None:  # new memory for every batch would cost more than the copy
            staging = self._threads.staging = Staging()
        stacked = {}
        for name in names:
            arrays = [job.bound.arrays[name] for job in jobs]
            first = arrays[0]
            memory = staging.allocate(name, (count, *first.shape[1:]), first.dtype)
            stacked[name] = np.concatenate(arrays, out=memory)
        return stacked

    def _one_by_one(self, runner: Runner, jobs: Sequence[Job], count: int) -> list[Result]:
        results = [run_one(runner, job) for job in jobs]
        group = self._places.get(jobs[0].layout, _ALONE)[1]
        if group is not None and all(result.error is None for result in results):
            self._failures.append((group, count))  # it was none of them: it is their number
        return results

    def _try_rows(self, runner: Runner, job: Job) -> bool:
        """Try whether rows of a request's shape come out in company as they do alone."""
        shapes = [tensor.shape[1:] for tensor in job.layout.tensors]
        inputs = [
            Port(port.name, port.names, port.dtype, (-1, *shape))
            for port, shape in zip(self._inputs, shapes, strict=True)
        ]
        are_apart = _are_apart(runner, trial_rows(inputs, ()))
        self._trial = _Trial.ARE_APART if are_apart else _Trial.MIX
        return are_apart


def _is_usual(job: Job) -> bool:
    """Whether it may run on any slot, and on the model as it was loaded."""
    return job.bound.signature is None and not job.session


def find_together(
    runner: Runner,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    slot_count: int | None = None,
) -> Together | None:
    """Return how to run requests together, None if that would not pay or could be wrong.

    Not to be asked for a model that remembers: what it does with a row is not all in its answer.

    A leading dimension that is dynamic in every input and output may be a batch, but also a
    sequence, so the model is tried: rows must come out in company as they do alone. A model with
    other dynamic dimensions is tried when the first requests could run together, with their shape.

    Args:
        runner: runs requests.
        inputs: what the model takes.
        outputs: what it gives.
        slot_count: how many requests it runs at once; None for as many as there are threads.
    """
    if not all(map(has_rows, (*inputs, *outputs))) or not all(map(is_number, inputs)):
        return None
    rows = trial_rows(inputs, outputs)
    if rows is None:
        return Together(inputs, outputs, slot_count, is_tried=False)
    if not _are_apart(runner, rows):
        return None
    return Together(inputs, outputs, slot_count)


def _are_apart(runner: Runner, rows: list[dict[str, Array]] | None) -> bool:
    """Whether a model was seen to treat rows by themselves, in a time that is worth the trial."""
    if rows is None:
        return False

    def run(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return runner.run(BoundInputs(arrays))

    try:
        run(rows[0])  # the first run prepares what later ones use
        if not any(_is_fast(run, rows[0]) for _ in range(_TRIES)):
            return False
    except InferenceRuntimeError:  # it does not take such inputs at all
        return False
    return are_rows_apart(run, rows)


def _is_fast(run: Callable[[Mapping[str, Array]], object], row: Mapping[str, Array]) -> bool:
    started_s = time.monotonic()
    run(row)
    return time.monotonic() - started_s <= _MAX_ALONE_S
