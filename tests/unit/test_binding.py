"""Binding: the model gets the caller's values, and a copy of them only where it needs one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atriva_inference.binding import Staging, bind_inputs
from atriva_inference.errors import (
    InputDtypeError,
    InputError,
    InputNameError,
    InputShapeError,
    InputSizeError,
)
from atriva_inference.ports import Port
from atriva_inference.tensor import Tensor

SIGNED = ["int8", "int16", "int32", "int64"]
INTEGERS = [*SIGNED, "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
NUMBERS = ["bool", *INTEGERS, *FLOATS]


def port_of(dtype="float32", shape=(-1,), layout=None, name="x"):
    return Port(name, (name,), np.dtype(dtype), shape, layout)


def bind(value, port, *arguments):
    return bind_inputs([port], {port.name: value}, *arguments).arrays[port.name]


def arrays_of(dtype):
    return hnp.arrays(dtype, st.integers(1, 20))


def may_become(source, target, array):
    """Whether the rules let every value of the array go over."""
    if source == target:
        return True
    if target == "bool":
        return False
    if target in INTEGERS:
        bounds = np.iinfo(target)
        is_whole = source == "bool" or source in INTEGERS
        return is_whole and bounds.min <= int(array.min()) and int(array.max()) <= bounds.max
    with np.errstate(over="ignore"):
        return bool(np.isfinite(array.astype(target))[np.isfinite(array)].all())


@given(st.data(), st.sampled_from(NUMBERS), st.sampled_from(NUMBERS))
def test_every_value_goes_over_or_the_array_is_refused(data, source, target):
    array = data.draw(arrays_of(source))
    before = array.copy()
    if may_become(source, target, array):
        bound = bind(array, port_of(target))
        assert bound.dtype == target
        assert bound.flags.c_contiguous
        # Floats may lose digits, and nothing else; numpy's own rounding is the right one.
        np.testing.assert_array_equal(bound, array.astype(target))
        if target in INTEGERS:
            assert [int(value) for value in bound] == [int(value) for value in array]
    else:
        with pytest.raises(InputDtypeError) as caught:
            bind(array, port_of(target))
        assert caught.value.dtype == source
        assert caught.value.expected == target
    np.testing.assert_array_equal(array, before)


@given(st.sampled_from(["complex64", "complex128"]), st.sampled_from(NUMBERS))
def test_complex_numbers_become_nothing_else(source, target):
    with pytest.raises(InputDtypeError, match="astype"):
        bind(np.ones(3, source), port_of(target))


@given(st.data(), st.sampled_from(NUMBERS), st.sampled_from(["<", ">"]))
def test_the_order_of_bytes_does_not_matter(data, dtype, order):
    array = data.draw(arrays_of(dtype))
    swapped = array.astype(array.dtype.newbyteorder(order))
    np.testing.assert_array_equal(bind(swapped, port_of(dtype)), array)


@pytest.mark.parametrize(
    ("value", "source", "target"),
    [
        (70_000, "int32", "float16"),
        (2.0**128, "float64", "float32"),
        (-1, "int8", "uint8"),
        (128, "uint8", "int8"),
        (2**63, "uint64", "int64"),
        (1.0, "float32", "int32"),
        (1, "uint8", "bool"),
    ],
)
def test_one_value_too_many_is_enough_to_refuse(value, source, target):
    array = np.zeros(5, source)
    array[3] = value
    with pytest.raises(InputDtypeError):
        bind(array, port_of(target))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 5e-324])
@pytest.mark.parametrize("target", FLOATS)
def test_special_floats_are_kept(value, target):
    bound = bind(np.array([value]), port_of(target))
    np.testing.assert_array_equal(bound, np.array([value]).astype(target))


def test_narrow_floats_that_numpy_lacks():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    narrow = np.array([1, -2.5, 3], ml_dtypes.bfloat16)

    np.testing.assert_array_equal(bind(narrow, port_of("float32")), [1, -2.5, 3])
    wide = np.array([1, -2.5, 3], np.float32)
    np.testing.assert_array_equal(bind(wide, port_of(ml_dtypes.bfloat16)), narrow)


# -- copies ----------------------------------------------------------------------------------


@given(st.data(), st.sampled_from(NUMBERS))
def test_what_fits_is_not_copied(data, dtype):
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=4)))
    port = port_of(dtype, (-1,) * array.ndim)
    for value in (array, Tensor.from_numpy(array), Tensor.from_numpy(array, layout=None)):
        assert bind(value, port) is array or np.shares_memory(bind(value, port), array)


@given(st.permutations("NCHW"), st.permutations("NCHW"))
def test_axes_are_put_in_order_and_copied_only_if_they_were_not(given_layout, wanted_layout):
    sizes = dict(zip("NCHW", (2, 3, 4, 5), strict=True))
    shape = tuple(sizes[letter] for letter in given_layout)
    array = np.arange(120, dtype=np.float32).reshape(shape)
    wanted_shape = tuple(sizes[letter] for letter in wanted_layout)
    port = port_of("float32", wanted_shape, "".join(wanted_layout))

    bound = bind(Tensor.from_numpy(array, layout="".join(given_layout)), port)

    order = [given_layout.index(letter) for letter in wanted_layout]
    np.testing.assert_array_equal(bound, array.transpose(order))
    assert bound.flags.c_contiguous
    assert np.shares_memory(bound, array) == (given_layout == wanted_layout)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((4, 6), np.float32)[:, ::2],
        np.ones((6, 4), np.float32).T,
        np.ones((4, 6), np.float32)[::-1],
        np.broadcast_to(np.float32(1), (4, 6)),
        np.ones((4, 6), np.float64),
        np.ones((4, 6), ">f4"),
    ],
    ids=["gaps", "transposed", "reversed", "repeated", "float64", "big endian"],
)
def test_what_does_not_fit_is_copied_once(array):
    allocated = []

    def allocate(name, shape, dtype):
        allocated.append((name, shape, dtype))
        return np.empty(shape, dtype)

    bound = bind(array, port_of(shape=(-1, -1)), allocate)
    np.testing.assert_array_equal(bound, array)
    assert not np.shares_memory(bound, array)
    assert allocated == [("x", array.shape, np.float32)]


def test_a_contiguous_view_is_passed_on_as_it_is():
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert np.shares_memory(bind(whole[1:3], port_of(shape=(-1, 6))), whole)


def test_staging_gives_the_same_memory_for_the_same_shape():
    staging = Staging()
    port = port_of(shape=(-1,))

    first = bind(np.arange(3), port, staging.allocate)
    second = bind(np.arange(3) + 5, port, staging.allocate)
    assert second is first
    np.testing.assert_array_equal(first, [5, 6, 7])

    other = bind(np.arange(4), port, staging.allocate)
    assert not np.shares_memory(other, first)


def test_staging_keeps_inputs_apart():
    ports = [port_of(name="a"), port_of(name="b")]
    inputs = {"a": np.arange(3), "b": np.arange(3) + 5}
    bound = bind_inputs(ports, inputs, Staging().allocate)
    np.testing.assert_array_equal(bound.arrays["a"], [0, 1, 2])
    np.testing.assert_array_equal(bound.arrays["b"], [5, 6, 7])


# -- shapes, names, sizes --------------------------------------------------------------------


@given(hnp.array_shapes(min_dims=0, max_dims=5), hnp.array_shapes(min_dims=0, max_dims=5))
def test_a_static_port_takes_its_own_shape_only(shape, wanted):
    port = port_of(shape=wanted)
    if shape == wanted:
        assert bind(np.ones(shape), port).shape == wanted
    else:
        with pytest.raises(InputShapeError) as caught:
            bind(np.ones(shape), port)
        assert caught.value.shape == shape
        assert caught.value.expected == wanted


@given(hnp.array_shapes(min_dims=0, max_dims=5))
def test_a_port_of_unknown_rank_takes_every_shape(shape):
    assert bind(np.ones(shape), port_of(shape=None)).shape == shape


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 0)])
def test_an_empty_array_is_refused_however_it_comes(shape):
    port = port_of("int8", (-1,) * len(shape))
    array = np.empty(shape, np.int64)
    for value in (array, array.tolist(), Tensor(array)):
        with pytest.raises(InputShapeError):
            bind(value, port)


def test_every_port_needs_exactly_one_value():
    ports = [Port("a", ("a", "alias"), np.dtype("f4"), (1,), None), port_of(name="b", shape=(1,))]
    one = np.ones(1, np.float32)

    assert set(bind_inputs(ports, {"alias": one, "b": one}).arrays) == {"a", "b"}
    for names in ([], ["a"], ["a", "b", "c"], ["a", "alias", "b"]):
        with pytest.raises(InputNameError):
            bind_inputs(ports, dict.fromkeys(names, one))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_the_size_limit_counts_the_larger_of_given_and_taken(monkeypatch, dtype):
    array = np.zeros(100, dtype)
    needed = 100 * max(array.itemsize, 4)
    monkeypatch.setenv("ATRIVA_MAX_INPUT_BYTES", str(needed))
    bind(array, port_of())
    monkeypatch.setenv("ATRIVA_MAX_INPUT_BYTES", str(needed - 1))
    with pytest.raises(InputSizeError) as caught:
        bind(array, port_of())
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (needed, needed - 1)


def test_the_size_limit_comes_before_any_copy():
    huge = np.broadcast_to(np.float64(1), (2**40,))
    with pytest.raises(InputSizeError):
        bind(huge, port_of())


everything = st.one_of(
    st.none(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.one_of(st.integers(), st.lists(st.integers()))),
    hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(max_dims=3, max_side=4)),
)


@given(everything, st.sampled_from([*NUMBERS, "U"]), st.sampled_from([None, (-1,), (2, -1)]))
def test_whatever_comes_is_bound_or_refused_as_an_input(value, dtype, shape):
    port = port_of(dtype, shape)
    try:
        bound = bind(value, port)
    except InputError:
        return
    assert port.accepts(bound.shape)
    assert bound.dtype.kind in ("US" if dtype == "U" else np.dtype(dtype).kind)


# -- shapes to compile for -------------------------------------------------------------------


def test_no_signature_without_an_override():
    assert bind_inputs([port_of()], {"x": np.ones(3)}).signature is None


def test_one_override_fixes_the_shapes_of_all_inputs():
    ports = [port_of(name="b", shape=(-1,)), port_of(name="a", shape=(2, -1))]
    b = Tensor.from_numpy(np.ones(6), shape_override=(6,))
    for order in itertools.permutations([("b", b), ("a", np.ones((2, 3)))]):
        bound = bind_inputs(ports, dict(order))
        assert bound.signature == (("a", (2, 3)), ("b", (6,)))


def test_an_override_means_nothing_to_a_static_input():
    value = Tensor.from_numpy(np.ones(6), shape_override=(2, 3))
    assert bind_inputs([port_of(shape=(2, 3))], {"x": value}).signature is None
