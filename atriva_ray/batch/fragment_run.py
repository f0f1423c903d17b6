"""One fragment through a model: rows to requests, answers to the output, nothing lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSystem

from atriva_inference.errors import InferenceFailedError, InferenceRuntimeError, InputError
from atriva_inference.model import Model
from atriva_inference.ports import Port, batch_axis
from atriva_inference.tensor import Array, Tensor
from atriva_inference.terms import Priority
from atriva_ray.batch.chunk import Chunk, joined_schema
from atriva_ray.batch.fragments import Fragment
from atriva_ray.batch.manifest import FragmentDone
from atriva_ray.batch.outputs import OutputColumns, TopK, answer_ports
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sinks import OutputFormat, open_sink
from atriva_ray.batch.sources.base import ReadContext, Source
from atriva_ray.batch.stages import Stage, StageTimes
from atriva_ray.errors import ReplicaLostError

__all__ = ["FragmentWork", "Quarantined", "RowRun", "run_fragment"]


_BLAMES_ROW = (InputError, InferenceFailedError, ReplicaLostError)
"""Errors that one row may be the reason of; any other one is the fragment's."""


@dataclass(frozen=True, slots=True)
class FragmentWork:
    """What the fragments of a job have in common; it travels to the feeders.

    Attributes:
        source: the kind of input.
        folder: where the output goes, as its filesystem names it.
        format: what it is written as.
        batch_size: rows per request.
        top_k: what to write instead of all of an output.
        fit: how a picture gets to the model's size.
        columns: which column feeds which input.
        keep: columns that go to the output as they are.
    """

    source: Source
    folder: str
    format: OutputFormat
    batch_size: int = 1
    top_k: TopK | None = None
    fit: str = "stretch"
    columns: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that could not be used.

    Attributes:
        number: its place in the fragment.
        identity: what tells it from other rows.
        reason: why.
    """

    number: int
    identity: Mapping[str, str | int]
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return it as it is written."""
        return {**self.identity, "reason": self.reason}


@dataclass(slots=True)
class _Numbered:
    number: int
    row: Row


_Blame: TypeAlias = Callable[[_Numbered, BaseException], None]


def run_fragment(
    model: Model,
    work: FragmentWork,
    fragment: Fragment,
    read_from: FileSystem,
    write_to: FileSystem,
    pool: Executor,
    on_rows: Callable[[int], None] = lambda _count: None,
) -> tuple[FragmentDone, list[Quarantined]]:
    """Read, run and write one fragment; its output is in place when this returns.

    Memory is bounded, whatever the fragment's size: four times `Model.parallelism` requests are
    under way, as many rows are read ahead, and the output is written every 4,096 rows or 8 MiB.

    Args:
        model: what to run.
        work: how.
        fragment: which rows.
        read_from: filesystem of the input.
        write_to: filesystem of the output.
        pool: threads that decode.
        on_rows: called with a number of rows whenever that many more are done.

    Returns:
        Counts, and the rows that could not be used. The caller notes them in the manifest.

    Raises:
        InferenceRuntimeError: what no row is to blame for, the model being unloaded for example.
        OSError: the output could not be written.
    """
    times = StageTimes()
    limit = max(2, 4 * model.parallelism)
    context = ReadContext(
        filesystem=read_from,
        ports=model.inputs,
        pool=pool,
        ahead=limit * work.batch_size,
        times=times,
        fit=work.fit,
        columns=work.columns,
        keep=work.keep,
    )
    bad: list[Quarantined] = []
    run = RowRun(model, work, context, bad, on_rows)
    rows_out = 0
    with open_sink(work.format, write_to, work.folder, fragment.index, run.schema) as sink:
        for table in run.tables(work.source.read(fragment, context)):
            with times.during(Stage.WRITE):
                sink.write(table)
            rows_out += table.num_rows
        names = sink.names
    bad.sort(key=lambda each: each.number)
    done = FragmentDone(
        fragment.index,
        run.rows_in,
        rows_out,
        len(bad),
        names,
        fragment.digest,
        times.seconds(),
    )
    return done, bad


class RowRun:
    """Makes the output of rows, a table at a time.

    Attributes:
        schema: columns of the tables: identity, what is kept, what the model gives.
        rows_in: rows that were read so far.
    """

    def __init__(
        self,
        model: Model,
        work: FragmentWork,
        context: ReadContext,
        bad: list[Quarantined],
        on_rows: Callable[[int], None],
    ) -> None:
        self._model = model
        self._work = work
        self._times = context.times
        self._limit = max(2, context.ahead // work.batch_size)
        self._bad = bad
        self._on_rows = on_rows
        self._columns = OutputColumns(answer_ports(model.inputs, model.outputs), work.top_k)
        self._identity = work.source.identity
        self._kept = work.source.kept(context)
        self.schema = joined_schema(self._identity, self._kept, self._columns.schema)
        self.rows_in = 0

    def tables(self, rows: Iterable[Row]) -> Iterator[pa.Table]:
        """Run rows and yield their answers, in order; raises what `run_fragment` raises."""
        chunk = Chunk(self._columns, self._identity, self._kept)
        groups = _groups(self._sorted_out(rows), self._work.batch_size)
        for group, answer in _answered(self._model, groups, self._limit, self._blame, self._times):
            chunk.add((each.row for each in group), answer)
            self._on_rows(len(group))
            if chunk.is_full:
                yield chunk.table(self.schema)
        if chunk.row_count:
            yield chunk.table(self.schema)

    def _sorted_out(self, rows: Iterable[Row]) -> Iterator[_Numbered]:
        for row in _timed(rows, self._times):
            number, self.rows_in = self.rows_in, self.rows_in + 1
            if row.bad_because is None:
                yield _Numbered(number, row)
            else:
                self._set_aside(number, row, row.bad_because)

    def _blame(self, each: _Numbered, error: BaseException) -> None:
        self._set_aside(each.number, each.row, " ".join(str(error).split()))

    def _set_aside(self, number: int, row: Row, reason: str) -> None:
        self._bad.append(Quarantined(number, row.identity, reason))
        self._on_rows(1)


def _timed(rows: Iterable[Row], times: StageTimes) -> Iterator[Row]:
    iterator = iter(rows)
    while True:
        with times.during(Stage.WAIT):
            row = next(iterator, None)
        if row is None:
            return
        yield row


def _groups(rows: Iterable[_Numbered], size: int) -> Iterator[list[_Numbered]]:
    """Put rows of equal shapes together, at most `size`, in order."""
    group: list[_Numbered] = []
    for each in rows:
        if group and (len(group) >= size or not _are_alike(group[0].row, each.row)):
            yield group
            group = []
        group.append(each)
    if group:
        yield group


def _are_alike(one: Row, other: Row) -> bool:
    return all(
        name in other.inputs
        and array.shape == other.inputs[name].shape
        and array.dtype == other.inputs[name].dtype
        for name, array in one.inputs.items()
    )


def _answered(
    model: Model,
    groups: Iterable[list[_Numbered]],
    limit: int,
    blame: _Blame,
    times: StageTimes,
) -> Iterator[tuple[list[_Numbered], dict[str, Array]]]:
    """Yield groups with their answers, in order; `blame` gets rows that fail, each on its own."""
    waiting: deque[tuple[list[_Numbered], Future[dict[str, Tensor]]]] = deque()

    def next_answer() -> Iterator[tuple[list[_Numbered], dict[str, Array]]]:
        group, future = waiting.popleft()
        with times.during(Stage.INFER):
            error = future.exception()
        if error is None:
            answer = _checked(model, future.result(), len(group))
            yield group, answer
        elif not isinstance(error, _BLAMES_ROW):
            raise error
        elif len(group) == 1 and not isinstance(error, ReplicaLostError):
            blame(group[0], error)
        else:  # which row is to blame, or was it none of them?
            for each in group:
                yield from _alone(model, each, blame, times)

    try:
        for group in groups:
            waiting.append((group, _submitted(model, group)))
            if len(waiting) >= limit:
                yield from next_answer()
        while waiting:
            yield from next_answer()
    finally:
        for _, future in waiting:
            future.cancel()


def _alone(
    model: Model, each: _Numbered, blame: _Blame, times: StageTimes
) -> Iterator[tuple[list[_Numbered], dict[str, Array]]]:
    with times.during(Stage.INFER):
        try:
            outputs = _submitted(model, [each]).result()
        except _BLAMES_ROW as error:
            blame(each, error)
            return
    yield [each], _checked(model, outputs, 1)


def _submitted(model: Model, group: Sequence[_Numbered]) -> Future[dict[str, Tensor]]:
    """Send a request; what is wrong with its inputs comes back through the future as well."""
    try:
        return model.submit(
            {port.name: _batched(port, [each.row for each in group]) for port in model.inputs},
            priority=Priority.LOW,  # whoever waits for one answer goes first
        )
    except InferenceRuntimeError as error:
        refused: Future[dict[str, Tensor]] = Future()
        # A traceback would keep the rows in memory until somebody collects garbage.
        refused.set_exception(error.with_traceback(None))
        return refused


def _batched(port: Port, rows: Sequence[Row]) -> Tensor:
    """Return rows as one array with the batch dimension in front, without a copy if it is one."""
    samples = [row.inputs[port.name] for row in rows]
    rank = None if port.shape is None else len(port.shape)
    if len(samples) == 1:
        sample = samples[0]
        # A port without a batch dimension takes the sample as it is.
        array = sample if sample.ndim == rank and not batch_axis(port) else sample[np.newaxis]
    else:
        array = np.stack(samples)
    is_transposed = port.layout == "NCHW" and array.ndim == rank and not port.accepts(array.shape)
    return Tensor(array, "NHWC" if is_transposed else None)


def _checked(model: Model, outputs: Mapping[str, Tensor], count: int) -> dict[str, Array]:
    """Return arrays with one sample per row along the first axis.

    Raises:
        InferenceFailedError: the model gave another number of samples than it was given.
    """
    arrays: dict[str, Array] = {}
    for port in answer_ports(model.inputs, model.outputs):
        array = outputs[port.name].to_numpy()
        # An output of any rank may have the dimension or not.
        if port.shape is None:
            is_sample = count == 1 and array.shape[:1] != (1,)
        else:
            is_sample = array.ndim < len(port.shape)
        if is_sample:
            array = array[np.newaxis]
        if array.shape[:1] != (count,):
            mend = "use a batch size of 1" if count > 1 else "export it for one row at a time"
            raise InferenceFailedError(
                model.name,
                ",".join(model.execution_devices),
                f"{count} rows in one request gave {port.name!r} of shape {array.shape}; "
                f"the model does not keep rows apart: {mend}",
            )
        arrays[port.name] = array
    return arrays
