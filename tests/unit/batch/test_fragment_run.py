"""One fragment through a model: whatever fails, every row is in the output or in quarantine."""

from __future__ import annotations

import gc
import itertools
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import LocalFileSystem

from atriva_inference.errors import (
    ClosedError,
    InferenceFailedError,
    InputShapeError,
    ModelError,
    OptionError,
)
from atriva_inference.executor import LocalExecutor
from atriva_inference.model import Model
from atriva_inference.ports import Port
from atriva_inference.runtime import InferenceRuntime
from atriva_inference.terms import Priority
from atriva_ray.batch import chunk
from atriva_ray.batch.fragment_run import FragmentWork, RowRun, run_fragment
from atriva_ray.batch.fragments import Fragment, InputFile, Piece
from atriva_ray.batch.outputs import TopK
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sinks import OutputFormat
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.stages import Stage, StageTimes
from atriva_ray.errors import ModelNotLoadedError, ReplicaLostError

PATIENCE_S = 30
IDENTITY = pa.schema([("path", pa.string()), ("row", pa.int64())])


def port(name, shape, dtype="float32", layout=None):
    return Port(name, (name,), np.dtype(dtype), shape, layout)


X = port("x", (-1, -1))
Y = port("y", (-1,))


@dataclass
class Compiled:
    """A model without a library, whose answers are what `infer` returns."""

    infer: Callable[[dict[str, Any]], dict[str, Any]]
    inputs: tuple[Port, ...] = (X,)
    outputs: tuple[Port, ...] = (Y,)
    slot_count: int = 2
    device: str = "CPU"
    execution_devices: tuple[str, ...] = ("CPU",)

    def open_slot(self):
        return Slot(self.infer)


@dataclass
class Slot:
    answer: Callable[[dict[str, Any]], dict[str, Any]]

    def infer(self, arrays, _memory=None):
        return self.answer(arrays)


def doubled(arrays):
    return {"y": arrays["x"][:, 0] * 2}


@dataclass(frozen=True)
class Rows:
    """A source of rows that are there already."""

    rows: Callable[[], Iterator[Row]]
    kept_fields: tuple[tuple[str, pa.DataType], ...] = ()
    kind: str = "rows"
    identity: pa.Schema = IDENTITY

    def kept(self, context):
        assert isinstance(context, ReadContext)
        return pa.schema(self.kept_fields)

    def read(self, fragment, context):
        assert fragment.index == 7
        assert context.ahead >= 2
        return self.rows()


def row_of(number, bad_because=None, kept=None, **inputs):
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    return Row({"path": f"{number}.png", "row": number}, arrays, kept or {}, bad_because)


def x_rows(values):
    return [row_of(index, x=np.float32([value])) for index, value in enumerate(values)]


@dataclass
class Result:
    """What became of a fragment."""

    done: Any
    bad: list[Any]
    counted: int
    folder: Any
    requests: list[Any] = field(default_factory=list)

    @property
    def table(self):
        (name,) = self.done.files
        return pq.read_table(self.folder / name)

    @property
    def numbers(self):
        return self.table["row"].to_pylist()

    @property
    def bad_numbers(self):
        return [each.number for each in self.bad]


FRAGMENT = Fragment(7, (Piece(InputFile("x", 1)),), digest="cafe")


@pytest.fixture
def run(tmp_path):
    """Run rows through a model, and see that they add up."""

    def run_rows(
        rows, infer=doubled, *, inputs=(X,), outputs=(Y,), slots=2, kept=(), model=None, **work
    ):
        requests = []

        def noted(arrays):
            requests.append({name: array.shape for name, array in arrays.items()})
            return infer(arrays)

        own = None
        if model is None:
            compiled = Compiled(noted, tuple(inputs), tuple(outputs), slots)
            model = own = Model("doubler", LocalExecutor("doubler", compiled))
        rows = rows if callable(rows) else list(rows).__iter__
        work = FragmentWork(
            Rows(rows, tuple(kept)),
            str(tmp_path),
            OutputFormat(work.pop("format", "parquet")),
            **work,
        )
        counts = []
        try:
            with ThreadPoolExecutor(1) as pool:
                local = LocalFileSystem()
                done, bad = run_fragment(model, work, FRAGMENT, local, local, pool, counts.append)
        finally:
            if own is not None:
                own.close()
        assert done.rows_in == done.rows_out + done.rows_bad
        assert done.rows_bad == len(bad)
        assert sum(counts) == done.rows_in
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(done.files)
        return Result(done, bad, sum(counts), tmp_path, requests)

    yield run_rows
    assert not [thread for thread in threading.enumerate() if "doubler" in thread.name]


# -- what comes out --------------------------------------------------------------------------


def test_every_row_has_its_answer_and_what_tells_it_from_others(run):
    result = run(x_rows([3, 1, 2]))
    assert result.table.to_pylist() == [
        {"path": "0.png", "row": 0, "y": 6.0},
        {"path": "1.png", "row": 1, "y": 2.0},
        {"path": "2.png", "row": 2, "y": 4.0},
    ]
    assert (result.done.index, result.done.digest) == (7, "cafe")
    assert result.done.files == ("part-000007.parquet",)


@pytest.mark.parametrize("format_", list(OutputFormat))
def test_a_fragment_without_rows_has_its_files_too(run, format_):
    done = run([], format=format_).done
    assert (done.rows_in, done.rows_out, done.rows_bad) == (0, 0, 0)
    assert done.files


@pytest.mark.parametrize("format_", list(OutputFormat))
def test_a_fragment_of_bad_rows_has_its_files_too(run, format_):
    result = run([row_of(index, bad_because="torn") for index in range(3)], format=format_)
    assert (result.done.rows_in, result.done.rows_out, result.done.rows_bad) == (3, 0, 3)
    assert result.bad[1].as_json() == {"path": "1.png", "row": 1, "reason": "torn"}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_rows_stay_in_order_although_answers_do_not(run, batch_size):
    delays = itertools.cycle([0.004, 0.0, 0.002, 0.0])

    def infer(arrays):
        time.sleep(next(delays))
        return doubled(arrays)

    result = run(x_rows(range(40)), infer, slots=4, batch_size=batch_size)
    assert result.numbers == list(range(40))
    assert result.table["y"].to_pylist() == [2 * value for value in range(40)]


@pytest.mark.parametrize("format_", list(OutputFormat))
def test_long_fragments_are_written_in_pieces(run, format_):
    result = run(x_rows(range(9_000)), batch_size=256, format=format_)
    assert result.done.rows_out == 9_000
    match format_:
        case OutputFormat.PARQUET:
            assert result.numbers == list(range(9_000))
            written = pq.ParquetFile(result.folder / result.done.files[0])
            assert written.num_row_groups == 3
        case OutputFormat.JSONL:
            lines = (result.folder / result.done.files[0]).read_text().splitlines()
            assert [json.loads(line)["row"] for line in lines] == list(range(9_000))
        case OutputFormat.NPY:
            y = np.load(result.folder / "part-000007.y.npy", mmap_mode="r")
            assert y.tolist() == [2 * value for value in range(9_000)]


def test_large_answers_are_written_in_small_pieces(run):
    answer = port("y", (-1, 1 << 18))  # 1 MiB
    result = run(
        x_rows(range(20)),
        lambda arrays: {"y": np.repeat(arrays["x"], 1 << 18, axis=1)},
        outputs=[answer],
    )
    written = pq.ParquetFile(result.folder / result.done.files[0])
    assert written.num_row_groups == 3
    tensors = result.table["y"].combine_chunks().to_numpy_ndarray()
    assert tensors[:, 0].tolist() == list(range(20))


def test_what_is_kept_goes_to_the_output(run):
    rows = [
        row_of(0, x=np.float32([1]), kept={"label": "cat", "ids": [1, 2]}),
        row_of(1, bad_because="torn"),
        row_of(2, x=np.float32([2]), kept={"label": None, "ids": []}),
        row_of(3, x=np.float32([3])),
    ]
    result = run(rows, kept=[("label", pa.string()), ("ids", pa.list_(pa.int16()))])
    assert result.table.schema.types[2:4] == [pa.string(), pa.list_(pa.int16())]
    assert result.table.to_pylist() == [
        {"path": "0.png", "row": 0, "label": "cat", "ids": [1, 2], "y": 2.0},
        {"path": "2.png", "row": 2, "label": None, "ids": [], "y": 4.0},
        {"path": "3.png", "row": 3, "label": None, "ids": None, "y": 6.0},
    ]


@pytest.mark.parametrize("format_", list(OutputFormat))
def test_columns_of_one_name_are_told_apart(run, format_):
    outputs = [port(name, (-1,)) for name in ("path", "row", "class", "score", "y")]
    result = run(
        [row_of(0, x=np.float32([1, 5, 3]), kept={"row": "kept", "y": "kept too"})],
        lambda _arrays: {each.name: np.float32([index]) for index, each in enumerate(outputs)},
        outputs=outputs,
        kept=[("row", pa.string()), ("y", pa.string())],
        top_k=TopK(1, "y"),
        format=format_,
    )
    numbers = {"class": 0, "score": 4.0, "path_": 0.0, "row__": 1.0, "class_": 2.0, "score_": 3.0}
    expected = {"path": "0.png", "row": 0, "row_": "kept", "y": "kept too", **numbers}
    if format_ == OutputFormat.PARQUET:
        assert result.table.to_pylist() == [expected]
        return
    line = json.loads((result.folder / result.done.files[-1]).read_text())
    for name in result.done.files[:-1]:
        column = name.removeprefix("part-000007.").removesuffix(".npy")
        line[column] = np.load(result.folder / name)[0]
    assert line == expected


def test_the_best_entries_and_the_other_outputs(run):
    result = run(
        x_rows([0, 1, 2]),
        lambda arrays: {
            "logits": np.eye(3, dtype=np.float32)[arrays["x"][:, 0].astype(int)],
            "count": np.int64([len(arrays["x"])] * len(arrays["x"])),
        },
        outputs=[port("logits", (-1, 3)), port("count", (-1,), "int64")],
        top_k=TopK(2, "logits", ("a", "b", "c")),
        batch_size=3,
    )
    table = result.table.to_pydict()
    assert table["label"] == ["a", "b", "c"]
    assert table["top_labels"] == [["a", "b"], ["b", "a"], ["c", "a"]]
    assert table["count"] == [3, 3, 3]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_outputs_of_any_shape(run, batch_size):
    lengths = [2, 2, 3, 0, 1, 1, 1, 2, 2]

    def infer(arrays):
        count, length = len(arrays["x"]), int(arrays["x"][0, 0])
        return {"y": np.full((count, length), length, np.float32)}

    rows = [row_of(i, x=np.full(n + 1, n, np.float32)) for i, n in enumerate(lengths)]
    result = run(rows, infer, outputs=[port("y", (-1, -1))], batch_size=batch_size)
    assert result.table["y"].to_pylist() == [[n] * n for n in lengths]


def test_texts_in_and_out(run):
    texts = ["ja", "nein", "größer", "犬", "ja"]
    result = run(
        [row_of(index, text=text) for index, text in enumerate(texts)],
        lambda arrays: {"y": np.array([str(text) + "!" for text in arrays["text"]], object)},
        inputs=[port("text", (-1,), "O")],
        outputs=[port("y", (-1,), "O")],
        batch_size=2,
    )
    assert result.table["y"].to_pylist() == [f"{text}!" for text in texts]


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "float16", "float64"])
@pytest.mark.parametrize("format_", list(OutputFormat))
def test_outputs_of_every_type(run, dtype, format_):
    def infer(arrays):
        values = np.arange(6).astype(dtype)
        count = len(arrays["x"])
        return {
            "one": np.repeat(values[1], count),
            "tensor": np.repeat(values.reshape(1, 2, 3), count, axis=0),
            "list": np.repeat(values.reshape(1, 6), count, axis=0),
        }

    outputs = [port("one", (-1,), dtype), port("tensor", (-1, 2, 3), dtype)]
    outputs.append(port("list", (-1, -1), dtype))
    result = run(x_rows(range(3)), infer, outputs=outputs, format=format_, batch_size=2)
    plain = np.arange(6).astype(dtype)
    expected = {
        "one": plain[1].item(),
        "tensor": plain.reshape(2, 3).tolist(),
        "list": plain.tolist(),
    }
    match format_:
        case OutputFormat.PARQUET:
            table = result.table
            tensors = table["tensor"].combine_chunks().storage.to_pylist()
            assert np.reshape(tensors, (3, 2, 3)).tolist() == [expected["tensor"]] * 3
            assert table["one"].to_pylist() == [expected["one"]] * 3
            assert table["list"].to_pylist() == [expected["list"]] * 3
        case OutputFormat.JSONL:
            text = (result.folder / result.done.files[0]).read_text()
            lines = [json.loads(line) for line in text.splitlines()]
            assert lines == [{"path": f"{i}.png", "row": i, **expected} for i in range(3)]
        case OutputFormat.NPY:
            tensors = np.load(result.folder / "part-000007.tensor.npy")
            assert tensors.dtype == dtype
            assert tensors.tolist() == [expected["tensor"]] * 3


# -- models that take one row at a time ------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "answer", "expected"),
    [
        ((), 7.0, 7.0),
        ((1,), [7.0], 7.0),
        ((3,), [1, 2, 3], [1, 2, 3]),
        ((2, 2), [[1, 2], [3, 4]], [1, 2, 3, 4]),
        ((1, 2), [[1, 2]], [1, 2]),
        ((1, -1), [[1, 2]], [1, 2]),
        ((2, -1), [[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]]),
        (None, [1, 2], [1, 2]),
        (None, [[1, 2]], [1, 2]),
        (None, [[1, 2], [3, 4]], [1, 2, 3, 4]),
        (None, 7.0, [7.0]),
    ],
)
def test_answers_with_and_without_a_batch_dimension(run, shape, answer, expected):
    result = run(
        [row_of(index, x=np.float32([1, 2])) for index in range(2)],
        lambda _arrays: {"y": np.float32(answer)},
        inputs=[port("x", (1, 2))],
        outputs=[port("y", shape)],
    )
    column = result.table["y"].combine_chunks()
    read = getattr(column, "storage", column).to_pylist()
    assert read == [expected] * 2


@pytest.mark.parametrize("inputs", [[port("x", (1, 2))], [port("x", (2,))]])
def test_a_model_finds_any_number_of_things_in_a_row(run, inputs):
    """The first dimension is dynamic, but counts boxes: the input is always one row."""
    boxes = itertools.cycle([3, 1, 0, 2])

    def infer(_arrays):
        count = next(boxes)
        return {
            "box": np.arange(2 * count, dtype=np.float32).reshape(count, 2),
            "class": np.arange(count),
        }

    result = run(
        [row_of(index, x=np.float32([1, 2])) for index in range(4)],
        infer,
        inputs=inputs,
        outputs=[port("box", (-1, 2)), port("class", (-1,), "int64")],
        slots=1,
    )
    assert result.table["box"].to_pylist() == [
        [[0, 1], [2, 3], [4, 5]],
        [[0, 1]],
        [],
        [[0, 1], [2, 3]],
    ]
    assert result.table["class"].to_pylist() == [[0, 1, 2], [0], [], [0, 1]]


def test_the_best_of_any_number_of_things(run):
    counts = iter([3, 1, 0])
    result = run(
        [row_of(index, x=np.float32([1])) for index in range(3)],
        lambda _arrays: {"y": np.arange(next(counts), dtype=np.float32)},
        inputs=[port("x", (1, 1))],
        slots=1,
        top_k=TopK(2),
    )
    assert result.table["top_classes"].to_pylist() == [[2, 1], [0], []]
    assert result.table["class"].to_pylist() == [2, 0, None]


@pytest.mark.parametrize(
    ("shape", "sample"),
    [((), 1.0), ((1,), 1.0), ((-1,), 1.0), ((2,), [1, 2]), ((1, 2), [1, 2]), ((-1, 2), [1, 2])],
)
def test_inputs_with_and_without_a_batch_dimension(run, shape, sample):
    result = run(
        [row_of(0, x=np.float32(sample))],
        lambda arrays: {"y": np.float32([arrays["x"].sum()])},
        inputs=[port("x", shape)],
    )
    assert result.table["y"].to_pylist() == [np.sum(sample)]
    assert result.requests == [{"x": tuple(max(dim, 1) for dim in shape)}]


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (-1, 3, 4, 5), (-1, 3, -1, -1)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_pixels_become_planes_where_the_model_wants_them(run, shape, dtype):
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    result = run(
        [row_of(0, x=pixels)],
        lambda arrays: {"y": arrays["x"].astype(np.float32).reshape(1, -1)},
        inputs=[port("x", shape, dtype, "NCHW")],
        outputs=[port("y", (shape[0], 60))],
    )
    (read,) = result.table["y"].combine_chunks().to_numpy_ndarray()
    assert read.reshape(3, 4, 5).tolist() == pixels.transpose(2, 0, 1).tolist()
    assert result.requests == [{"x": (1, 3, 4, 5)}]


def test_planes_stay_planes(run):
    planes = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    result = run(
        [row_of(0, x=planes)],
        lambda arrays: {"y": arrays["x"].reshape(1, -1)},
        inputs=[port("x", (1, 3, 4, 5), layout="NCHW")],
        outputs=[port("y", (1, 60))],
    )
    assert result.table["y"].combine_chunks().to_numpy_ndarray().tolist() == [list(range(60))]


# -- requests --------------------------------------------------------------------------------


def test_rows_travel_together(run):
    result = run(x_rows(range(10)), batch_size=4)
    assert sorted(shapes["x"] for shapes in result.requests) == [(2, 1), (4, 1), (4, 1)]


def test_only_rows_of_one_shape_and_type_travel_together(run):
    widths = [1, 1, 2, 2, 2, 1, 3]
    rows = [row_of(index, x=np.ones(width, np.float32)) for index, width in enumerate(widths)]
    rows += [row_of(7, x=np.ones(3, np.float64)), row_of(8, x=np.ones(3, np.float64))]
    result = run(rows, batch_size=3, slots=1)
    assert [shapes["x"] for shapes in result.requests] == [
        *((2, 1), (3, 2), (1, 1), (1, 3), (2, 3)),
    ]
    assert result.numbers == list(range(9))


def test_all_inputs_must_be_alike_to_travel_together(run):
    a, b = port("a", (-1, -1)), port("b", (-1, -1))
    widths = [(1, 1), (1, 2), (1, 2), (2, 2)]
    rows = [row_of(i, a=np.ones(one), b=np.ones(two)) for i, (one, two) in enumerate(widths)]
    result = run(
        rows,
        lambda arrays: {"y": arrays["a"][:, 0] + arrays["b"][:, 0]},
        inputs=[a, b],
        batch_size=4,
        slots=1,
    )
    assert [shapes["a"] + shapes["b"] for shapes in result.requests] == [
        *((1, 1, 1, 1), (2, 1, 2, 2), (1, 2, 1, 2)),
    ]


class Watched(Model):
    """Knows how many requests are under way."""

    def __init__(self, executor):
        super().__init__("doubler", executor)
        self.changed = threading.Condition()
        self.under_way = 0
        self.most = 0
        self.terms = []

    def submit(self, inputs, staging=None, **terms):
        self.terms.append(terms)
        with self.changed:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.changed.notify_all()
        future = super().submit(inputs, staging, **terms)
        future.add_done_callback(self.settled)
        return future

    def settled(self, _future):
        with self.changed:
            self.under_way -= 1


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_no_more_requests_are_under_way_than_said_and_no_less(run, slots, batch_size):
    gate = threading.Event()
    taken = []

    def rows():
        for row in x_rows(range(100)):
            taken.append(row)
            yield row

    def infer(arrays):
        assert gate.wait(PATIENCE_S)
        if batch_size > 1 and len(arrays["x"]) > 1 and arrays["x"][0, 0] > 30:
            raise InferenceFailedError("doubler", "CPU", "too many")  # each is tried alone then
        return doubled(arrays)

    model = Watched(LocalExecutor("doubler", Compiled(infer, slot_count=slots)))
    with model, ThreadPoolExecutor(1) as thread:
        running = thread.submit(run, rows, model=model, batch_size=batch_size)
        with model.changed:
            assert model.changed.wait_for(lambda: model.under_way >= 4 * slots, PATIENCE_S)
        time.sleep(0.05)
        assert model.under_way == 4 * slots
        assert len(taken) <= (4 * slots + 1) * batch_size
        gate.set()
        result = running.result(PATIENCE_S)
    assert model.most == 4 * slots
    assert result.numbers == list(range(100))
    assert all(terms == {"priority": Priority.LOW} for terms in model.terms)


class Alive:
    """Counts arrays that somebody still has."""

    def __init__(self):
        self.count = self.most = 0

    def add(self, array):
        self.count += 1
        self.most = max(self.most, self.count)
        weakref.finalize(array, self.one_less).atexit = False

    def one_less(self):
        self.count -= 1


@pytest.mark.parametrize("case", ["good", "wrong shape", "torn", "one of several is wrong"])
def test_the_inputs_of_rows_that_are_done_are_not_in_memory(run, case):
    """Not even until somebody collects garbage: they may be large."""
    alive = Alive()

    def rows():
        for index in range(300):
            array = np.zeros(3, np.float32)
            if case == "wrong shape":
                array = array.reshape(1, 3)
            if case == "one of several is wrong" and index % 10 == 0:
                array = array.astype(np.int64).astype(object).astype(str)
            alive.add(array)
            yield row_of(index, "torn" if case == "torn" else None, x=array)
            del array

    gc.collect()
    gc.disable()
    try:
        result = run(rows, batch_size=5, slots=2)
    finally:
        gc.enable()
    expected = {"good": 0, "wrong shape": 300, "torn": 300, "one of several is wrong": 30}
    assert result.done.rows_bad == expected[case]
    assert alive.most <= 5 * (4 * 2 + 2)


def test_rows_in_quarantine_keep_none_of_their_inputs(run):
    alive = Alive()

    def rows():
        for index in range(50):
            array = np.zeros((1, 1), np.float32)
            alive.add(array)
            yield row_of(index, x=array)
            del array

    result = run(rows)
    gc.collect()
    assert len(result.bad) == 50
    assert alive.count == 0


# -- rows that fail --------------------------------------------------------------------------


def test_a_row_of_a_wrong_shape_among_good_ones(run):
    rows = x_rows(range(9))
    rows[4] = row_of(4, x=np.ones((2, 2), np.float32))
    result = run(rows, batch_size=3)
    assert result.bad_numbers == [4]
    assert result.bad[0].identity == {"path": "4.png", "row": 4}
    assert "input 'x' has shape 1×2×2, the model takes ?×?" in result.bad[0].reason
    assert result.numbers == [0, 1, 2, 3, 5, 6, 7, 8]


def test_a_row_that_cannot_be_converted_takes_none_along(run):
    x = port("x", (-1, 1), "uint8")
    rows = [row_of(index, x=np.array([value])) for index, value in enumerate([1, 2, 300, 4, -1, 6])]
    result = run(
        rows,
        lambda arrays: {"y": arrays["x"][:, 0].astype(np.float32)},
        inputs=[x],
        batch_size=6,
        slots=1,
    )
    assert result.bad_numbers == [2, 4]
    assert "300" in result.bad[0].reason
    assert result.numbers == [0, 1, 3, 5]
    assert len(result.requests) == 4  # the six together did not even begin


def test_a_row_without_elements_is_bad(run):
    result = run([*x_rows([1]), row_of(1, x=np.zeros(0, np.float32)), row_of(2, x=np.ones(1))])
    assert result.bad_numbers == [1]
    assert "no elements" in result.bad[0].reason


def failing_on(values, error=None):
    """Fail whenever one of `values` is among the rows."""

    def infer(arrays):
        if set(arrays["x"][:, 0]) & set(values):
            raise error or InferenceFailedError("file", "CPU", "no\nluck  today")
        return doubled(arrays)

    return infer


def test_only_the_guilty_rows_of_a_request_are_bad(run):
    result = run(x_rows(range(12)), failing_on({2, 9, 10}), batch_size=4, slots=1)
    assert result.bad_numbers == [2, 9, 10]
    assert result.bad[0].reason == "'doubler' failed on CPU: no luck today"
    assert result.numbers == [0, 1, 3, 4, 5, 6, 7, 8, 11]
    assert sorted(shapes["x"][0] for shapes in result.requests) == [1] * 8 + [4] * 3


def test_a_row_that_failed_alone_is_not_tried_again(run):
    result = run(x_rows(range(3)), failing_on({1}), batch_size=1)
    assert result.bad_numbers == [1]
    assert len(result.requests) == 3


def test_all_rows_may_be_bad(run):
    result = run(x_rows(range(10)), failing_on(set(range(10))), batch_size=4)
    assert result.bad_numbers == list(range(10))
    assert result.done.rows_out == 0
    assert result.table.num_rows == 0


def test_bad_rows_of_every_kind_come_in_order(run):
    rows = x_rows(range(8))
    rows[1] = row_of(1, bad_because="torn")
    rows[3] = row_of(3, x=np.ones((1, 1)))
    rows[6] = row_of(6, bad_because="torn as well")
    result = run(rows, failing_on({0, 5}), batch_size=8)
    assert result.bad_numbers == [0, 1, 3, 5, 6]
    assert result.numbers == [2, 4, 7]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_rows_whose_replica_was_lost_are_each_tried_once_more_alone(run, batch_size):
    lost = ReplicaLostError("doubler", 3, "killed")
    tries = []

    def infer(arrays):
        values = [int(value) for value in arrays["x"][:, 0]]
        tries.append(values)
        if 5 in values or (2 in values and len(tries) < 4):
            raise lost
        return doubled(arrays)

    result = run(x_rows(range(8)), infer, batch_size=batch_size, slots=1)
    assert 5 in result.bad_numbers
    assert "killed" in result.bad[-1].reason
    assert [values for values in tries if 5 in values][1:] == [[5]]
    assert len([values for values in tries if values == [3]]) == 1
    if batch_size == 4:
        assert result.bad_numbers == [5]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_replica_that_was_lost_by_chance_costs_no_row(run, batch_size):
    losses = iter([True, False] * 20)

    def infer(arrays):
        if next(losses) and len(losses_seen) < 1:
            losses_seen.append(1)
            raise ReplicaLostError("doubler", 3, "killed")
        return doubled(arrays)

    losses_seen = []
    result = run(x_rows(range(9)), infer, batch_size=batch_size, slots=1)
    assert result.bad == []
    assert result.numbers == list(range(9))


@dataclass(frozen=True)
class Fate:
    """What becomes of a row, and what it should be."""

    name: str
    is_bad: bool
    width: int


fates = st.builds(
    lambda name_and_bad, width: Fate(*name_and_bad, width),
    st.sampled_from(
        [
            *[("good", False)] * 4,
            ("torn", True),
            ("wrong rank", True),
            ("text", True),
            ("fails", True),
            ("kills", True),
            ("is there when it dies", False),
        ]
    ),
    st.integers(1, 2),
)


@given(
    st.lists(fates, max_size=25),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from([1, 3, 4096]),
)
def test_rows_always_add_up_and_stay_in_order(all_fates, batch_size, slots, chunk_rows):
    died = set()
    lock = threading.Lock()

    def infer(arrays):
        met = {all_fates[int(value)].name: int(value) for value in arrays["x"][:, 0]}
        if "fails" in met:
            raise InferenceFailedError("file", "CPU", "no luck")
        if "kills" in met:
            raise ReplicaLostError("doubler", 3, "killed")
        number = met.get("is there when it dies")
        with lock:
            is_first = number is not None and number not in died
            died.add(number)
        if is_first:
            raise ReplicaLostError("doubler", 3, "somebody else's fault")
        return doubled(arrays)

    def rows():
        for number, fate in enumerate(all_fates):
            array = np.full(fate.width, number, np.float32)
            if fate.name == "wrong rank":
                array = array[np.newaxis]
            elif fate.name == "text":
                array = array.astype(str)
            yield row_of(number, "torn" if fate.name == "torn" else None, x=array)

    work = FragmentWork(Rows(rows), "", OutputFormat.PARQUET, batch_size)
    bad, counts = [], []
    with (
        Model("doubler", LocalExecutor("doubler", Compiled(infer, slot_count=slots))) as model,
        ThreadPoolExecutor(1) as pool,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(chunk, "_CHUNK_ROWS", chunk_rows)
        ahead = 2 * slots * batch_size
        context = ReadContext(LocalFileSystem(), model.inputs, pool, ahead, StageTimes())
        run = RowRun(model, work, context, bad, counts.append)
        tables = list(run.tables(rows()))
    out = pa.concat_tables([run.schema.empty_table(), *tables])
    expected_bad = [number for number, fate in enumerate(all_fates) if fate.is_bad]
    expected = [number for number, fate in enumerate(all_fates) if not fate.is_bad]
    # A request of several may die once for each row that is there when it does, and each is then
    # tried alone, once: such a row is only safe in a request that has no other of its kind.
    unlucky = {number for number in expected if number not in out["row"].to_pylist()}
    assert all(all_fates[number].name == "is there when it dies" for number in unlucky)
    assert batch_size > 1 or not unlucky
    assert sorted(each.number for each in bad) == sorted({*expected_bad, *unlucky})
    assert out["row"].to_pylist() == [number for number in expected if number not in unlucky]
    assert out["y"].to_pylist() == [2 * number for number in out["row"].to_pylist()]
    assert sum(counts) == run.rows_in == len(all_fates)
    assert all(0 < table.num_rows <= chunk_rows + batch_size for table in tables)


# -- errors that no row is to blame for ------------------------------------------------------


ERRORS = [
    ClosedError("model 'doubler'"),
    ModelNotLoadedError("doubler", ()),
    ModelError("out of memory"),
    RuntimeError("a bug"),
    MemoryError(),
]


@pytest.mark.parametrize("format_", list(OutputFormat))
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_any_other_error_ends_the_fragment_and_leaves_nothing(
    run, tmp_path, monkeypatch, format_, error
):
    monkeypatch.setattr(chunk, "_CHUNK_ROWS", 4)
    with pytest.raises(type(error)) as caught:
        run(x_rows(range(50)), failing_on({30}, error), format=format_, batch_size=2)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_closed_meanwhile_ends_the_fragment(run, tmp_path):
    model = Model("doubler", LocalExecutor("doubler", Compiled(doubled)))

    def rows():
        yield from x_rows(range(10))
        model.close()
        yield from x_rows(range(10))

    with pytest.raises(ClosedError):
        run(rows, model=model)
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_a_row_is_tried_alone_ends_the_fragment(run, tmp_path):
    def infer(arrays):
        if len(arrays["x"]) > 1:
            raise InferenceFailedError("file", "CPU", "no luck")
        raise ClosedError("model 'doubler'")

    with pytest.raises(ClosedError):
        run(x_rows(range(4)), infer, batch_size=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", list(OutputFormat))
def test_a_source_that_fails_ends_the_fragment(run, tmp_path, monkeypatch, format_):
    monkeypatch.setattr(chunk, "_CHUNK_ROWS", 4)

    def rows():
        yield from x_rows(range(20))
        raise OSError("connection lost")

    with pytest.raises(OSError, match="connection lost"):
        run(rows, format=format_)
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_gone_ends_the_fragment(run, tmp_path):
    def rows():
        for path in tmp_path.iterdir():
            path.unlink()
        tmp_path.rmdir()
        yield from x_rows([1])

    with pytest.raises(OSError, match="part-000007"):
        run(rows)


def test_requests_that_wait_are_not_run_after_an_error(run):
    gate, entered = threading.Event(), []

    def infer(arrays):
        entered.append(float(arrays["x"][0, 0]))
        assert gate.wait(PATIENCE_S)
        return doubled(arrays)

    def rows():
        yield from x_rows(range(4))  # the last one is not sent before another one is read
        while len(entered) < 2:
            time.sleep(0.001)
        raise OSError("connection lost")

    model = Model("doubler", LocalExecutor("doubler", Compiled(infer, slot_count=2)))
    with pytest.raises(OSError, match="connection lost"):
        run(rows, model=model)
    gate.set()
    model.submit({"x": np.float32([[9]])}).result(PATIENCE_S)  # what waits comes before
    model.close()
    assert sorted(entered) == [0, 1, 9]


def test_a_model_that_mixes_rows_is_found_out(run, tmp_path):
    with pytest.raises(InferenceFailedError, match=r"4 rows .* shape \(1,\).*batch size of 1"):
        run(x_rows(range(8)), lambda _arrays: {"y": np.float32([1])}, batch_size=4)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_gives_several_samples_for_one_row_is_found_out(run, tmp_path):
    with pytest.raises(InferenceFailedError, match=r"shape \(3,\).*one row at a time"):
        run(x_rows(range(8)), lambda _arrays: {"y": np.float32([1, 2, 3])})
    assert list(tmp_path.iterdir()) == []


def test_a_choice_of_entries_that_does_not_fit_is_told_before_anything_is_read(run, tmp_path):
    def rows():
        raise AssertionError("nothing is to be read")
        yield

    with pytest.raises(OptionError, match="1 to 1"):
        run(rows, top_k=TopK(3))
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_input_even_if_the_model_has_several(run):
    result = run(
        [row_of(0, a=np.ones(1), b=np.ones(1)), row_of(1, a=np.ones(1), b=np.ones((1, 1)))],
        lambda arrays: {"y": arrays["a"][:, 0]},
        inputs=[port("a", (-1, -1)), port("b", (-1, -1))],
        batch_size=2,
    )
    assert result.bad_numbers == [1]
    with pytest.raises(InputShapeError) as caught:
        raise InputShapeError("b", (1, 1, 1), (-1, -1), "pass an array of rank 2")
    assert result.bad[0].reason == str(caught.value)


# -- where the time goes ---------------------------------------------------------------------


def test_stages_are_told(run):
    def rows():
        for row in x_rows(range(5)):
            time.sleep(0.01)
            yield row

    def infer(arrays):
        time.sleep(0.04)
        return doubled(arrays)

    seconds = run(rows, infer, slots=1).done.seconds
    assert set(seconds) == {str(stage) for stage in Stage}
    assert seconds["wait"] >= 0.05
    assert seconds["infer"] >= 0.04  # at least the last request begins after everything else
    assert seconds["write"] > 0
    assert seconds["read"] == seconds["decode"] == 0


def test_what_the_source_counts_is_not_counted_as_waiting(tmp_path):
    @dataclass(frozen=True)
    class Slow(Rows):
        def read(self, _fragment, context):
            for row in self.rows():
                with context.times.during(Stage.READ):
                    time.sleep(0.01)
                    with context.times.during(Stage.DECODE):
                        time.sleep(0.02)
                yield row

    local = LocalFileSystem()
    work = FragmentWork(Slow(lambda: iter(x_rows(range(5)))), str(tmp_path), OutputFormat.PARQUET)
    with (
        Model("doubler", LocalExecutor("doubler", Compiled(doubled))) as model,
        ThreadPoolExecutor(1) as pool,
    ):
        done, _ = run_fragment(model, work, FRAGMENT, local, local, pool)
    assert done.seconds["read"] >= 0.05
    assert done.seconds["decode"] >= 0.1
    assert done.seconds["wait"] < 0.1


# -- real models -----------------------------------------------------------------------------


@pytest.fixture(params=["openvino", "onnxruntime"])
def load(request, models):
    with InferenceRuntime(request.param) as runtime:
        yield lambda name: runtime.load_model(models / f"onnx/{name}.onnx", device="CPU")


@pytest.mark.parametrize("batch_size", [1, 3])
def test_pictures_of_mixed_sizes_through_a_real_model(run, load, batch_size):
    model = load("dynamic")
    generator = np.random.default_rng(0)
    sizes = [(8, 8), (8, 8), (9, 7), (9, 7), (9, 7), (9, 7), (8, 8)]
    pictures = [generator.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    rows = [row_of(index, input=picture) for index, picture in enumerate(pictures)]
    rows.insert(3, row_of(99, input=np.zeros((8, 8), np.uint8)))
    result = run(rows, model=model, batch_size=batch_size)
    assert result.bad_numbers == [3]
    answers = result.table["output"].combine_chunks().to_numpy_ndarray()
    for picture, answer in zip(pictures, answers, strict=True):
        planes = picture.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
        np.testing.assert_allclose(
            answer, model.run({"input": planes})["output"].to_numpy()[0], rtol=1e-3
        )


def test_several_inputs_and_outputs_of_a_real_model(run, load):
    model = load("multi")
    rows = [
        row_of(index, a=np.full(4, index, np.float32), b=np.full(4, 2 * index, np.int64))
        for index in range(10)
    ]
    rows[4].inputs["a"] = np.ones(5, np.float32)
    result = run(rows, model=model, batch_size=4)
    assert result.bad_numbers == [4]
    sums = result.table["sum"].combine_chunks().to_numpy_ndarray()
    good = [index for index in range(10) if index != 4]
    for index, total, number in zip(good, sums, result.table["count"].to_pylist(), strict=True):
        answer = model.run({name: value[np.newaxis] for name, value in rows[index].inputs.items()})
        assert np.array_equal(total, answer["sum"].to_numpy()[0])
        assert number == answer["count"].to_numpy()[0]


def test_half_precision_of_a_real_model(run, load):
    model = load("half")
    rows = [row_of(index, input=np.full(4, index, np.float16)) for index in range(5)]
    result = run(rows, model=model, batch_size=2, format="npy")
    answers = np.load(result.folder / "part-000007.output.npy", mmap_mode="r")
    assert answers.dtype == np.float16
    expected = [model.run({"input": row.inputs["input"][np.newaxis]})["output"] for row in rows]
    assert np.array_equal(answers, np.concatenate([each.to_numpy() for each in expected]))
