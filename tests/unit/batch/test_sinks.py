"""Fragments as files: what is written is what is read back, and a failure leaves nothing."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.fs import FileSelector, FSSpecHandler, LocalFileSystem, PyFileSystem

from atriva_inference.errors import OptionError
from atriva_ray.batch.sinks import OutputFormat, open_sink, part_name

FORMATS = list(OutputFormat)


class Folder:
    """An output folder, on this machine or in memory."""

    def __init__(self, filesystem, path):
        self.filesystem = filesystem
        self.path = path
        filesystem.create_dir(path)

    def names(self):
        infos = self.filesystem.get_file_info(FileSelector(self.path))
        return sorted(info.base_name for info in infos)

    def read(self, name):
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            return stream.read()

    def lines(self, name):
        def refuse(constant):
            raise ValueError(f"{constant} is no JSON")

        text = self.read(name).decode()
        assert text == "" or text.endswith("\n")
        return [json.loads(line, parse_constant=refuse) for line in text.split("\n")[:-1]]

    def array(self, column, mmap_mode=None):
        path = f"{self.path}/part-000007.{column}.npy"
        if mmap_mode is not None:
            return np.load(path, mmap_mode)
        with self.filesystem.open_input_file(path) as file:
            return np.load(file)

    def write(self, format_, schema, *tables, index=7):
        return self.write_all(format_, schema, tables, index)

    def write_all(self, format_, schema, tables, index=7):
        with open_sink(format_, self.filesystem, self.path, index, schema) as sink:
            for table in tables:
                sink.write(table)
        return sink.names


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    if request.param == "local":
        return Folder(LocalFileSystem(), str(tmp_path / "out"))
    memory = fsspec.filesystem("memory")
    return Folder(PyFileSystem(FSSpecHandler(memory)), f"/{uuid.uuid4().hex}/out")


@pytest.fixture
def local(tmp_path):
    return Folder(LocalFileSystem(), str(tmp_path / "local"))


def tensor_column(array):
    array = np.asarray(array)
    type_ = pa.fixed_shape_tensor(pa.from_numpy_dtype(array.dtype), array.shape[1:])
    size = int(np.prod(array.shape[1:]))
    flat = pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), size)
    return pa.ExtensionArray.from_storage(type_, flat)


def table_of(**columns):
    return pa.table(columns)


def rows(count, start=0):
    return table_of(
        path=pa.array([f"picture {index}.png" for index in range(start, start + count)]),
        score=pa.array(np.arange(start, start + count), pa.float32()),
        box=tensor_column(np.arange(4 * start, 4 * (start + count)).reshape(count, 2, 2)),
    )


SCHEMA = rows(1).schema


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "folder_name", "expected"),
    [
        (None, "out", "parquet"),
        (None, "out.parquet", "parquet"),
        (None, "out.jsonl", "jsonl"),
        (None, "out.JSONL/", "jsonl"),
        (None, "/data.v1/out.npy", "npy"),
        (None, "s3://bucket/out.npy", "npy"),
        (None, "out.csv", "parquet"),
        (None, "/data.npy/out", "parquet"),
        (None, "npy", "parquet"),
        (None, "/data/npy", "parquet"),
        (None, ".", "parquet"),
        (None, "/", "parquet"),
        ("NPY", "out.jsonl", "npy"),
        ("Parquet", "out", "parquet"),
    ],
)
def test_the_format_is_what_was_asked_for_or_what_the_folder_is_called(text, folder_name, expected):
    assert OutputFormat.parse(text, folder_name) == expected


@pytest.mark.parametrize("text", ["csv", "", "npz"])
def test_a_format_that_there_is_not(text):
    with pytest.raises(OptionError, match="one of parquet, jsonl, npy"):
        OutputFormat.parse(text, "out.npy")


@given(st.lists(st.integers(0, 999_999), min_size=2, max_size=5))
def test_names_sort_as_fragments_do(indexes):
    names = [part_name(index, "parquet") for index in sorted(indexes)]
    assert sorted(names) == names


@pytest.mark.parametrize(
    ("format_", "names"),
    [
        ("parquet", ["part-000007.parquet"]),
        ("jsonl", ["part-000007.jsonl"]),
        ("npy", ["part-000007.score.npy", "part-000007.box.npy", "part-000007.rows.jsonl"]),
    ],
)
def test_the_names_are_known_before_and_are_all_that_is_there(folder, format_, names):
    with open_sink(OutputFormat(format_), folder.filesystem, folder.path, 7, SCHEMA) as sink:
        assert list(sink.names) == names
        sink.write(rows(3))
        assert not {*folder.names()} & {*names}
    assert folder.names() == sorted(names)


# -- what is written -------------------------------------------------------------------------


def test_parquet_as_arrow_and_pandas_read_it(folder):
    folder.write(OutputFormat.PARQUET, SCHEMA, rows(3), rows(2, start=3))
    with folder.filesystem.open_input_file(f"{folder.path}/part-000007.parquet") as file:
        table = pq.read_table(file)
    assert table.schema.equals(SCHEMA)
    assert table.equals(rows(5))
    frame = pd.read_parquet(pa.BufferReader(folder.read("part-000007.parquet")))
    assert frame["score"].tolist() == [0, 1, 2, 3, 4]
    assert frame["path"].tolist()[4] == "picture 4.png"
    assert np.reshape(frame["box"].tolist()[4], (2, 2)).tolist() == [[16, 17], [18, 19]]


def test_parquet_folders_are_one_data_set(local):
    local.write(OutputFormat.PARQUET, SCHEMA, rows(3), index=0)
    local.write(OutputFormat.PARQUET, SCHEMA, index=1)
    local.write(OutputFormat.PARQUET, SCHEMA, rows(2, start=3), index=2)
    assert ds.dataset(local.path).to_table().equals(rows(5))
    assert pd.read_parquet(local.path)["score"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "float16", "float32", "float64"])
def test_parquet_keeps_every_type(folder, dtype):
    array = np.arange(12).reshape(2, 3, 2).astype(dtype)
    element = pa.from_numpy_dtype(dtype)
    table = table_of(
        path=["a", "b"],
        one=pa.array(array[:, 0, 0]),
        tensor=tensor_column(array),
        several=pa.array([list(row) for row in array], pa.list_(pa.list_(element))),
    )
    folder.write(OutputFormat.PARQUET, table.schema, table)
    assert pq.read_table(pa.BufferReader(folder.read("part-000007.parquet"))).equals(table)


def test_json_lines(folder):
    folder.write(OutputFormat.JSONL, SCHEMA, rows(1), rows(1, start=1))
    assert folder.lines("part-000007.jsonl") == [
        {"path": "picture 0.png", "score": 0.0, "box": [[0, 1], [2, 3]]},
        {"path": "picture 1.png", "score": 1.0, "box": [[4, 5], [6, 7]]},
    ]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_json_has_null_for_what_is_no_number(folder, dtype):
    array = np.array([[1.5, math.nan], [math.inf, -math.inf]], dtype)
    element = pa.from_numpy_dtype(dtype)
    table = table_of(
        path=["a", "b"],
        one=pa.array(array[:, 1]),
        tensor=tensor_column(array),
        several=pa.array(list(array), pa.list_(element)),
        nested=pa.array([{"x": each} for each in array[:, 0]], pa.struct({"x": element})),
        mapped=pa.array([[("x", each)] for each in array[:, 1]], pa.map_(pa.string(), element)),
    )
    folder.write(OutputFormat.JSONL, table.schema, table)
    assert folder.lines("part-000007.jsonl") == [
        {
            "path": "a",
            "one": None,
            "tensor": [1.5, None],
            "several": [1.5, None],
            "nested": {"x": 1.5},
            "mapped": [["x", None]],
        },
        {
            "path": "b",
            "one": None,
            "tensor": [None, None],
            "several": [None, None],
            "nested": {"x": None},
            "mapped": [["x", None]],
        },
    ]


def test_json_has_words_for_what_it_lacks(folder):
    table = table_of(
        path=["größer 犬 \u2028 \x00 \n"],
        when=pa.array([datetime(2024, 2, 29, 12, tzinfo=UTC)]),
        price=pa.array([Decimal("1.50")]),
        many=pa.array([2**64 - 1], pa.uint64()),
        nothing=pa.array([None], pa.string()),
    )
    folder.write(OutputFormat.JSONL, table.schema, table)
    assert folder.lines("part-000007.jsonl") == [
        {
            "path": "größer 犬 \u2028 \x00 \n",
            "when": "2024-02-29 12:00:00+00:00",
            "price": "1.50",
            "many": 2**64 - 1,
            "nothing": None,
        }
    ]


def test_json_has_null_for_a_tensor_that_is_missing(folder):
    type_ = pa.fixed_shape_tensor(pa.float32(), (2, 2))
    table = table_of(path=["a", "b", "c"], box=pa.array([[1, 2, 3, 4], None, [5, 6, 7, 8]], type_))
    folder.write(OutputFormat.JSONL, table.schema, table[1:])
    assert folder.lines("part-000007.jsonl") == [
        {"path": "b", "box": None},
        {"path": "c", "box": [[5, 6], [7, 8]]},
    ]


@pytest.mark.parametrize("dtype", ["bool", "int64", "uint8", "float16"])
def test_json_of_every_type(folder, dtype):
    array = np.arange(4).reshape(2, 2).astype(dtype)
    table = table_of(
        path=["a", "b"],
        one=pa.array(array[:, 1]),
        tensor=tensor_column(array),
        several=pa.array(list(array), pa.list_(pa.from_numpy_dtype(dtype))),
    )
    folder.write(OutputFormat.JSONL, table.schema, table)
    expected = array.tolist()
    assert folder.lines("part-000007.jsonl") == [
        {"path": path, "one": row[1], "tensor": row, "several": row}
        for path, row in zip("ab", expected, strict=True)
    ]
    texts = folder.read("part-000007.jsonl").decode().splitlines()
    assert json.dumps(expected[1]) in texts[1]


@pytest.mark.parametrize("counts", [(), (0,), (1,), (3, 2), (1,) * 40, (0, 2, 0)])
def test_arrays_of_any_number_of_rows(folder, counts):
    tables = [rows(count, sum(counts[:index])) for index, count in enumerate(counts)]
    folder.write(OutputFormat.NPY, SCHEMA, *tables)
    total = sum(counts)
    for name, expected in (
        ("score", np.arange(total, dtype=np.float32)),
        ("box", np.arange(4 * total).reshape(total, 2, 2)),
    ):
        array = folder.array(name)
        assert array.dtype == expected.dtype
        assert np.array_equal(array, expected)
    assert folder.lines("part-000007.rows.jsonl") == [
        {"path": f"picture {index}.png"} for index in range(total)
    ]


@pytest.mark.parametrize("count", [0, 1, 5_000])
def test_arrays_can_be_mapped_into_memory(local, count):
    local.write(OutputFormat.NPY, SCHEMA, rows(count))
    mapped = local.array("box", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, np.arange(4 * count).reshape(count, 2, 2))


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int64", "uint8", "uint64", "float16", "float32", "float64"]
)
def test_arrays_of_every_type(folder, dtype):
    array = np.arange(12).reshape(3, 2, 2).astype(dtype)
    table = table_of(path=["a", "b", "c"], tensor=tensor_column(array))
    folder.write(OutputFormat.NPY, table.schema, table[:1], table[1:])
    read = folder.array("tensor")
    assert read.dtype == dtype
    assert np.array_equal(read, array)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_number_that_is_missing_is_none_in_an_array(folder, dtype):
    number = np.dtype(dtype).type
    values = pa.array([number(1.5), None, number(math.inf)], pa.from_numpy_dtype(dtype))
    table = table_of(path=["a", "b", "c"], score=values)
    folder.write(OutputFormat.NPY, table.schema, table)
    read = folder.array("score")
    assert read.dtype == dtype
    assert np.array_equal(read, np.array([1.5, math.nan, math.inf], dtype), equal_nan=True)


def test_what_is_no_array_goes_beside_the_arrays(folder):
    table = table_of(
        path=["a"],
        number=pa.array([3], pa.int64()),
        score=pa.array([1.5]),
        label=["cat"],
        boxes=pa.array([[[1.0, math.nan]]], pa.list_(pa.list_(pa.float32()))),
    )
    names = folder.write(OutputFormat.NPY, table.schema, table)
    assert names == ("part-000007.score.npy", "part-000007.rows.jsonl")
    assert folder.lines("part-000007.rows.jsonl") == [
        {"path": "a", "number": 3, "label": "cat", "boxes": [[1.0, None]]}
    ]


def test_names_of_columns_that_are_no_names_of_files(folder):
    names = ["a/b", "a_b", "a:b", "../up", "größe", "a b", "", "A_B", "a_b_"]
    table = pa.table(
        [pa.array(["x"]), *(pa.array([float(index)]) for index in range(len(names)))],
        ["path", *names],
    )
    written = folder.write(OutputFormat.NPY, table.schema, table)
    assert len({name.lower() for name in written}) == len(names) + 1
    assert folder.names() == sorted(written)
    for index, name in enumerate(written[:-1]):
        assert np.load(pa.BufferReader(folder.read(name))).tolist() == [index]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_column_may_have_a_very_long_name(folder, format_):
    name = "StatefulPartitionedCall/" * 20
    table = pa.table([pa.array(["x"]), pa.array([1.0])], ["path", name])
    written = folder.write(format_, table.schema, table)
    assert folder.names() == sorted(written)


@pytest.mark.parametrize("format_", FORMATS)
def test_tables_in_many_chunks(folder, format_):
    table = pa.concat_tables([rows(1, start=index) for index in range(5)])
    assert table["box"].num_chunks == 5
    folder.write(format_, SCHEMA, table)
    match format_:
        case OutputFormat.PARQUET:
            data = pa.BufferReader(folder.read("part-000007.parquet"))
            assert pq.read_table(data).equals(rows(5))
        case OutputFormat.JSONL:
            assert [row["score"] for row in folder.lines("part-000007.jsonl")] == [0, 1, 2, 3, 4]
        case OutputFormat.NPY:
            assert np.array_equal(folder.array("box"), np.arange(20).reshape(5, 2, 2))


@pytest.mark.parametrize("format_", FORMATS)
def test_parts_of_tables(folder, format_):
    """A slice of a column begins somewhere in its memory."""
    folder.write(format_, SCHEMA, rows(5)[2:4])
    match format_:
        case OutputFormat.PARQUET:
            data = pa.BufferReader(folder.read("part-000007.parquet"))
            assert pq.read_table(data).equals(rows(2, start=2))
        case OutputFormat.JSONL:
            assert [row["box"][0][0] for row in folder.lines("part-000007.jsonl")] == [8, 12]
        case OutputFormat.NPY:
            assert np.array_equal(folder.array("box"), np.arange(8, 16).reshape(2, 2, 2))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_fragment_without_rows_has_its_files(folder, format_):
    for tables in ((), (SCHEMA.empty_table(),)):
        names = folder.write(format_, SCHEMA, *tables)
        assert folder.names() == sorted(names)
    if format_ == OutputFormat.PARQUET:
        table = pq.read_table(pa.BufferReader(folder.read(names[0])))
        assert table.schema.equals(SCHEMA)
        assert table.num_rows == 0


@pytest.mark.parametrize("format_", FORMATS)
def test_what_was_there_before_is_replaced(folder, format_):
    folder.write(format_, SCHEMA, rows(5))
    names = folder.write(format_, SCHEMA, rows(1))
    assert folder.names() == sorted(names)
    text = folder.read(names[-1])
    folder.write(format_, SCHEMA, rows(1))
    assert folder.read(names[-1]) == text


# -- failures --------------------------------------------------------------------------------


def rows_and_then(error):
    yield rows(5)
    raise error


class DiskFullError(OSError):
    """What a filesystem says in these tests."""


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("error", [ValueError("bad row"), KeyboardInterrupt(), GeneratorExit()])
def test_a_sink_left_by_an_error_leaves_nothing(folder, format_, error):
    with pytest.raises(type(error)) as caught:
        folder.write_all(format_, SCHEMA, rows_and_then(error))
    assert caught.value is error
    assert folder.names() == []


@pytest.mark.parametrize("format_", FORMATS)
def test_a_failure_leaves_what_was_there_before(folder, format_):
    names = folder.write(format_, SCHEMA, rows(2))
    before = {name: folder.read(name) for name in names}
    with pytest.raises(ValueError, match="bad row"):
        folder.write_all(format_, SCHEMA, rows_and_then(ValueError("bad row")))
    assert {name: folder.read(name) for name in folder.names()} == before


def test_a_sink_that_cannot_be_opened_leaves_nothing(folder):
    """Parquet has no type for this column, which it says when the file is there already."""
    schema = SCHEMA.append(pa.field("union", pa.dense_union([pa.field("x", pa.int8())])))
    sink = open_sink(OutputFormat.PARQUET, folder.filesystem, folder.path, 7, schema)
    with pytest.raises(pa.ArrowNotImplementedError) as caught, sink:
        pass
    assert folder.names() == []
    assert caught.value.__traceback__


class Failing(MemoryFileSystem):
    """Memory that is full after some bytes, or does not rename; files are called as in it."""

    store = {}  # noqa: RUF012 - a class of fsspec's
    pseudo_dirs = [""]  # noqa: RUF012 - a class of fsspec's
    cachable = False

    def __init__(self, room=None, moves=None):
        super().__init__()
        self.room = room
        self.moves = moves

    def _open(self, path, mode="rb", **options):
        file = super()._open(path, mode, **options)
        if mode == "wb" and self.room is not None:
            write = file.write

            def write_while_there_is_room(data):
                self.room -= len(data)
                if self.room < 0:
                    raise DiskFullError("no space left")
                return write(data)

            file.write = write_while_there_is_room
        return file

    def mv(self, path1, path2, **options):
        if self.moves is not None:
            self.moves -= 1
            if self.moves < 0:
                raise DiskFullError("cannot rename")
        super().mv(path1, path2, **options)


def failing_folder(**how):
    return Folder(PyFileSystem(FSSpecHandler(Failing(**how))), f"/{uuid.uuid4().hex}/out")


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("room", [0, 10, 200, 2_000, 18_000])
def test_a_full_disk_leaves_nothing(format_, room):
    folder = failing_folder(room=room)
    with pytest.raises(OSError, match="no space left") as caught:
        folder.write(format_, SCHEMA, rows(300), rows(300))
    assert folder.names() == []
    assert caught.value.__traceback__  # nothing was left to garbage collection


@pytest.mark.parametrize("format_", FORMATS)
def test_what_cannot_be_renamed_is_removed(format_):
    folder = failing_folder(moves=0)
    with pytest.raises(OSError, match="cannot rename") as caught:
        folder.write(format_, SCHEMA, rows(3))
    assert folder.names() == []
    assert caught.value.__traceback__


def test_a_folder_that_is_not_there(tmp_path):
    for format_ in FORMATS:
        folder = str(tmp_path / "missing")
        sink = open_sink(format_, LocalFileSystem(), folder, 0, SCHEMA)
        with pytest.raises(OSError, match="missing"), sink:
            pass
