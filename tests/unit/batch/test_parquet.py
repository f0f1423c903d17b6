"""Parquet files as rows."""

from __future__ import annotations

import datetime as dt
import io
import sys
import uuid
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atriva_inference import InputDtypeError, InputNameError, InputShapeError
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.sources.arrow_columns import form_of
from atriva_ray.batch.sources.arrow_rows import BatchRows, kept_fields
from atriva_ray.batch.sources.columns import Feed, Form
from atriva_ray.batch.sources.parquet import ParquetSource
from atriva_ray.errors import InputFileError, PictureError
from tests.unit.batch.reading import (
    COLOUR,
    VECTOR,
    by_fragment,
    port,
    reading,
    reasons,
    rows_of,
    values,
)

WANTED = [[1, 2, 3], [4, 5, 6]]
F4 = pa.float32()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.parquet"


def write(path, columns, **options):
    pq.write_table(pa.table(columns), path, **options)


def tensors(array):
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(array))


def fixed(array):
    flat = pa.array(np.ascontiguousarray(array).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


VECTORS = {
    "list": pa.array(WANTED, pa.list_(F4)),
    "large list": pa.array(WANTED, pa.large_list(pa.float64())),
    "fixed list": fixed(np.array(WANTED, "f4")),
    "whole numbers": pa.array(WANTED, pa.list_(pa.int16())),
    "half": pa.array(np.array(WANTED, "f2").tolist(), pa.list_(pa.float16())),
    "tensor": tensors(np.array(WANTED, "f4")),
    "decimals": pa.array([[Decimal(x) for x in row] for row in WANTED], pa.list_(pa.decimal128(5))),
    "nested": pa.array([[[x] for x in row] for row in WANTED], pa.list_(pa.list_(F4))),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_every_kind_of_vector(path, kind):
    write(path, {"features": VECTORS[kind], "id": ["a", "b"], "score": [1.0, 2.0]})
    rows = rows_of(ParquetSource(), path, [VECTOR])
    assert values(rows) == WANTED
    assert {row.inputs["x"].dtype for row in rows} == {np.dtype("f4")}
    assert [row.identity for row in rows] == [{"path": str(path), "row": n} for n in range(2)]


@pytest.mark.parametrize("kind", VECTORS)
def test_the_only_vector_feeds_the_only_input(path, kind):
    write(path, {"id": [1, 2], "embedding": VECTORS[kind], "is_good": [True, False]})
    assert values(rows_of(ParquetSource(), path, [VECTOR])) == WANTED


def test_columns_of_numbers_make_a_vector(path):
    columns = {
        "id": pa.array([7, 8]),
        "a": pa.array([1, 4], pa.int8()),
        "b": pa.array([2.0, 5.0]),
        "name": ["x", "y"],
        "c": pa.array([Decimal(3), Decimal(6)], pa.decimal128(3, 1)),
    }
    write(path, columns)
    rows = rows_of(ParquetSource(), path, [VECTOR], keep=["id"])
    assert values(rows) == WANTED
    assert [row.kept for row in rows] == [{"id": 7}, {"id": 8}]


def test_several_inputs_by_name_and_as_said(path):
    write(path, {"a": pa.array(WANTED, pa.list_(F4)), "b": pa.array([1, 2]), "c": pa.array([3, 4])})
    ports = [port("a"), port("b", (-1,), "i4")]
    rows = rows_of(ParquetSource(), path, ports)
    assert (values(rows, "a"), values(rows, "b")) == (WANTED, [1, 2])
    assert rows[0].inputs["b"].dtype == np.int32
    rows = rows_of(ParquetSource(), path, ports, columns={"b": "c"})
    assert (values(rows, "a"), values(rows, "b")) == (WANTED, [3, 4])


@pytest.mark.parametrize(
    ("array", "takes", "shape"),
    [
        (np.zeros((2, 12), "f4"), port(shape=(1, 3, 4)), (3, 4)),
        (np.zeros((2, 5, 6), "f4"), port(shape=(-1, 1, 5, 6), layout="NCHW"), (1, 5, 6)),
        (np.zeros((2, 5, 6, 3), "u1"), port(shape=(1, 3, 5, 6), layout="NCHW"), (3, 5, 6)),
        (np.zeros((2, 90), "u1"), port(shape=(1, 3, 5, 6), layout="NCHW"), (3, 5, 6)),
        (np.zeros((2, 7), "f4"), port(shape=(-1, -1)), (7,)),
        (np.zeros((2, 7), "f4"), port(shape=None), (7,)),
    ],
)
def test_rows_get_the_shape_of_the_model(path, array, takes, shape):
    write(path, {"x": tensors(array)})
    assert [row.inputs["x"].shape for row in rows_of(ParquetSource(), path, [takes])] == [shape] * 2


def test_a_tensor_of_permuted_axes(path):
    array = np.arange(12, dtype="f4").reshape(2, 2, 3)
    type_ = pa.fixed_shape_tensor(F4, (2, 3), permutation=[1, 0])
    storage = fixed(array.reshape(2, 6))
    write(path, {"x": pa.ExtensionArray.from_storage(type_, storage)})
    rows = rows_of(ParquetSource(), path, [port(shape=(-1, 3, 2))])
    np.testing.assert_array_equal([row.inputs["x"] for row in rows], array.transpose(0, 2, 1))


def test_tensors_that_bring_their_own_shape(path):
    """As Ray Data writes tensors of different shapes."""
    rows = [{"data": list(range(6)), "shape": [2, 3]}, {"data": [1, 2, 3], "shape": [1, 3]}]
    rows.append({"data": [1, 2], "shape": [2, 3]})
    type_ = pa.struct({"data": pa.list_(F4), "shape": pa.list_(pa.int64())})
    write(path, {"x": pa.array([*rows, None], type_)})
    found = rows_of(ParquetSource(), path, [port(shape=(-1, -1, 3))])
    assert values(found) == [[[0, 1, 2], [3, 4, 5]], [[1, 2, 3]], None, None]


@pytest.mark.parametrize(
    ("column", "good", "reason"),
    [
        (pa.array([[1, 2, 3], None], pa.list_(F4)), 0, "column 'x' has no value"),
        (pa.array([[1, None, 3], [1, 2, 3]], pa.list_(F4)), 1, "column 'x' has nulls"),
        (pa.array([[1, 2], [1, 2, 3]], pa.list_(F4)), 1, "has shape 2, the model takes 3"),
        (pa.array([[], [1, 2, 3]], pa.list_(F4)), 1, "has shape 0"),
        (pa.array([[1, 2, 3], None], pa.list_(F4, 3)), 0, "column 'x' has no value"),
        (pa.array([[1, 2, 1e300], [1, 2, 3]], pa.list_(pa.float64())), 1, "too large"),
        (
            pa.array([[[1], [2, 3]], [[1], [2], [3]]], pa.list_(pa.list_(F4))),
            1,
            "column 'x' has nulls, or lists of different lengths",
        ),
    ],
)
def test_a_row_that_is_not_as_it_should_be(path, column, good, reason):
    write(path, {"x": column})
    rows = rows_of(ParquetSource(), path, [VECTOR])
    assert values(rows)[good] == [1, 2, 3]
    [found] = reasons(rows)
    assert reason in found


def test_a_number_that_is_missing_is_named(path):
    write(path, {"a": [1.0, 4.0], "b": pa.array([None, 5.0], F4), "c": [3, 6]})
    rows = rows_of(ParquetSource(), path, [VECTOR])
    assert values(rows) == [None, [4, 5, 6]]
    assert reasons(rows) == ["column 'b' has no value"]


def test_whole_numbers_for_a_model_that_takes_them(path):
    write(path, {"x": pa.array([[1.0, 2.0, 3.0], [1.0, 2.5, 3.0], [1.0, float("nan"), 3.0]])})
    assert values(rows_of(ParquetSource(), path, [port(dtype="i4")])) == [[1, 2, 3], None, None]


def test_columns_that_are_encoded(path):
    """As a data set may bring them, if no file can."""
    batch = pa.record_batch(
        {
            "x": pa.DictionaryArray.from_arrays([1, 0], pa.array(WANTED, pa.list_(F4))),
            "k": pa.array(["a", "a"]).dictionary_encode(),
        }
    )
    assert form_of(batch.schema.field("x").type) == Form.VECTOR
    kept = kept_fields(batch.schema, ["k"])
    rows = BatchRows(batch, [VECTOR], [Feed("x", ("x",))], kept, "stretch")
    row = rows.row(0, {"row": 0})
    assert (row.inputs["x"].tolist(), row.kept) == (WANTED[1], {"k": "a"})


# -- pictures ------------------------------------------------------------------------------------


def jpeg(shade=0):
    stream = io.BytesIO()
    Image.new("RGB", (8, 12), (shade, shade, shade)).save(stream, "JPEG")
    return stream.getvalue()


PICTURES = [jpeg(0), jpeg(100), b"no picture", None, jpeg(200)]
AS_BYTES = {
    "binary": pa.array(PICTURES, pa.binary()),
    "large": pa.array(PICTURES, pa.large_binary()),
    "Hugging Face": pa.array(
        [None if data is None else {"bytes": data, "path": "p.jpg"} for data in PICTURES],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    ),
}


@pytest.mark.parametrize("kind", AS_BYTES)
@pytest.mark.parametrize("name", ["image", "picture"])
def test_encoded_pictures_are_decoded(path, kind, name):
    write(path, {"label": range(5), name: AS_BYTES[kind]})
    rows = rows_of(ParquetSource(), path, [COLOUR], keep=["label"], fit="pad")
    assert [row.bad_because is None for row in rows] == [True, True, False, False, True]
    assert rows[4].inputs["image"].shape == (6, 4, 3)
    assert rows[4].inputs["image"].mean() == pytest.approx(200, abs=2)
    assert rows[4].kept == {"label": 4}
    assert reasons(rows) == [
        f"column {name!r}: it is neither JPEG nor PNG",
        f"column {name!r} has no value",
    ]


def test_pictures_that_are_elsewhere(path):
    type_ = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    write(path, {"image": pa.array([{"bytes": None, "path": "p.jpg"}], type_)})
    assert reasons(rows_of(ParquetSource(), path, [COLOUR])) == ["column 'image' has no bytes"]


def test_pixels_for_a_model_of_pictures(path):
    pixels = np.arange(2 * 72, dtype="u1").reshape(2, 6, 4, 3)
    write(path, {"image": tensors(pixels)})
    rows = rows_of(ParquetSource(), path, [COLOUR])
    np.testing.assert_array_equal(
        [row.inputs["image"] for row in rows], pixels.transpose(0, 3, 1, 2)
    )


def test_without_pillow_it_is_said_before_the_first_row(path, monkeypatch):
    write(path, {"image": AS_BYTES["binary"]})
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PictureError, match="pip install"):
        rows_of(ParquetSource(), path, [COLOUR])


# -- what is kept --------------------------------------------------------------------------------


def test_what_is_kept_keeps_its_type(path):
    columns = {
        "text": pa.array(["a", None]),
        "large": pa.array(["a", "b"], pa.large_string()),
        "word": pa.array(["a", "b"]).dictionary_encode(),
        "day": pa.array([dt.date(2024, 2, 29), None]),
        "time": pa.array([1, 2], pa.timestamp("ns", "UTC")),
        "list": pa.array([[1], []], pa.list_(pa.int8())),
        "struct": pa.array([{"a": 1}, None], pa.struct({"a": pa.int8()})),
        "tensor": tensors(np.zeros((2, 2), "f4")),
        "price": pa.array([Decimal("1.5"), None], pa.decimal128(5, 2)),
    }
    write(path, {"x": fixed(np.array(WANTED, "f4")), **columns})
    with reading(ParquetSource(), path, [VECTOR], keep=list(columns)) as (source, [part], context):
        schema = source.kept(context)
        rows = list(source.read(part, context))
    assert schema.names == list(columns)
    for field in schema:
        array = pa.array([row.kept[field.name] for row in rows], field.type)
        column = columns[field.name]
        plain = column.storage if field.name == "tensor" else column
        assert array.to_pylist() == plain.to_pylist()
    assert schema.field("word").type == pa.string()
    assert schema.field("time").type == pa.timestamp("ns", "UTC")


def test_a_kept_column_of_another_type_in_another_file(tmp_path):
    write(tmp_path / "a.parquet", {"x": fixed(np.array(WANTED, "f4")), "k": pa.array([1, 2])})
    write(tmp_path / "b.parquet", {"x": fixed(np.array(WANTED, "f4")), "k": ["3", "4"]})
    write(tmp_path / "c.parquet", {"x": fixed(np.array(WANTED, "f4")), "k": ["a", "b"]})
    rows = rows_of(ParquetSource(), tmp_path, [VECTOR], keep=["k"])
    assert [row.kept.get("k") for row in rows] == [1, 2, 3, 4, None, None]
    assert "column 'k', which is kept, is not int64" in reasons(rows)[0]


# -- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "ports", "options", "error", "words"),
    [
        ({"a": [1.0]}, [VECTOR], {"columns": {"x": "b"}}, InputFileError, "no column 'b'; .* 'a'"),
        ({"a": [1.0]}, [VECTOR], {"columns": {"y": "a"}}, InputNameError, "unknown .* 'y'"),
        ({"x": [1.0]}, [VECTOR], {"keep": ["z"]}, InputFileError, "no column 'z'"),
        ({"x": ["t"]}, [VECTOR], {}, InputFileError, "column 'x' has string, which input x:"),
        ({"x": [b"t"]}, [VECTOR], {}, InputFileError, "column 'x' has binary, which input x:"),
        ({"x": [["t"]]}, [VECTOR], {}, InputFileError, "has list<.*: string>, which"),
        ({"x": [1.0]}, [port(dtype="U")], {}, InputFileError, "has double, which input x:"),
        ({"x": [1.0]}, [VECTOR], {}, InputShapeError, "has shape scalar, the model takes 3"),
        ({"x": fixed(np.zeros((1, 4)))}, [VECTOR], {}, InputShapeError, "has shape 4, the model"),
        ({"x": tensors(np.zeros((1, 4)))}, [VECTOR], {}, InputShapeError, "has shape 4, the model"),
        ({"a": [[1.0]], "b": [[1.0]]}, [VECTOR], {}, InputFileError, "'a', 'b' could all feed"),
        ({"a": [1.0], "b": [1.0]}, [VECTOR], {}, InputFileError, "2 columns of numbers"),
        ({"a": [1.0]}, [port("a"), port("b")], {}, InputFileError, "name of input 'b'"),
        ({"s": ["t"]}, [VECTOR], {}, InputFileError, "no column of lists or tensors"),
        ({"s": ["t"]}, [COLOUR], {}, InputFileError, "no column of bytes for input 'image'"),
        ({"a": [b""], "b": [b""]}, [COLOUR], {}, InputFileError, "'a', 'b' could all feed"),
    ],
)
def test_what_does_not_fit_is_said_at_once(path, columns, ports, options, error, words):
    write(path, columns)
    with pytest.raises(error, match=words):
        rows_of(ParquetSource(), path, ports, **options)


def test_text_for_a_model_of_text(path):
    write(path, {"id": [1, 2, 3], "review": ["good", "é" * 90, None]})
    rows = rows_of(ParquetSource(), path, [port(shape=(-1, 1), dtype="U")])
    assert values(rows) == [["good"], ["é" * 90], None]


# -- files ---------------------------------------------------------------------------------------


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
