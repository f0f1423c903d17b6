"""NumPy files as rows."""

from __future__ import annotations

import io
import tracemalloc
import uuid
from contextlib import suppress

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atriva_inference import InputDtypeError, InputShapeError, OptionError
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.sources.npy import NpySource
from atriva_ray.errors import InputFileError
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


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.npy"


def elsewhere(content, name="data.npy"):
    """Put a file into a filesystem that is not this machine's."""
    filesystem, root = open_location(f"memory://n{uuid.uuid4().hex}")
    filesystem.create_dir(root)
    with filesystem.open_output_stream(f"{root}/{name}") as stream:
        stream.write(content)
    return f"memory://{root}"


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


ARRAYS = hnp.arrays(
    st.sampled_from(["f4", "f8", ">f4", "u1", "i8", "?", "f2"]),
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=7),
    elements={"allow_nan": False, "allow_infinity": False},
)


@pytest.mark.parametrize("is_local", [True, False])
@settings(deadline=None)
@given(array=ARRAYS, is_fortran=st.booleans(), size_bytes=st.integers(0, 400))
def test_fragments_together_hold_every_row_once(
    tmp_path_factory, is_local, array, is_fortran, size_bytes
):
    if is_fortran:
        array = np.asfortranarray(array)
    content = saved(array)
    if is_local:
        place = tmp_path_factory.mktemp("npy") / "data.npy"
        place.write_bytes(content)
    else:
        place = elsewhere(content)
    takes = port(shape=(-1, *array.shape[1:]), dtype=array.dtype.newbyteorder("="))
    fragments = by_fragment(NpySource(size_bytes), place, [takes])
    rows = [row for rows in fragments for row in rows]
    assert [row.identity["row"] for row in rows] == list(range(len(array)))
    np.testing.assert_array_equal([row.inputs["x"] for row in rows], array)
    row_bytes = array[0].nbytes
    assert all(len(rows) * row_bytes <= max(size_bytes, row_bytes) for rows in fragments)


def test_rows_are_limited_too(path):
    np.save(path, np.zeros((10, 3), "f4"))
    fragments = by_fragment(NpySource(rows_per_fragment=4), path, [VECTOR])
    assert [len(rows) for rows in fragments] == [4, 4, 2]


def test_every_file_is_done_on_its_own(tmp_path):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((2, 3), number, "f4"))
    np.save(tmp_path / "empty.npy", np.zeros((0, 3), "f4"))
    fragments = by_fragment(NpySource(), tmp_path, [VECTOR])
    assert [values(rows) for rows in fragments] == [[[n] * 3] * 2 for n in range(3)]


def test_rows_are_views_of_the_file(path):
    np.save(path, np.zeros((4, 3), "f4"))
    rows = rows_of(NpySource(), path, [VECTOR])
    arrays = [row.inputs["x"] for row in rows]
    assert all(
        np.shares_memory(arrays[0].base, array) or array.base is not None for array in arrays
    )
    assert not any(array.flags.owndata or array.flags.writeable for array in arrays)
    assert {type(array) for array in arrays} == {np.ndarray}


def test_no_more_than_a_fragment_is_in_memory(path):
    window = 4 << 20
    size = 96 << 20
    np.save(path, np.ones((size // 4096, 1024), "f4"))
    before = psutil.Process().memory_full_info().uss
    most = 0

    def watched(rows):
        nonlocal most
        for number, row in enumerate(rows):
            assert row.inputs["x"].sum() == 1024
            if number % 500 == 0:
                most = max(most, psutil.Process().memory_full_info().uss - before)

    with reading(NpySource(window), path, [port(shape=(-1, 1024))]) as (source, fragments, context):
        assert len(fragments) == size // window
        tracemalloc.start()
        for fragment in fragments:
            watched(source.read(fragment, context))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 4 * window
    assert peak < window


@pytest.mark.parametrize(
    ("array", "takes", "shape"),
    [
        (np.zeros((2, 12), "f4"), port(shape=(1, 3, 4)), (3, 4)),
        (np.zeros((2, 12), "f4"), port(shape=(-1, 3, -1)), (3, 4)),
        (np.zeros((2, 3), "f4"), port(shape=(-1, -1)), (3,)),
        (np.zeros((2, 3), "f4"), port(shape=None), (3,)),
        (np.zeros(2, "f4"), port(shape=(-1,)), ()),
        (np.zeros(2, "f4"), port(shape=(-1, 1)), (1,)),
        (np.zeros((2, 5, 6), "f4"), port(shape=(1, 1, 5, 6), layout="NCHW"), (1, 5, 6)),
        (np.zeros((2, 5, 6, 3), "u1"), port(shape=(1, 3, 5, 6), layout="NCHW"), (3, 5, 6)),
        (np.zeros((2, 5, 6, 3), "f4"), port(shape=(-1, 3, -1, -1), layout="NCHW"), (3, 5, 6)),
        (np.zeros((2, 3, 5, 6), "u1"), port(shape=(1, 5, 6, 3), layout="NHWC"), (5, 6, 3)),
        (np.zeros((2, 4, 3), "f4"), port(shape=(4, 3)), (4, 3)),
    ],
)
def test_rows_get_the_shape_of_the_model(path, array, takes, shape):
    np.save(path, array)
    rows = rows_of(NpySource(), path, [takes])
    assert [row.inputs["x"].shape for row in rows] == [shape] * 2


def test_pixels_are_turned_and_not_reshaped(path):
    pixels = np.arange(2 * 6 * 4 * 3, dtype="u1").reshape(2, 6, 4, 3)
    np.save(path, pixels)
    rows = rows_of(NpySource(), path, [COLOUR])
    np.testing.assert_array_equal(
        [row.inputs["image"] for row in rows], pixels.transpose(0, 3, 1, 2)
    )


@pytest.mark.parametrize(
    ("array", "takes", "error"),
    [
        (np.zeros((2, 4), "f4"), VECTOR, InputShapeError),
        (np.zeros((2, 4, 3), "f4"), port(shape=(-1, 3, 4)), InputShapeError),
        (np.zeros((2, 3), "c8"), VECTOR, InputDtypeError),
        (np.zeros((2, 3), "U1"), VECTOR, InputDtypeError),
        (np.zeros((2, 3), "f4"), port(dtype="U"), InputDtypeError),
    ],
)
def test_what_the_model_does_not_take_is_said_at_once(path, array, takes, error):
    np.save(path, array)
    with pytest.raises(error):
        rows_of(NpySource(), path, [takes])


def test_values_that_would_not_survive_are_bad_rows(path):
    np.save(path, np.array([[1, 2, 3], [1, 300, 3], [-1, 2, 3]], "i8"))
    rows = rows_of(NpySource(), path, [port(dtype="u1")])
    assert values(rows) == [[1, 2, 3], None, None]
    assert reasons(rows)[0].endswith("values from 1 to 300 do not fit into it")
    np.save(path, np.array([[1, 2, 3], [1, 2.5, 3], [1, np.nan, 3]], "f8"))
    rows = rows_of(NpySource(), path, [port(dtype="i4")])
    assert values(rows) == [[1, 2, 3], None, None]
    assert rows[0].inputs["x"].dtype == np.int32
    np.save(path, np.array([[1, 2, 3], [1e300, 2, 3], [np.inf, np.nan, 3]], "f8"))
    rows = rows_of(NpySource(), path, [VECTOR])
    assert [row.bad_because is None for row in rows] == [True, False, True]


def test_text_for_a_model_of_text(path):
    np.save(path, np.array(["one", "two"]))
    assert values(rows_of(NpySource(), path, [port(shape=(-1,), dtype="U")])) == ["one", "two"]


def test_there_is_one_array_for_one_input(path):
    np.save(path, np.zeros((2, 3)))
    with pytest.raises(InputFileError, match=r"2 inputs \('x', 'y'\); pass .npz"):
        rows_of(NpySource(), path, [VECTOR, port("y")])
    with pytest.raises(OptionError, match="npy input has no columns"):
        rows_of(NpySource(), path, [VECTOR], keep=["label"])


def with_version_3(array):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(3, 0))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"a text that is no array",
        saved(np.zeros((2, 3), "f4"))[:50],
        saved(np.array([{}, []], object), allow_pickle=True),
        saved(np.zeros((), "f4")),
        saved(np.zeros((2, 0), "f4")),
        saved(np.zeros(2, [("a", "f4")])),
        with_version_3(np.zeros(2, [("ä", "f4")])),
        saved(np.zeros((2, 3), "f4")).replace(b"(2, 3)", b"(-2,3)"),
        saved(np.zeros((2, 3), "f4")).replace(b"(2, 3)", b"((((()"),
        saved(np.zeros((2, 3), "f4")).replace(b"'<f4'", b"'<??'"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_bad_row(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    np.save(tmp_path / "b.npy", np.ones((1, 3), "f4"))
    bad, good = rows_of(NpySource(), tmp_path, [VECTOR])
    assert bad.identity == {"path": f"{tmp_path}/a.npy", "row": -1}
    assert "it cannot be read as .npy" in bad.bad_because
    assert good.inputs["x"].tolist() == [1, 1, 1]


@settings(deadline=None)
@given(st.data())
def test_damage_in_the_header_is_never_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("npy") / "data.npy"
    content = bytearray(saved(np.zeros((2, 3), "f4")))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 70))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(InputShapeError, InputDtypeError):  # it may have become another array
        rows_of(NpySource(), path, [VECTOR])


@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_that_are_cut_off_are_one_bad_row(path, order):
    array = np.arange(30, dtype="f4").reshape(10, 3, order=order)
    content = saved(array)
    for lost in range(1, 121):
        path.write_bytes(content[:-lost])
        rows = rows_of(NpySource(40), path, [VECTOR])
        there = (120 - lost) // 12 if order == "C" else max(0, 10 - (lost + 3) // 4)
        assert values(rows[:-1]) == array[:there].tolist()
        assert rows[-1].identity["row"] == there
        assert "the file ends before the last of its 10 rows" in rows[-1].bad_because


def test_a_header_that_promises_too_much_costs_nothing(path):
    content = saved(np.zeros((2, 3), "f4"))
    path.write_bytes(content.replace(b"(2, 3), }        ", b"(999999999, 3), }"))
    rows = rows_of(NpySource(), path, [VECTOR])
    assert values(rows) == [[0] * 3] * 2 + [None]


@pytest.mark.parametrize("change", ["vanish", "shorten", "replace", "spoil"])
def test_a_file_that_changed_since_it_was_planned(path, change):
    content = saved(np.ones((10, 3), "f4"))
    path.write_bytes(content)
    changes = {
        "vanish": path.unlink,
        "shorten": lambda: path.write_bytes(content[:-40]),
        "replace": lambda: np.save(path, np.ones((4, 3), "f4")),
        "spoil": lambda: path.write_bytes(b"?" * len(content)),
    }
    rows = rows_of(NpySource(36), path, [VECTOR], twist=changes[change])
    assert len(rows) == 10
    good = {"vanish": 0, "shorten": 6, "replace": 4, "spoil": 0}[change]
    assert [row.bad_because is None for row in rows] == [True] * good + [False] * (10 - good)
    assert all(reasons(rows))


def test_a_file_of_other_rows_among_good_ones(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3), "f4"))
    np.save(tmp_path / "b.npy", np.ones((2, 4), "f4"))
    rows = rows_of(NpySource(), tmp_path, [VECTOR])
    assert values(rows) == [[1] * 3] * 2 + [None] * 2
    assert "has shape 4, the model takes 3" in rows[2].bad_because
