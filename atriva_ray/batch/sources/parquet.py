"""Parquet files as rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, LocalFileSystem

from atriva_inference.ports import Port
from atriva_ray.batch.fragments import Fragment, InputFile, Piece
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sources.ahead import ahead, each_at_once
from atriva_ray.batch.sources.arrow_columns import form_of
from atriva_ray.batch.sources.arrow_rows import BatchRows, check_types, kept_fields
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.sources.columns import Feed, check_names, feeds_of
from atriva_ray.batch.sources.numbered import NUMBERED, WHOLE_FILE, bad_row, row_identity
from atriva_ray.batch.stages import Stage
from atriva_ray.errors import InputFileError
from atriva_ray.picture_port import PicturePort

__all__ = ["ParquetSource"]

_UNREADABLE = (OSError, ValueError, IndexError, KeyError, pa.ArrowException)
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 4096
_BUFFER_BYTES = 1 << 20
_REMOTE_BUFFER_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """Tables whose columns hold numbers, lists, tensors or encoded pictures.

    A fragment is a range of row groups of one file; it ends with the first that makes it large
    enough. However large a row group is, it is read in parts.

    Attributes:
        rows_per_fragment: how many rows are enough.
        bytes_per_fragment: how much is enough, in memory.
        feeds: which column feeds which input, as the first file tells; empty: each file tells.
        kept_fields: names and types of the columns that go to the output.
    """

    rows_per_fragment: int = 4096
    bytes_per_fragment: int = 64 << 20
    feeds: tuple[Feed, ...] = ()
    kept_fields: tuple[pa.Field[Any], ...] = ()

    @property
    def kind(self) -> str:
        """What people call it."""
        return "parquet"

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
        """Return the source that knows which column feeds which input.

        Raises:
            InputError: the model does not take what the columns hold.
            InputFileError: a column is not there, or an input has none or a choice of several.
            PictureError: there are pictures, and Pillow is missing.
        """
        for file in files:
            try:
                with filesystem.open_input_file(file.path) as stream:
                    schema = _parquet(stream).schema_arrow
            except _UNREADABLE:
                continue
            feeds = _feeds(file.path, schema, ports, columns, keep)
            check_types(file.path, schema, ports, feeds)
            return replace(self, feeds=feeds, kept_fields=kept_fields(schema, keep))
        return self

    def kept(self, context: ReadContext) -> pa.Schema:
        """Return the columns that are kept."""
        known = self.kept_fields
        return pa.schema(known or [pa.field(name, pa.null()) for name in context.keep])

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:
        """Cut files between row groups; only footers are read."""
        fragments: list[Fragment] = []
        looks = each_at_once(partial(_look, filesystem), files)
        for file, groups in zip(files, looks, strict=True):
            if groups is None:
                fragments.append(Fragment(len(fragments), (Piece(file, first_row=None),)))
                continue
            first = rows = size_bytes = first_row = 0
            for index, (row_count, group_bytes) in enumerate(groups, 1):
                rows += row_count
                size_bytes += group_bytes
                is_enough = rows >= self.rows_per_fragment or size_bytes >= self.bytes_per_fragment
                if rows and (is_enough or index == len(groups)):
                    piece = Piece(file, first, index, first_row)
                    fragments.append(Fragment(len(fragments), (piece,), rows))
                    first, first_row, rows, size_bytes = index, first_row + rows, 0, 0
        return fragments

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:
        """Yield rows; what feeds an input of pictures is decoded ahead."""
        piece = fragment.pieces[0]
        if any(PicturePort.of(port) is not None for port in context.ports):
            makers = self._makers(piece, fragment.row_count, context, Stage.DECODE)
            return ahead(_made, makers, context.pool, context.ahead)
        return map(_made, self._makers(piece, fragment.row_count, context, None))

    def _makers(
        self, piece: Piece, row_count: int | None, context: ReadContext, stage: Stage | None
    ) -> Iterator[Callable[[], Row]]:
        """Yield what makes one row each, as many as planned whatever becomes of the file."""
        path, first = piece.file.path, piece.first_row or 0
        done = 0
        reason = ""
        try:
            for rows, count in self._batches(piece, context):
                for index in range(count if row_count is None else min(count, row_count - done)):
                    yield partial(_row, rows, index, path, first + done, context, stage)
                    done += 1
        except InputFileError as error:
            reason = error.reason
        except _UNREADABLE as error:
            reason = f"it cannot be read as parquet: {error}"
        if row_count is not None:
            reason = reason or "the file has fewer rows than when the job was planned"
            for missing in range(first + done, first + row_count):
                yield partial(bad_row, path, missing, reason)
        elif reason:
            yield partial(bad_row, path, done or WHOLE_FILE, reason)

    def _batches(self, piece: Piece, context: ReadContext) -> Iterator[tuple[BatchRows, int]]:
        path = piece.file.path
        with context.filesystem.open_input_file(path) as stream:
            with context.times.during(Stage.READ):
                is_local = isinstance(context.filesystem, LocalFileSystem)
                file = _parquet(stream, _BUFFER_BYTES if is_local else _REMOTE_BUFFER_BYTES)
                counts = _groups(file.metadata)
                schema = file.schema_arrow
                feeds = self.feeds or _feeds(
                    path, schema, context.ports, context.columns, context.keep
                )
                kept = self.kept_fields or kept_fields(schema, context.keep)
                used = [*(name for feed in feeds for name in feed.columns), *context.keep]
                check_names(path, schema.names, used)
                names = list(dict.fromkeys(used))
                groups = range(len(counts))[piece.start : piece.stop]
                batches = file.iter_batches(
                    _batch_rows([counts[index] for index in groups]), list(groups), columns=names
                )
            while True:
                with context.times.during(Stage.READ):
                    batch = next(batches, None)
                if batch is None:
                    return
                with context.times.during(Stage.DECODE):
                    rows = BatchRows(batch, context.ports, feeds, kept, context.fit)
                yield rows, batch.num_rows


def _look(filesystem: FileSystem, file: InputFile) -> list[tuple[int, int]] | None:
    """Return rows and bytes of row groups; None if reading has to say what is wrong."""
    try:
        with filesystem.open_input_file(file.path) as stream:
            return _groups(_parquet(stream).metadata)
    except _UNREADABLE:
        return None


def _groups(metadata: pq.FileMetaData) -> list[tuple[int, int]]:
    """Return rows and bytes of row groups.

    Raises:
        ValueError: they cannot be true.
    """
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    counts = [group.num_rows for group in groups]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise ValueError("its footer is damaged: numbers of rows do not add up")
    return list(zip(counts, (group.total_byte_size for group in groups), strict=True))


def _parquet(stream: Any, buffer_bytes: int = 0) -> pq.ParquetFile:
    # Without a buffer, all of a row group's column would be read at once.
    return pq.ParquetFile(
        stream, buffer_size=buffer_bytes, pre_buffer=False, page_checksum_verification=True
    )


def _feeds(
    path: str,
    schema: pa.Schema,
    ports: Sequence[Port],
    columns: Mapping[str, str],
    keep: Sequence[str],
) -> tuple[Feed, ...]:
    counts = Counter(schema.names)
    forms = {field.name: form_of(field.type) for field in schema if counts[field.name] == 1}
    return feeds_of(path, forms, ports, columns, keep)


def _batch_rows(groups: Sequence[tuple[int, int]]) -> int:
    """Return how many rows to read at once, so that they take a few megabytes.

    It goes by the size of all columns: asking Arrow for that of one of them ends the process if the
    footer is damaged.
    """
    most_bytes = max((size // max(1, rows) for rows, size in groups), default=0)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, most_bytes)))


def _row(
    rows: BatchRows, index: int, path: str, number: int, context: ReadContext, stage: Stage | None
) -> Row:
    identity = row_identity(path, number)
    if stage is None:
        return rows.row(index, identity)
    with context.times.during(stage):
        return rows.row(index, identity)


def _made(maker: Callable[[], Row]) -> Row:
    return maker()
