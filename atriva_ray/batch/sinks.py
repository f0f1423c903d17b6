"""How the output of one fragment is written: as Parquet, JSON lines or NumPy arrays."""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from enum import StrEnum
from types import TracebackType
from typing import IO, Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSystem

from atriva_inference.errors import OptionError
from atriva_ray.batch.locations import write_whole

__all__ = ["OutputFormat", "Sink", "open_sink", "part_name"]

_LONGEST_NAME = 50


class OutputFormat(StrEnum):
    """What the output is written as."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    NPY = "npy"

    @classmethod
    def parse(cls, text: str | None, folder: str) -> OutputFormat:
        """Take the format in any case; None: what the folder's name ends in, else Parquet.

        Raises:
            OptionError: there is no such format.
        """
        if text is None:
            _, dot, suffix = folder.rstrip("/").lower().rpartition(".")
            return cls(suffix) if dot and suffix in list(cls) else cls.PARQUET
        try:
            return cls(str(text).lower())
        except ValueError:
            raise OptionError("format", str(text), f"one of {', '.join(cls)}") from None


def part_name(index: int, suffix: str) -> str:
    """Name of a fragment's file; names sort as fragments do."""
    return f"part-{index:06d}.{suffix}"


class Sink(Protocol):
    """Takes a fragment's rows; its files appear under their names when it is left without error."""

    def write(self, table: pa.Table) -> None:
        """Append rows."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The files that there will be."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...


def open_sink(
    format_: OutputFormat, filesystem: FileSystem, folder: str, index: int, schema: pa.Schema
) -> Sink:
    """Return the sink of one fragment."""
    match format_:
        case OutputFormat.PARQUET:
            return _ParquetSink(filesystem, folder, index, schema)
        case OutputFormat.JSONL:
            return _JsonLinesSink(filesystem, folder, index)
        case OutputFormat.NPY:
            return _NpySink(filesystem, folder, index, schema)


class _FileSink(ABC):
    """What sinks have in common: files that are complete or not there."""

    def __init__(self, filesystem: FileSystem, folder: str) -> None:
        self._filesystem = filesystem
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if kind is not None:
            return self._stack.__exit__(kind, error, traceback)
        with self._stack:
            self._finish()
        return None

    @abstractmethod
    def _open(self) -> None:
        """Open what `write` writes to."""

    def _finish(self) -> None:  # noqa: B027 - most sinks have nothing left to write
        """Write what can only be written at the end."""

    def _file(self, name: str) -> Any:
        return self._stack.enter_context(write_whole(self._filesystem, f"{self._folder}/{name}"))


class _ParquetSink(_FileSink):
    def __init__(self, filesystem: FileSystem, folder: str, index: int, schema: pa.Schema) -> None:
        super().__init__(filesystem, folder)
        self._schema = schema
        self.names = (part_name(index, "parquet"),)

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def _open(self) -> None:
        file = self._file(self.names[0])
        # Entered after the file, so that its footer is written before the file gets its name.
        self._writer = self._stack.enter_context(
            pq.ParquetWriter(file, self._schema, compression="snappy")
        )


class _JsonLinesSink(_FileSink):
    """One object per line; NaN and infinities, which JSON lacks, become null."""

    def __init__(self, filesystem: FileSystem, folder: str, index: int) -> None:
        super().__init__(filesystem, folder)
        self.names = (part_name(index, "jsonl"),)

    def write(self, table: pa.Table) -> None:
        for line in _json_lines(table):
            self._stream.write(line)

    def _open(self) -> None:
        self._stream = self._file(self.names[0])


def _json_lines(table: pa.Table) -> Iterator[bytes]:
    columns = [_values(column) for column in table.columns]
    for values in zip(*columns, strict=True):
        row = dict(zip(table.column_names, values, strict=True))
        try:
            text = json.dumps(row, allow_nan=False, ensure_ascii=False, default=_told)
        except ValueError:
            text = json.dumps(_finite(row), allow_nan=False, ensure_ascii=False, default=_told)
        yield text.encode() + b"\n"


def _values(column: pa.ChunkedArray[Any]) -> list[Any]:
    if not isinstance(column.type, pa.FixedShapeTensorType):
        return column.to_pylist()
    if not column.null_count:
        values: list[Any] = _stacked(column).tolist()
        return values
    flat: Any = column.cast(column.type.storage_type)
    return [each and np.reshape(each, column.type.shape).tolist() for each in flat.to_pylist()]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):  # entries of a map are tuples
        return [_finite(each) for each in value]
    is_number = isinstance(value, (float, np.floating))
    return None if is_number and not math.isfinite(value) else value


def _told(value: Any) -> Any:
    # Of half precision, older Arrow gives NumPy's numbers.
    return float(value) if isinstance(value, np.floating) else str(value)


def _stacked(column: pa.ChunkedArray[Any]) -> np.ndarray[Any, Any]:
    chunks: list[Any] = column.chunks
    type_: Any = column.type
    if pa.types.is_boolean(type_.value_type):  # of which Arrow makes no arrays
        flat = [chunk.storage.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
        return np.concatenate(flat).reshape(len(column), *type_.shape)
    return np.concatenate([chunk.to_numpy_ndarray() for chunk in chunks])


class _NpySink(_FileSink):
    """One array per column of numbers, and the other columns as JSON lines beside them.

    The number of rows stands at the beginning of a ``.npy`` file and is known at its end, so rows
    are kept in a temporary file of this machine until then.
    """

    def __init__(self, filesystem: FileSystem, folder: str, index: int, schema: pa.Schema) -> None:
        super().__init__(filesystem, folder)
        self._arrays = [field for field in schema if _is_array(field.type)]
        self._others = [field.name for field in schema if not _is_array(field.type)]
        self._files = _file_names([field.name for field in self._arrays], index)
        self.names = (*self._files.values(), part_name(index, "rows.jsonl"))
        self._bodies: dict[str, IO[bytes]] = {}
        self._row_count = 0

    def write(self, table: pa.Table) -> None:
        for field in self._arrays:
            column = table.column(field.name)
            is_tensor = isinstance(field.type, pa.FixedShapeTensorType)
            values = _stacked(column) if is_tensor else column.to_numpy()
            self._bodies[field.name].write(np.ascontiguousarray(values).tobytes())
        for line in _json_lines(table.select(self._others)):
            self._rows.write(line)
        self._row_count += table.num_rows

    def _open(self) -> None:
        self._rows = self._file(self.names[-1])
        for field in self._arrays:
            body = tempfile.TemporaryFile()  # noqa: SIM115 - the stack closes it
            self._bodies[field.name] = self._stack.enter_context(body)

    def _finish(self) -> None:
        for field in self._arrays:
            target = self._file(self._files[field.name])
            _write_header(target, field.type, self._row_count)
            body = self._bodies[field.name]
            body.seek(0)
            shutil.copyfileobj(body, target, 1 << 20)


def _file_names(columns: Sequence[str], index: int) -> dict[str, str]:
    """Return the file of each column; what no file may be called like becomes underscores."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for column in columns:
        letters = column[:_LONGEST_NAME]
        safe = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in letters)
        while safe.lower() in taken:
            safe += "_"
        taken.add(safe.lower())
        names[column] = part_name(index, f"{safe}.npy")
    return names


def _is_array(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.FixedShapeTensorType) or pa.types.is_floating(type_)


def _write_header(stream: Any, type_: pa.DataType, row_count: int) -> None:
    shape = tuple(type_.shape) if isinstance(type_, pa.FixedShapeTensorType) else ()
    element = type_.value_type if isinstance(type_, pa.FixedShapeTensorType) else type_
    header = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(element.to_pandas_dtype())),
        "fortran_order": False,
        "shape": (row_count, *shape),
    }
    np.lib.format.write_array_header_1_0(stream, header)
