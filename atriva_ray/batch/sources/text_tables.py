"""What CSV and JSON lines have in common: records of text, which may be many in one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Self

import pyarrow as pa
from pyarrow.fs import FileSystem

from atriva_inference.ports import Port
from atriva_ray.batch.fragments import Fragment, InputFile, Piece
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sources.ahead import each_at_once
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.sources.columns import Feed, Form, feeds_of
from atriva_ray.batch.sources.numbered import NUMBERED, WHOLE_FILE, bad_row, row_identity
from atriva_ray.batch.sources.records import (
    MAX_RECORD_BYTES,
    Range,
    TextShape,
    cut,
    records,
    text_begin,
)
from atriva_ray.batch.sources.values import BadValueError, sample_of
from atriva_ray.batch.stages import Stage
from atriva_ray.errors import InputFileError

__all__ = ["TextTable"]

_SAMPLE_ROWS = 100
_SAMPLE_BYTES = 4 << 20
_CHUNK_ROWS = 256
_CHUNK_BYTES = 1 << 20
_UNREADABLE = (OSError, ValueError, pa.ArrowException)


@dataclass(frozen=True, slots=True)
class TextTable(ABC):
    """Rows of text, in files that are cut between records.

    Rows are numbered as they come; records that are blank are none.

    Attributes:
        bytes_per_fragment: about how much is done as a whole.
        feeds: which column feeds which input, as the first file tells; empty: each file tells.
        kept_fields: names and types of the columns that go to the output.
    """

    bytes_per_fragment: int = 16 << 20
    feeds: tuple[Feed, ...] = ()
    kept_fields: tuple[pa.Field[Any], ...] = ()

    shape: ClassVar[TextShape]

    @property
    @abstractmethod
    def kind(self) -> str:
        """What people call it."""

    @abstractmethod
    def header(self, stream: Any, start: int) -> tuple[tuple[str, ...], int]:
        """Return the names of columns, if the file begins with them, and where rows begin.

        Raises:
            ValueError: they cannot be read.
        """

    @abstractmethod
    def parse(self, record: bytes, names: tuple[str, ...]) -> Mapping[str, Any]:
        """Return a record's values by column.

        Raises:
            ValueError: it is not as it should be.
        """

    @abstractmethod
    def number(self, value: Any) -> Any:
        """Return a value as a number, or as nested lists of numbers.

        Raises:
            ValueError: it is none.
        """

    @abstractmethod
    def form(self, values: Sequence[Any]) -> Form:
        """Tell what is in a column by some of its values, of which none is missing."""

    @abstractmethod
    def kept_type(self, values: Sequence[Any]) -> pa.DataType:
        """Tell the type of a column that is kept, by some of its values."""

    @abstractmethod
    def keep(self, value: Any, type_: pa.DataType) -> Any:
        """Return a value as it is kept.

        Raises:
            ValueError: it is not of that type.
        """

    @property
    def identity(self) -> pa.Schema:
        """Columns that tell rows apart."""
        return NUMBERED

    def checked(
        self,
        files: Sequence[InputFile],
        filesystem: FileSystem,
        ports: Sequence[Port],
        columns: Mapping[str, str],
        keep: Sequence[str],
    ) -> Self:
        """Return the source that knows which column feeds which input, by the first file's rows.

        Raises:
            InputError: `columns` names an input that there is not.
            InputFileError: a column is not there, or an input has none or a choice of several.
        """
        for file in files:
            try:
                sample = self._sample(filesystem, file.path)
            except _UNREADABLE:
                continue
            if not sample:
                continue
            feeds = self._feeds(file.path, sample, ports, columns, keep)
            fields = tuple(pa.field(name, self.kept_type(sample[name])) for name in keep)
            return replace(self, feeds=feeds, kept_fields=fields)
        return self

    def kept(self, context: ReadContext) -> pa.Schema:
        """Return the columns that are kept."""
        return pa.schema(self._kept_fields(context))

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:
        """Cut files between records; each is read once, to find and count them."""
        fragments: list[Fragment] = []
        for file, ranges in zip(
            files, each_at_once(partial(self._look, filesystem), files), strict=True
        ):
            if ranges is None:
                fragments.append(Fragment(len(fragments), (Piece(file, first_row=None),)))
                continue
            for each in ranges:
                piece = Piece(file, each.start, each.stop, each.first_row)
                fragments.append(Fragment(len(fragments), (piece,), each.row_count))
        return fragments

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:
        """Yield one row per record that is not blank."""
        piece = fragment.pieces[0]
        if piece.stop is None or piece.first_row is None or fragment.row_count is None:
            return self._whole(piece.file, context)
        known = Range(piece.start, piece.stop, piece.first_row, fragment.row_count)
        return self._rows(piece.file.path, known, context)

    def _look(self, filesystem: FileSystem, file: InputFile) -> list[Range] | None:
        """Return where to cut a file; None if reading has to say what is wrong with it."""
        try:
            return self._cut(filesystem, file.path)
        except _UNREADABLE:
            return None

    def _cut(self, filesystem: FileSystem, path: str) -> list[Range]:
        with filesystem.open_input_file(path) as stream:
            _, start = self.header(stream, text_begin(stream))
            return cut(stream, start, self.shape, self.bytes_per_fragment)

    def _whole(self, file: InputFile, context: ReadContext) -> Iterator[Row]:
        """Yield the rows of a file that could not be read when the job was planned."""
        try:
            ranges = self._cut(context.filesystem, file.path)
        except _UNREADABLE as error:
            yield bad_row(file.path, WHOLE_FILE, f"it cannot be read as {self.kind}: {error}")
            return
        for each in ranges:
            yield from self._rows(file.path, each, context)

    def _rows(self, path: str, range_: Range, context: ReadContext) -> Iterator[Row]:
        row = range_.first_row
        end = row + range_.row_count
        reason = "the file has fewer rows than when the job was planned"
        try:
            with context.filesystem.open_input_file(path) as stream:
                names, _ = self.header(stream, text_begin(stream))
                feeds = self.feeds or self._own_feeds(path, context)
                found = islice(
                    records(stream, range_.start, range_.stop, self.shape), range_.row_count
                )
                while chunk := _chunk(found, context):
                    with context.times.during(Stage.DECODE):
                        rows = [
                            self._row(path, number, record, names, feeds, context)
                            for number, record in enumerate(chunk, row)
                        ]
                    row += len(rows)
                    yield from rows
        except InputFileError as error:
            reason = error.reason
        except _UNREADABLE as error:
            reason = f"it cannot be read as {self.kind}: {error}"
        for missing in range(row, end):
            yield bad_row(path, missing, reason)

    def _row(
        self,
        path: str,
        number: int,
        record: bytes | None,
        names: tuple[str, ...],
        feeds: tuple[Feed, ...],
        context: ReadContext,
    ) -> Row:
        if record is None:
            return bad_row(path, number, f"it is longer than {MAX_RECORD_BYTES:,} bytes")
        try:
            values = self.parse(record, names)
            inputs = {
                port.name: sample_of(port, feed, values, self.number)
                for port, feed in zip(context.ports, feeds, strict=True)
            }
            kept = {field.name: self._keep(field, values) for field in self._kept_fields(context)}
        except ValueError as error:
            return bad_row(path, number, str(error))
        return Row(row_identity(path, number), inputs, kept)

    def _keep(self, field: pa.Field[Any], values: Mapping[str, Any]) -> Any:
        value = values.get(field.name)
        if value is None:
            return None
        try:
            return self.keep(value, field.type)
        except ValueError as error:
            raise BadValueError(f"column {field.name!r}, which is kept, {error}") from None

    def _kept_fields(self, context: ReadContext) -> tuple[pa.Field[Any], ...]:
        return self.kept_fields or tuple(pa.field(name, pa.string()) for name in context.keep)

    def _own_feeds(self, path: str, context: ReadContext) -> tuple[Feed, ...]:
        sample = self._sample(context.filesystem, path)
        return self._feeds(path, sample, context.ports, context.columns, context.keep)

    def _feeds(
        self,
        path: str,
        sample: Mapping[str, Sequence[Any]],
        ports: Sequence[Port],
        columns: Mapping[str, str],
        keep: Sequence[str],
    ) -> tuple[Feed, ...]:
        forms = {name: self.form(values) for name, values in sample.items()}
        return feeds_of(path, forms, ports, columns, keep)

    def _sample(self, filesystem: FileSystem, path: str) -> dict[str, list[Any]]:
        """Return values of the first rows by column; none if no row can be read."""
        sample: dict[str, list[Any]] = {}
        with filesystem.open_input_file(path) as stream:
            names, start = self.header(stream, text_begin(stream))
            found = records(stream, start, start + _SAMPLE_BYTES, self.shape)
            for record in islice(found, _SAMPLE_ROWS):
                with suppress(ValueError):
                    values = {} if record is None else self.parse(record, names)
                    for name, value in values.items():
                        sample.setdefault(name, []).append(value)
        return {
            name: [value for value in values if value is not None]
            for name, values in sample.items()
        }


def _chunk(found: Iterator[bytes | None], context: ReadContext) -> list[bytes | None]:
    """Return the next records, so many that looking at the clock does not count."""
    chunk = []
    size_bytes = 0
    with context.times.during(Stage.READ):
        for record in found:
            chunk.append(record)
            size_bytes += len(record or b"")
            if size_bytes > _CHUNK_BYTES or len(chunk) >= _CHUNK_ROWS:
                break
    return chunk
