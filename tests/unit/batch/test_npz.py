"""NumPy archives as rows."""

from __future__ import annotations

import io
import uuid
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from atriva_inference import InputNameError, InputShapeError
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.sources import npz
from atriva_ray.batch.sources.npz import NpzSource
from atriva_ray.errors import InputFileError
from tests.unit.batch.reading import VECTOR, port, reading, reasons, rows_of, values

A = np.arange(12, dtype="f4").reshape(4, 3)
B = np.arange(8, dtype="i8").reshape(4, 2)
TWO = [port("a"), port("b", (-1, 2), "i4")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.npz"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_feed_the_inputs_of_their_names(path, save):
    save(path, a=A, b=B, other=np.zeros(9), meta=np.array({"no": "rows"}, object))
    rows = rows_of(NpzSource(), path, TWO)
    assert [row.identity for row in rows] == [{"path": str(path), "row": n} for n in range(4)]
    assert values(rows, "a") == A.tolist()
    assert values(rows, "b") == B.tolist()
    assert rows[0].inputs["b"].dtype == np.int32


def test_any_name_of_an_input_will_do(path):
    np.savez(path, features=A, labels=B)
    assert values(rows_of(NpzSource(), path, [VECTOR])) == A.tolist()


def test_arrays_can_be_chosen_and_kept(path):
    np.savez(path, p=A, q=B, name=np.array(["one", "two", "three", "four"]), score=A[:, 0])
    options = {"columns": {"a": "p", "b": "q"}, "keep": ["name", "q", "score"]}
    rows = rows_of(NpzSource(), path, TWO, **options)
    assert values(rows, "a") == A.tolist()
    assert [dict(row.kept) for row in rows][1] == {"name": "two", "q": [2, 3], "score": 3.0}
    with reading(NpzSource(), path, TWO, **options) as (source, _, context):
        assert source.kept(context) == pa.schema(
            [("name", pa.string()), ("q", pa.list_(pa.int64())), ("score", pa.float32())]
        )


def test_the_only_array_is_for_the_only_input(path):
    np.savez(path, A)
    assert values(rows_of(NpzSource(), path, [VECTOR])) == A.tolist()
    np.savez(path, A, label=B)
    assert values(rows_of(NpzSource(), path, [VECTOR], keep=["label"])) == A.tolist()


@pytest.mark.parametrize(
    ("arrays", "ports", "options", "error", "words"),
    [
        ({"a": A}, TWO, {}, InputFileError, "no column has the name of input 'b'"),
        ({"p": A, "q": A}, [VECTOR], {}, InputFileError, "'p', 'q' could all feed input 'x'"),
        ({"a": A}, [VECTOR], {"columns": {"x": "z"}}, InputFileError, "there is no column 'z'"),
        ({"a": A}, [VECTOR], {"columns": {"z": "a"}}, InputNameError, "unknown .* 'z'"),
        ({"x": A}, [VECTOR], {"keep": ["z"]}, InputFileError, "no column 'z'; .* are 'x'"),
        ({"x": A.T}, [VECTOR], {}, InputShapeError, "has shape 4, the model takes 3"),
        ({"x": A, "k": A.astype("c8")}, [VECTOR], {"keep": ["k"]}, InputFileError, "kept"),
    ],
)
def test_what_does_not_fit_is_said_at_once(path, arrays, ports, options, error, words):
    np.savez(path, **arrays)
    with pytest.raises(error, match=words):
        rows_of(NpzSource(), path, ports, **options)


def archive(**members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


def saved(**arrays):
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "cannot be read as .npz"),
        (b"a text", "cannot be read as .npz"),
        (saved(x=A)[:-20], "cannot be read as .npz"),
        (archive(x=b"no array"), "there is no column 'x'"),
        (archive(x=io.BytesIO().getvalue()), "there is no column 'x'"),
        (saved(y=A), "there is no column 'x', 'k'; its columns are 'y'"),
        (saved(x=A.T, k=A[:3]), "has shape 4"),
        (saved(x=A, k=A[:3]), "different numbers of rows: 'x' 4, 'k' 3"),
        (saved(x=A, k=A.astype("i8")), "array 'k' has list<item: int64>, in the first file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_bad_row(tmp_path, content, words):
    np.savez(tmp_path / "a.npz", x=A, k=A)
    (tmp_path / "b.npz").write_bytes(content)
    np.savez(tmp_path / "c.npz", x=A, k=A)
    rows = rows_of(NpzSource(), tmp_path, [VECTOR], keep=["k"])
    assert values(rows) == [*A.tolist(), None, *A.tolist()]
    [reason] = reasons(rows)
    assert words in reason
    assert [row.identity["row"] for row in rows if row.bad_because] == [-1]


def test_damage_inside_is_found(tmp_path):
    content = bytearray(saved(x=np.random.default_rng(0).random((100, 3), "f4")))
    content[len(content) // 2] ^= 255
    (tmp_path / "a.npz").write_bytes(content)
    rows = rows_of(NpzSource(), tmp_path, [VECTOR])
    assert "cannot be read as .npz" in reasons(rows)[0]
    assert len(rows) == 1


def test_an_archive_too_large_to_read_at_once(path, monkeypatch):
    monkeypatch.setattr(npz, "_MAX_BYTES", 40)
    np.savez_compressed(path, x=A)
    [row] = rows_of(NpzSource(), path, [VECTOR])
    assert "its arrays have 48 bytes, at most 40 are read at once" in row.bad_because


def test_values_that_would_not_survive_are_bad_rows(path):
    np.savez(path, x=np.array([[1, 2, 3], [1, 2, 2**40]]))
    rows = rows_of(NpzSource(), path, [port(dtype="i4")])
    assert values(rows) == [[1, 2, 3], None]


def test_files_elsewhere():
    filesystem, root = open_location(f"memory://z{uuid.uuid4().hex}")
    filesystem.create_dir(root)
    with filesystem.open_output_stream(f"{root}/a.npz") as stream:
        stream.write(saved(x=A))
    assert values(rows_of(NpzSource(), f"memory://{root}", [VECTOR])) == A.tolist()
    filesystem.delete_dir(root)


def test_a_file_that_vanished(path):
    np.savez(path, x=A)
    [row] = rows_of(NpzSource(), path, [VECTOR], twist=path.unlink)
    assert row.identity["row"] == -1
