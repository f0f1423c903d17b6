"""Rows of the output on their way to a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from atriva_inference.tensor import Array
from atriva_ray.batch.outputs import OutputColumns
from atriva_ray.batch.rows import Row

__all__ = ["Chunk", "joined_schema"]

_CHUNK_ROWS = 4096
_CHUNK_BYTES = 8 << 20


class Chunk:
    """Rows of the output that wait to be written together.

    Attributes:
        row_count: how many there are.
    """

    def __init__(self, columns: OutputColumns, identity: pa.Schema, kept: pa.Schema) -> None:
        """Begin without rows.

        Args:
            columns: makes columns of answers.
            identity: columns that tell rows apart.
            kept: columns that go to the output as they are.
        """
        self._columns = columns
        self._identity = identity
        self._kept = kept
        self._clear()

    @property
    def is_full(self) -> bool:
        """Whether it is time to write them: 4,096 rows, or 8 MiB of answers."""
        return self.row_count >= _CHUNK_ROWS or self._size_bytes >= _CHUNK_BYTES

    def add(self, rows: Iterable[Row], answer: Mapping[str, Array]) -> None:
        """Take rows and their answers, samples along the first axis."""
        # Not the rows themselves: their inputs would stay in memory until they are written.
        for row in rows:
            self._identities.append(row.identity)
            self._kept_values.append(row.kept)
            self.row_count += 1
        for name, array in answer.items():
            self._answers.setdefault(name, []).append(array)
            self._size_bytes += array.nbytes

    def table(self, schema: pa.Schema) -> pa.Table:
        """Return the rows as a table of this schema, and begin anew."""
        arrays: list[Any] = []
        for schema_, values in (
            (self._identity, self._identities),
            (self._kept, self._kept_values),
        ):
            arrays.extend(
                pa.array([each.get(field_.name) for each in values], field_.type)
                for field_ in schema_
            )
        parts = _by_shape(self._answers)
        tables = [self._columns.columns(part) for part in parts]
        arrays.extend(
            pa.chunked_array([table[index] for table in tables])
            for index in range(len(self._columns.schema))
        )
        self._clear()
        return pa.table(arrays, schema=schema)

    def _clear(self) -> None:
        self.row_count = 0
        self._size_bytes = 0
        self._identities: list[Mapping[str, Any]] = []
        self._kept_values: list[Mapping[str, Any]] = []
        self._answers: dict[str, list[Array]] = {}


def _by_shape(answers: Mapping[str, Sequence[Array]]) -> Iterator[dict[str, Array]]:
    """Join answers whose samples have equal shapes, in order; most often that is all of them."""
    requests = [
        dict(zip(answers, arrays, strict=True)) for arrays in zip(*answers.values(), strict=True)
    ]
    run: list[dict[str, Array]] = []
    for request in requests:
        if run and any(
            run[0][name].shape[1:] != array.shape[1:] for name, array in request.items()
        ):
            yield _concatenated(run)
            run = []
        run.append(request)
    yield _concatenated(run)


def _concatenated(run: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([request[name] for request in run]) for name in run[0]}


def joined_schema(*schemas: pa.Schema) -> pa.Schema:
    """Put schemas one after the other; a name that is taken gets an underscore."""
    fields: list[pa.Field[Any]] = []
    for schema in schemas:
        for field_ in schema:
            name = field_.name
            while any(name == other.name for other in fields):
                name += "_"
            fields.append(field_.with_name(name))
    return pa.schema(fields)
