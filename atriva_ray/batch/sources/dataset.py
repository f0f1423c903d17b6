"""Rows of a Ray Data set, a table at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa
from pyarrow.fs import FileSystem

from atriva_inference.ports import Port
from atriva_ray.batch.fragments import Fragment, InputFile
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sources.ahead import ahead
from atriva_ray.batch.sources.arrow_columns import form_of
from atriva_ray.batch.sources.arrow_rows import BatchRows, check_types, kept_fields
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.sources.columns import Feed, feeds_of
from atriva_ray.batch.stages import Stage
from atriva_ray.picture_port import PicturePort

if TYPE_CHECKING:
    import ray

__all__ = ["DatasetSource", "fragments_of"]

_IDENTITY = pa.schema([pa.field("row", pa.int64())])
_WHERE = "the data set"
_BATCH_ROWS = 1024


@dataclass(frozen=True, slots=True)
class DatasetSource:
    """A table that somebody else has read.

    Attributes:
        rows_per_fragment: how many rows are done as a whole.
        first_row: number of the table's first row in the data set.
        table: the rows; None where it is only told what kind of input there is.
    """

    rows_per_fragment: int = 4096
    first_row: int = 0
    table: pa.Table | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """What people call it."""
        return "dataset"

    @property
    def identity(self) -> pa.Schema:
        """Columns that tell rows apart."""
        return _IDENTITY

    def checked(
        self,
        files: Sequence[InputFile],  # noqa: ARG002 - there are none
        filesystem: FileSystem,  # noqa: ARG002
        ports: Sequence[Port],
        columns: Mapping[str, str],
        keep: Sequence[str],
    ) -> Self:
        """Return itself.

        Raises:
            InputError: the model does not take what the columns hold.
            InputFileError: a column is not there, or an input has none or a choice of several.
        """
        if self.table is not None:
            feeds = _feeds(self.table.schema, ports, columns, keep)
            check_types(_WHERE, self.table.schema, ports, feeds)
        return self

    def kept(self, context: ReadContext) -> pa.Schema:
        """Return the columns that are kept."""
        schema = pa.schema([]) if self.table is None else self.table.schema
        return pa.schema(kept_fields(schema, context.keep))

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:  # noqa: ARG002
        """Return the table as one fragment."""
        return [Fragment(0, (), None if self.table is None else self.table.num_rows)]

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:  # noqa: ARG002
        """Yield the rows of the table.

        Raises:
            InputError, InputFileError: see `checked`.
        """
        if self.table is None:
            return iter(())
        self.checked((), context.filesystem, context.ports, context.columns, context.keep)
        makers = self._makers(self.table, context)
        if any(PicturePort.of(port) is not None for port in context.ports):
            return ahead(_made, makers, context.pool, context.ahead)
        return map(_made, makers)

    def _makers(self, table: pa.Table, context: ReadContext) -> Iterator[partial[Row]]:
        feeds = _feeds(table.schema, context.ports, context.columns, context.keep)
        kept = kept_fields(table.schema, context.keep)
        number = self.first_row
        for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
            with context.times.during(Stage.DECODE):
                rows = BatchRows(batch, context.ports, feeds, kept, context.fit)
            for index in range(batch.num_rows):
                yield partial(rows.row, index, {"row": number})
                number += 1


def fragments_of(
    dataset: ray.data.Dataset, rows_per_fragment: int
) -> Iterator[tuple[Fragment, pa.Table]]:
    """Cut a data set into fragments, in its order, while it is computed.

    Its tables pass through this process. Each fragment has a digest of its content, which tells
    whether a data set that is computed again is the same.
    """
    batches: Any = dataset.iter_batches(
        batch_size=rows_per_fragment, batch_format="pyarrow", prefetch_batches=1
    )
    for index, table in enumerate(batches):
        yield Fragment(index, (), table.num_rows, _digest(table)), table


def _digest(table: pa.Table) -> str:
    digest = hashlib.blake2b(digest_size=16)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    digest.update(sink.getvalue())
    return digest.hexdigest()


def _made(maker: partial[Row]) -> Row:
    return maker()


def _feeds(
    schema: pa.Schema,
    ports: Sequence[Port],
    columns: Mapping[str, str],
    keep: Sequence[str],
) -> tuple[Feed, ...]:
    forms = {name: form_of(schema.field(name).type) for name in schema.names}
    return feeds_of(_WHERE, forms, ports, columns, keep)
