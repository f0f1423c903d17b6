"""Parquet files as rows: how they are cut, and files that are not as they should be."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_inference import InputDtypeError, InputShapeError
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.sources.parquet import ParquetSource
from atriva_ray.errors import InputFileError
from tests.unit.batch.reading import VECTOR, by_fragment, port, reading, reasons, rows_of, values
from tests.unit.batch.tables import F4, WANTED, fixed, write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.parquet"


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=6),
    rows_enough=st.integers(1, 30),
    bytes_enough=st.sampled_from([1, 200, 1 << 30]),
)
def test_fragments_together_hold_every_row_once(
    tmp_path_factory, counts, rows_enough, bytes_enough
):
    path = tmp_path_factory.mktemp("parquet") / "data.parquet"
    schema = pa.schema({"x": pa.list_(F4), "id": pa.int64()})
    with pq.ParquetWriter(path, schema) as writer:
        for start, count in zip(np.cumsum([0, *counts]).tolist(), counts, strict=False):
            ids = range(start, start + count)
            writer.write_table(pa.table([[[each] * 3 for each in ids], ids], schema))
    source = ParquetSource(rows_enough, bytes_enough)
    fragments = by_fragment(source, path, [VECTOR], keep=["id"])
    rows = [row for rows in fragments for row in rows]
    total = sum(counts)
    assert [row.identity["row"] for row in rows] == list(range(total))
    assert [row.kept["id"] for row in rows] == list(range(total))
    assert values(rows) == [[each] * 3 for each in range(total)]
    if bytes_enough == 1 << 30:
        assert all(len(part) >= rows_enough for part in fragments[:-1])
        assert all(len(part) < rows_enough + max(counts) for part in fragments)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _content: b"",
        lambda _content: b"PAR1",
        lambda _content: b"a text",
        lambda content: content[:-10],
        lambda content: content[:-4] + b"XXXX",
        lambda content: content[: len(content) // 2] + content[-8:],
    ],
)
def test_a_file_that_cannot_be_read_is_one_bad_row(tmp_path, damage):
    for name in "abc":
        write(tmp_path / f"{name}.parquet", {"x": fixed(np.array(WANTED, "f4"))})
    (tmp_path / "b.parquet").write_bytes(damage((tmp_path / "b.parquet").read_bytes()))
    rows = rows_of(ParquetSource(), tmp_path, [VECTOR])
    assert values(rows) == [*WANTED, None, *WANTED]
    assert rows[2].identity == {"path": f"{tmp_path}/b.parquet", "row": -1}
    assert "it cannot be read as parquet" in rows[2].bad_because


def test_a_footer_whose_numbers_do_not_add_up(path):
    write(path, {"x": fixed(np.array(WANTED * 9, "f4"))})
    content = path.read_bytes()
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    found = 0
    for position in range(begin, len(content) - 8):
        if content[position] == 36:  # 18 rows, as the footer writes it
            path.write_bytes(content[:position] + b"\x01" + content[position + 1 :])
            rows = rows_of(ParquetSource(), path, [VECTOR])
            found += "do not add up" in (reasons(rows) or [""])[0]
    assert found


def test_damage_inside_spoils_the_rows_behind_it(path):
    data = np.random.default_rng(0).random((4000, 3), "f4")
    columns = {"x": fixed(data), "id": range(4000)}
    options = {"row_group_size": 1000, "write_page_checksum": True, "use_dictionary": False}
    write(path, columns, compression="none", data_page_size=1000, write_batch_size=100, **options)
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start + 6000] ^= 255
    path.write_bytes(content)
    source = ParquetSource(rows_per_fragment=500)
    fragments = by_fragment(source, path, [VECTOR], keep=["id"])
    assert [len(reasons(rows)) for rows in fragments[:2] + fragments[3:]] == [0, 0, 0]
    assert "CRC" in reasons(fragments[2])[0]
    for rows in fragments:
        for row in rows:
            if row.bad_because is None:
                number = row.identity["row"]
                assert row.kept["id"] == number
                assert row.inputs["x"].tolist() == data[number].tolist()


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_damage_anywhere_is_never_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("parquet") / "data.parquet"
    write(path, {"x": fixed(np.array(WANTED * 9, "f4"))}, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        rows_of(ParquetSource(), path, [VECTOR])
    except (InputFileError, InputShapeError, InputDtypeError) as error:
        assert "column" in str(error) or "input" in str(error)  # noqa: PT017 - another table now


@pytest.mark.parametrize("change", ["vanish", "shorten", "replace", "rename"])
def test_a_file_that_changed_since_it_was_planned(path, change):
    data = np.arange(30, dtype="f4").reshape(10, 3)
    write(path, {"x": fixed(data)}, row_group_size=5)
    changes = {
        "vanish": path.unlink,
        "shorten": lambda: path.write_bytes(path.read_bytes()[:-20]),
        "replace": lambda: write(path, {"x": fixed(data[:4])}, row_group_size=5),
        "rename": lambda: write(path, {"y": fixed(data)}, row_group_size=5),
    }
    rows = rows_of(ParquetSource(5), path, [VECTOR], twist=changes[change])
    good = 4 if change == "replace" else 0
    assert values(rows) == data[:good].tolist() + [None] * (10 - good)
    assert [row.identity["row"] for row in rows] == list(range(10))


def test_a_file_of_other_columns_among_good_ones(tmp_path):
    write(tmp_path / "a.parquet", {"x": fixed(np.array(WANTED, "f4"))})
    write(tmp_path / "b.parquet", {"y": fixed(np.array(WANTED, "f4"))})
    write(tmp_path / "c.parquet", {"x": ["p", "q"]})
    rows = rows_of(ParquetSource(), tmp_path, [VECTOR])
    assert values(rows) == [*WANTED, None, None, None, None]
    assert reasons(rows)[0] == "there is no column 'x'; its columns are 'y'"
    assert reasons(rows)[2] == "column 'x' has string, which are no numbers"


def test_a_large_row_group_is_read_in_parts(path):
    data = np.random.default_rng(0).random((40_000, 256), "f4")
    write(path, {"x": fixed(data)}, row_group_size=len(data), use_dictionary=False)
    del data
    pool = pa.default_memory_pool()
    most = 0
    with reading(ParquetSource(), path, [port(shape=(-1, 256))]) as (source, [part], context):
        before = pool.bytes_allocated()
        for number, _ in enumerate(source.read(part, context)):
            if number % 1000 == 0:
                most = max(most, pool.bytes_allocated() - before)
    assert number == 39_999
    assert most < 20 << 20 < path.stat().st_size


def test_files_elsewhere():
    filesystem, root = open_location(f"memory://p{uuid.uuid4().hex}")
    filesystem.create_dir(root)
    with filesystem.open_output_stream(f"{root}/a.parquet") as stream:
        pq.write_table(pa.table({"x": fixed(np.array(WANTED, "f4"))}), stream, row_group_size=1)
    fragments = by_fragment(ParquetSource(1), f"memory://{root}", [VECTOR])
    assert [values(rows) for rows in fragments] == [WANTED[:1], WANTED[1:]]
    filesystem.delete_dir(root)


def test_columns_whose_names_are_strange(path):
    write(path, {"a.b": fixed(np.array(WANTED, "f4")), "a": [1, 2], "": ["x", "y"]})
    rows = rows_of(ParquetSource(), path, [port("a.b")], keep=["", "a"])
    assert values(rows, "a.b") == WANTED
    assert rows[1].kept == {"": "y", "a": 2}


def test_two_columns_of_one_name_are_none(path):
    table = pa.Table.from_arrays(
        [pa.array([1.0]), pa.array([2.0]), pa.array([3.0])], ["a", "a", "x"]
    )
    pq.write_table(table, path)
    assert values(rows_of(ParquetSource(), path, [port(shape=(-1, 1))])) == [[3]]
    with pytest.raises(InputFileError, match="no column 'a'"):
        rows_of(ParquetSource(), path, [port(shape=(-1, 1))], keep=["a"])
