"""Layouts: arrays lie in memory as they were described, and a bad description does no harm."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.layout import (
    MAX_LAYOUTS,
    Layout,
    LayoutBook,
    LayoutTable,
    aligned,
    flat,
)

NUMBERS = [
    *("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"),
    *("f2", "f4", "f8", "c8", "c16"),
]

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
words = st.text(st.characters(min_codepoint=1), max_size=9)
numbers = st.sampled_from(NUMBERS).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), shapes))
fixed_text = st.sampled_from(["S1", "S7", "U1", "U6"]).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), shapes)
)
objects = hnp.arrays(np.dtype(object), shapes, elements=words)
any_array = st.one_of(numbers, numbers, fixed_text, objects)


def sent_over(book, table, arrays):
    """What the other end has of arrays: described, laid out flat, and read again."""
    layout, is_new, travelling = book.look_up(arrays)
    if is_new:
        table.add(layout.number, Layout.decode(layout.encode()))
    there = table.get(layout.number)
    body = bytearray(b"".join(flat(layout, travelling)))
    assert len(body) == layout.nbytes == there.nbytes
    return there.restored(there.views(body))


def assert_equal(received, sent):
    assert received.shape == sent.shape
    assert received.dtype.kind == sent.dtype.kind
    if sent.dtype.kind not in "OSU":
        assert received.dtype == sent.dtype
        assert received.tobytes() == sent.tobytes()
    else:
        assert received.tolist() == sent.tolist()


@given(st.lists(any_array, max_size=4))
def test_arrays_of_every_kind_arrive_as_they_were_sent(arrays):
    book, table = LayoutBook(), LayoutTable()
    for _ in range(2):  # described, and known
        received = sent_over(book, table, arrays)
        for after, before in zip(received, arrays, strict=True):
            assert_equal(after, before)


@pytest.mark.parametrize("dtype", [*NUMBERS, "S3", "U3", "O"])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0, 3), (3, 1, 2)])
def test_every_element_type_travels_in_every_shape(dtype, shape):
    array = np.full(shape, "abc" if dtype in ("S3", "U3", "O") else 1, np.dtype(dtype))
    (received,) = sent_over(LayoutBook(), LayoutTable(), [array])
    assert_equal(received, array)


@pytest.mark.parametrize("array", [np.array("abc"), np.array("abc", object), np.array(b"abc")])
def test_one_text_without_axes_stays_without_axes(array):
    (received,) = sent_over(LayoutBook(), LayoutTable(), [array])
    assert received.shape == ()
    assert received.item() == array.item()


def test_text_of_the_other_byte_order_arrives():
    array = np.array(["höhe", "⺠"], dtype=">U5")
    (received,) = sent_over(LayoutBook(), LayoutTable(), [array])
    assert received.tolist() == array.tolist()


def test_python_strings_are_python_strings_again():
    array = np.array([["a", "longer"], ["", "😀"]], object)
    (received,) = sent_over(LayoutBook(), LayoutTable(), [array])
    assert received.dtype == object
    assert [type(each) for each in received.ravel()] == [str] * 4
    assert received.tolist() == array.tolist()


def test_text_that_is_not_contiguous_arrives():
    array = np.array([["a", "b"], ["c", "d"]]).T
    (received,) = sent_over(LayoutBook(), LayoutTable(), [array])
    assert received.tolist() == [["a", "c"], ["b", "d"]]


@given(st.lists(st.tuples(st.sampled_from(NUMBERS), shapes), max_size=6))
def test_every_array_begins_at_a_multiple_of_64_and_none_overlaps(described):
    layout = Layout([(np.dtype(dtype), shape, False) for dtype, shape in described])
    end = 0
    for tensor in layout.tensors:
        assert tensor.offset % 64 == 0
        assert tensor.offset >= end
        end = tensor.offset + tensor.nbytes
    assert layout.nbytes == end


@given(st.integers(0, 2**41))
def test_the_next_multiple_of_64_is_the_next(offset):
    assert offset <= aligned(offset) < offset + 64
    assert aligned(offset) % 64 == 0


def test_arrays_are_not_copied_to_be_laid_out():
    arrays = [np.ones((3, 5), np.float32), np.ones(7, np.uint8)]
    pieces = list(flat(Layout.of(arrays), arrays))
    shared = [
        any(np.shares_memory(np.frombuffer(piece, np.uint8), array) for piece in pieces)
        for array in arrays
    ]
    assert shared == [True, True]


# -- malformed descriptions ----------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-(2**45), 2**45),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["<f4", "|u1", "<U3", "|S2", "text:<U3", "text:|S2", "<U0", "<f1", "O"]),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4), st.dictionaries(st.text(max_size=4), children, max_size=3)
    ),
    max_leaves=12,
)
almost_right = st.lists(
    st.tuples(
        st.sampled_from(["<f4", "<f16", "|b1", "<U3", "<U0", "|S0", "|S2", "text:<U3", "<c1"]),
        st.lists(st.one_of(st.integers(0, 4), st.integers(-1, 2**41)), max_size=34),
    ),
    max_size=4,
)


def decode_or_refuse(text):
    """Return the layout, None if it is refused; whatever is accepted can be used."""
    try:
        layout = Layout.decode(text)
    except FrameError:
        return None
    assert Layout.decode(layout.encode()).tensors == layout.tensors
    if layout.nbytes <= 2**20:
        views = layout.views(bytearray(layout.nbytes))
        assert [view.shape for view in views] == [tensor.shape for tensor in layout.tensors]
        assert sum(view.size for view in views) <= layout.nbytes
    return layout


@given(json_values)
def test_any_json_is_a_layout_or_is_refused(value):
    decode_or_refuse(json.dumps(value).encode())


@given(almost_right)
@example([("<f4", [2**40, 2**40, 0])])
@example([("<U0", [2**40])])
def test_almost_right_descriptions_are_usable_or_refused(entries):
    decode_or_refuse(json.dumps(entries).encode())


@given(st.binary(max_size=80))
def test_any_bytes_are_a_layout_or_are_refused(text):
    decode_or_refuse(text)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 60),
)
def test_a_changed_or_cut_description_is_usable_or_refused(changes, length):
    text = bytearray(b'[["<f4", [2, 3]], ["text:<U5", [4]], ["|u1", []]]')
    for position, value in changes:
        if position < len(text):
            text[position] = value
    decode_or_refuse(bytes(text))
    decode_or_refuse(bytes(text[:length]))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[",
        b"\xff\xfe",
        b"1",
        b"{}[]",
        b'"<f4"',
        b'{"<f4": [1]}',
        b'[["<f4"]]',
        b'[["<f4", [1], 0]]',
        b'[["<f4", 1]]',
        b'[["<f4", [1.0]]]',
        b'[["<f4", [true]]]',
        b'[["<f4", [-1]]]',
        b'[["<f4", ["1"]]]',
        b'[["<f4", [1099511627777]]]',
        b'[["<f8", [1099511627776]]]',
        b'[["<f4", [[1]]]]',
        b'[[["<f4"], [1]]]',
        b"[[null, [1]]]",
        b'[["O", [1]]]',
        b'[["|O", [1]]]',
        b'[["<V4", [1]]]',
        b'[["<M8", [1]]]',
        b'[["<M8[s]", [1]]]',
        b'[[">f4", [1]]]',
        b'[["<f4,<f4", [1]]]',
        b'[["(2,)<f4", [1]]]',
        b'[["<f4 ", [1]]]',
        b'[["text:<f4", [1]]]',
        b'[["text:|S4", [1]]]',
        b'[["text:text:<U4", [1]]]',
        b'[["text:", [1]]]',
        b'[["", [1]]]',
        b'[["<U999999999", [1]]]',
        b'[["<U\xd9\xa3", [1]]]',
        b'[["<U-1", [1]]]',
        json.dumps([["<f4", [1] * 33]]).encode(),
        json.dumps([["<f4", [1]]] * 1025).encode(),
        b"[" * 100_000,
        b'[["<f4", [' + b"9" * 5_000 + b"]]]",
    ],
)
def test_what_is_no_layout_is_refused(text):
    with pytest.raises(FrameError):
        Layout.decode(text)


@pytest.mark.parametrize("dtype", ["<U0", "|S0", "text:<U0"])
def test_text_without_width_is_refused_for_it_may_have_any_number_of_elements(dtype):
    with pytest.raises(FrameError):
        Layout.decode(json.dumps([[dtype, [2**40]]]).encode())


def test_an_empty_array_that_could_not_be_made_is_refused():
    with pytest.raises(FrameError):
        Layout.decode(json.dumps([["<f4", [2**40, 2**40, 0]]]).encode())


# -- numbers -------------------------------------------------------------------------------------


def test_what_looks_alike_is_described_once():
    book = LayoutBook()
    first, is_new, _ = book.look_up([np.zeros((2, 3), np.float32)])
    assert is_new
    again, is_new, _ = book.look_up([np.ones((2, 3), np.float32)])
    assert again is first
    assert not is_new
    for other in (
        [np.zeros((3, 2), np.float32)],
        [np.zeros((2, 3), np.int32)],
        [np.zeros((2, 3), np.float32)] * 2,
        [],
    ):
        layout, is_new, _ = book.look_up(other)
        assert is_new
        assert layout.number != first.number


def test_text_of_the_same_width_is_described_once():
    book = LayoutBook()
    first, is_new, _ = book.look_up([np.array(["ab", "c"], object)])
    assert is_new
    again, is_new, _ = book.look_up([np.array(["d", "ef"], object)])
    assert again is first
    assert not is_new
    wider, is_new, _ = book.look_up([np.array(["d", "efg"], object)])
    assert is_new
    fixed, is_new, _ = book.look_up([np.array(["ab", "c"])])
    assert is_new
    assert len({first.number, wider.number, fixed.number}) == 3


def test_numbers_are_used_again_the_oldest_first():
    book = LayoutBook()
    arrays = [np.zeros(size, np.uint8) for size in range(1, MAX_LAYOUTS + 4)]
    given_out = [book.look_up([array])[0].number for array in arrays]
    assert given_out == [*range(MAX_LAYOUTS), 0, 1, 2]
    assert book.look_up([arrays[MAX_LAYOUTS]])[1] is False
    layout, is_new, _ = book.look_up([arrays[0]])  # its number has gone to another
    assert is_new
    assert layout.number == 3


@pytest.mark.parametrize("seed", range(5))
def test_book_and_table_stay_in_step_when_numbers_are_used_again(seed):
    random = Random(seed)  # noqa: S311 - the same numbers in every run
    book, table = LayoutBook(), LayoutTable()
    held = []
    for _ in range(4 * MAX_LAYOUTS):
        size = int(random.triangular(1, 3 * MAX_LAYOUTS, 500))
        layout, is_new, _ = book.look_up([np.broadcast_to(np.uint8(0), (size,))])
        if is_new:
            table.add(
                layout.number,
                Layout(
                    [(tensor.dtype, tensor.shape, tensor.is_object) for tensor in layout.tensors]
                ),
            )
        there = table.get(layout.number)
        assert there.tensors == layout.tensors
        assert there.number == layout.number < MAX_LAYOUTS
        held.append((there, size))
    assert all(there.tensors[0].shape == (size,) for there, size in held)


def test_a_number_that_was_never_described_is_refused():
    with pytest.raises(FrameError, match="never described"):
        LayoutTable().get(0)


@pytest.mark.parametrize("number", [MAX_LAYOUTS, 2**32 - 1])
def test_a_number_that_is_too_large_is_refused(number):
    with pytest.raises(FrameError):
        LayoutTable().add(number, Layout([]))
