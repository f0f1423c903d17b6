"""Records of text: where they end, whatever is between quotes, in blocks of any size."""

from __future__ import annotations

import csv
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atriva_ray.batch.sources import records as module
from atriva_ray.batch.sources.records import (
    RecordEnds,
    TextShape,
    cut,
    first_record,
    records,
    text_begin,
)

CSV = TextShape(has_quotes=True, blank=b"\r\n")
LINES = TextShape(has_quotes=False, blank=b" \t\r\n")


class Stream:
    def __init__(self, content):
        self.content = content

    def read_at(self, count, offset):
        return self.content[offset : offset + count]


@pytest.fixture
def blocks_of(monkeypatch):
    def set_size(size):
        monkeypatch.setattr(module, "_BLOCK_BYTES", size)
        monkeypatch.setattr(module, "_FIRST_BLOCK_BYTES", size)

    return set_size


CSV_TEXT = st.lists(
    st.sampled_from(["a", "1", ",", '"', '""', "\n", "\r\n", '\n"', ',"', '",', "é", " "])
).map("".join)
LINES_TEXT = st.lists(st.sampled_from(["a", '"', "\n", "\r\n", " ", "\t", "{}", "\n\n", "é"])).map(
    "".join
)


def sequentially(content, shape):
    """The records, found letter by letter as `csv` does it."""
    found, begin = [], 0
    inside = closed = False
    previous = ord("\n")
    for position, letter in enumerate(content):
        if shape.has_quotes and letter == ord('"'):
            if inside:
                inside, closed = False, True
            elif closed or previous in b",\r\n":
                inside, closed = True, False
        else:
            closed = False
            if letter == ord("\n") and not inside:
                found.append(content[begin : position + 1])
                begin = position + 1
        previous = letter
    return [record for record in [*found, content[begin:]] if record.strip(shape.blank)]


@pytest.mark.parametrize(("shape", "texts"), [(CSV, CSV_TEXT), (LINES, LINES_TEXT)])
@given(data=st.data(), block=st.integers(1, 20), step=st.integers(1, 30))
@settings(deadline=None, max_examples=300)
def test_ranges_together_hold_every_record_once(shape, texts, data, block, step):
    content = data.draw(texts).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block)
        ranges = cut(Stream(content), 0, shape, step)
        expected = sequentially(content, shape)
        found = []
        for each in ranges:
            part = list(records(Stream(content), each.start, each.stop, shape))
            assert each.first_row == len(found)
            assert each.row_count == len(part) > 0
            found += part
        assert found == expected
        assert list(records(Stream(content), 0, len(content), shape)) == expected
        patch.setattr(module, "_FIRST_BLOCK_BYTES", block)
        if expected:
            record, end = first_record(Stream(content), 0, shape)
            assert record == expected[0]
            assert content[:end].endswith(record)
    assert all(one.stop <= other.start for one, other in pairwise(ranges))


@given(CSV_TEXT)
@example('a"b,c\n"d\ne"\n')
@example('"a"b"c\nd"\n')
@example('"a""b"\n')
@example('"a\n""\nb"\n')
@example('x""y\n')
@settings(max_examples=500)
def test_quotes_mean_what_the_csv_library_says(text):
    text = text.replace("\r\n", "\n")
    expected = [row for row in csv.reader(text.splitlines(keepends=True)) if row]
    found = records(Stream(text.encode()), 0, len(text.encode()), CSV)
    assert [next(csv.reader([record.decode()])) for record in found] == expected


def test_positions_are_behind_the_newlines():
    ends = RecordEnds(has_quotes=True)
    assert ends.find(b'a,"b').tolist() == []
    assert ends.find(b'\n",c\nd').tolist() == [5]
    assert ends.find(b"").tolist() == []
    assert ends.find(b"\n\n").tolist() == [1, 2]


def test_a_doubled_quote_between_blocks():
    ends = RecordEnds(has_quotes=True)
    assert ends.find(b'"a"').tolist() == []
    assert ends.find(b'"b\n",x"y\n').tolist() == [9]
    ends = RecordEnds(has_quotes=True)
    assert ends.find(b'x"').tolist() == []
    assert ends.find(b'"b\nc\n').tolist() == [3, 5]


def test_a_record_that_is_too_long_is_none_and_the_next_one_is_read(monkeypatch, blocks_of):
    monkeypatch.setattr(module, "MAX_RECORD_BYTES", 10)
    blocks_of(4)
    content = b"short\n" + b"x" * 30 + b"\nnext\n" + b" " * 30 + b"\n" + b"y" * 11
    found = list(records(Stream(content), 0, len(content), LINES))
    assert found == [b"short\n", None, b"next\n", None]
    assert [each.row_count for each in cut(Stream(content), 0, LINES, 1 << 20)] == [4]
    with pytest.raises(ValueError, match="first line is longer than 10 bytes"):
        first_record(Stream(b"x" * 30), 0, CSV)


def test_memory_is_bounded_for_a_record_that_never_ends(monkeypatch):
    monkeypatch.setattr(module, "MAX_RECORD_BYTES", 1 << 20)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1 << 18)

    class Endless:
        def read_at(self, count, offset):
            return b'"' + b"x" * (count - 1) if offset == 0 else b"x" * count

    assert list(records(Endless(), 0, 64 << 20, CSV)) == [None]


@pytest.mark.parametrize(
    ("content", "begin"), [(b"", 0), (b"a", 0), (b"\xef\xbb\xbfa", 3), (b"\xef\xbb", 0)]
)
def test_a_byte_order_mark_is_no_text(content, begin):
    assert text_begin(Stream(content)) == begin


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\r\n"])
def test_nothing_but_blanks(content):
    assert cut(Stream(content), 0, CSV, 10) == []
    assert list(records(Stream(content), 0, len(content), CSV)) == []
    with pytest.raises(ValueError, match="it is empty"):
        first_record(Stream(content), 0, CSV)


def test_cuts_are_about_as_far_apart_as_asked():
    content = b"0123456789\n" * 1000
    ranges = cut(Stream(content), 0, LINES, 110)
    assert {each.row_count for each in ranges} == {10}
    assert np.cumsum([0, *[each.row_count for each in ranges]])[:-1].tolist() == [
        each.first_row for each in ranges
    ]
