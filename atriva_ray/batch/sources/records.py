"""Records of a text file: where they end, where to cut between them, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_RECORD_BYTES",
    "Range",
    "RecordEnds",
    "TextShape",
    "cut",
    "first_record",
    "records",
    "text_begin",
]

MAX_RECORD_BYTES = 16 << 20
_BLOCK_BYTES = 4 << 20
_FIRST_BLOCK_BYTES = 64 << 10
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NEWLINE, _RETURN, _QUOTE, _COMMA = b'\n\r",'
_ORDINARY = ord("x")

Positions: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TextShape:
    """What tells records apart.

    Attributes:
        has_quotes: whether a newline between quotes belongs to the record, as in CSV.
        blank: bytes that make up records which are no rows.
    """

    has_quotes: bool
    blank: bytes


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a file that hold whole records.

    Attributes:
        start: where it begins.
        stop: where it ends.
        first_row: number of its first row.
        row_count: how many rows it holds.
    """

    start: int
    stop: int
    first_row: int
    row_count: int


class RecordEnds:
    """Finds where records end, in blocks that follow each other.

    A quote begins a quoted field at the begin of a field only, as for any reader of CSV; anywhere
    else outside of quotes it is a letter like others.
    """

    def __init__(self, has_quotes: bool) -> None:
        self._has_quotes = has_quotes
        self._is_inside = False
        self._previous = _NEWLINE

    def find(self, block: bytes) -> Positions:
        """Return the positions after the newlines that end records."""
        data = np.frombuffer(block, np.uint8)
        newlines: Positions = np.flatnonzero(data == _NEWLINE)
        if self._has_quotes:
            flips = self._flips(data)
            inside = (np.searchsorted(flips, newlines) + self._is_inside) & 1
            newlines = newlines[inside == 0]
            self._is_inside ^= bool(len(flips) & 1)
        return newlines + 1

    def _flips(self, data: npt.NDArray[np.uint8]) -> Positions:
        """Return the positions of quotes that begin or end a quoted field.

        Doubled quotes inside of a field end it and begin it again, which comes to the same.
        """
        quotes: Positions = np.flatnonzero(data == _QUOTE)
        before = np.concatenate([np.array([self._previous], np.uint8), data])[quotes]
        # Nearly always every second quote begins a field; then there is nothing to look at.
        begins = before[int(self._is_inside) :: 2]
        allowed = np.array([_COMMA, _NEWLINE, _RETURN, _QUOTE], np.uint8)
        is_plain = bool(np.isin(begins, allowed).all())
        flips = quotes if is_plain else self._looked_at(quotes, before)
        if len(data):
            is_letter = data[-1] == _QUOTE and (not len(flips) or flips[-1] != len(data) - 1)
            self._previous = _ORDINARY if is_letter else int(data[-1])
        return flips

    def _looked_at(self, quotes: Positions, before: npt.NDArray[np.uint8]) -> Positions:
        is_inside = self._is_inside
        flips = []
        last_end = -1 if self._previous == _QUOTE else -2
        begins = {_COMMA, _NEWLINE, _RETURN}
        for position, previous in zip(quotes.tolist(), before.tolist(), strict=True):
            if is_inside:
                last_end = position
            elif previous not in begins and position != last_end + 1:
                continue
            is_inside = not is_inside
            flips.append(position)
        return np.array(flips, np.int64)


def text_begin(stream: Any) -> int:
    """Return where text begins in an open file: behind its byte order mark, if it has one."""
    return len(_BYTE_ORDER_MARK) if stream.read_at(3, 0) == _BYTE_ORDER_MARK else 0


def cut(stream: Any, start: int, shape: TextShape, step: int) -> list[Range]:
    """Cut an open file from `start` to its end at record ends, about every `step` bytes.

    It is read as a whole, block by block.
    """
    ends = RecordEnds(shape.has_quotes)
    ranges: list[Range] = []
    begin, first_row, row = start, 0, 0
    offset = start
    is_blank = True  # what is there of the record that the last block ended in
    while block := stream.read_at(_BLOCK_BYTES, offset):
        found = ends.find(block)
        is_row = _are_rows(block, found, shape.blank, is_blank)
        if len(found):
            is_blank = True
        is_blank &= not block[found[-1] if len(found) else 0 :].strip(shape.blank)
        rows = row + np.cumsum(is_row)
        while len(found) and offset + found[-1] >= begin + step:
            index = int(np.searchsorted(found, begin + step - offset))
            stop = offset + int(found[index])
            ranges.append(Range(begin, stop, first_row, int(rows[index]) - first_row))
            begin, first_row = stop, int(rows[index])
        row = int(rows[-1]) if len(found) else row
        offset += len(block)
    row += not is_blank
    ranges.append(Range(begin, offset, first_row, row - first_row))
    return [each for each in ranges if each.row_count]


def _are_rows(
    block: bytes,
    ends: Positions,
    blank: bytes,
    is_first_blank: bool,
) -> npt.NDArray[np.bool_]:
    """Return which records that end in a block are more than blanks."""
    is_row = np.ones(len(ends), np.bool_)
    if not len(ends):
        return is_row
    starts = np.concatenate([[0], ends[:-1]])
    data = np.frombuffer(block, np.uint8)
    is_open = np.isin(data[starts], np.frombuffer(blank, np.uint8))
    for index in np.flatnonzero(is_open).tolist():
        is_row[index] = bool(block[starts[index] : ends[index]].strip(blank))
    is_row[0] |= not is_first_blank
    return is_row


def first_record(stream: Any, start: int, shape: TextShape) -> tuple[bytes, int]:
    """Return the first record of an open file that is not blank, and where it ends.

    Raises:
        ValueError: there is none, or it is too long.
    """
    ends = RecordEnds(shape.has_quotes)
    text = bytearray()
    begin = 0
    while len(text) <= MAX_RECORD_BYTES:
        block = stream.read_at(_FIRST_BLOCK_BYTES, start + len(text))
        found = (ends.find(block) + len(text)).tolist()
        text += block
        if not block:
            found = [len(text)]
        for end in found:
            record = bytes(text[begin:end])
            if record.strip(shape.blank):
                return record, start + end
            begin = end
        if not block:
            raise ValueError("it is empty")
    raise ValueError(f"its first line is longer than {MAX_RECORD_BYTES:,} bytes")


def records(stream: Any, start: int, stop: int, shape: TextShape) -> Iterator[bytes | None]:
    """Yield the records of a range of an open file that are rows; None for one that is too long."""
    ends = RecordEnds(shape.has_quotes)
    carried = _Carried(shape.blank)
    offset = start
    while offset < stop and (block := stream.read_at(min(_BLOCK_BYTES, stop - offset), offset)):
        offset += len(block)
        found = ends.find(block).tolist()
        if not found:
            carried.add(block)
            continue
        carried.add(block[: found[0]])
        if carried.is_row:
            yield carried.record
        for begin, end in pairwise(found):
            record = block[begin:end]
            if record[0] not in shape.blank or record.strip(shape.blank):
                yield record
        carried = _Carried(shape.blank)
        carried.add(block[found[-1] :])
    if carried.is_row:
        yield carried.record


class _Carried:
    """What is there of a record that goes on in the next block."""

    def __init__(self, blank: bytes) -> None:
        self._blank = blank
        self._parts: list[bytes] = []
        self._size_bytes = 0
        self.is_row = False

    def add(self, part: bytes) -> None:
        self._size_bytes += len(part)
        self.is_row = self.is_row or bool(part.strip(self._blank))
        if self._size_bytes <= MAX_RECORD_BYTES:
            self._parts.append(part)
        else:
            self._parts.clear()

    @property
    def record(self) -> bytes | None:
        return b"".join(self._parts) if self._size_bytes <= MAX_RECORD_BYTES else None
