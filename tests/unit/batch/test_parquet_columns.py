"""Columns of Parquet files as inputs of a model, and as what is kept."""

from __future__ import annotations

import datetime as dt
import io
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from atriva_inference import InputNameError, InputShapeError
from atriva_ray.batch.sources.arrow_columns import form_of
from atriva_ray.batch.sources.arrow_rows import BatchRows, kept_fields
from atriva_ray.batch.sources.columns import Feed, Form
from atriva_ray.batch.sources.parquet import ParquetSource
from atriva_ray.errors import InputFileError, PictureError
from tests.unit.batch.reading import COLOUR, VECTOR, port, reading, reasons, rows_of, values
from tests.unit.batch.tables import F4, WANTED, fixed, tensors, write


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.parquet"


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
