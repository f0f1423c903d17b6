"""NumPy files of one array each, whose first axis counts rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from tokenize import TokenError
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSystem, LocalFileSystem

from atriva_inference.errors import InputDtypeError, InputError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.batch.fragments import Fragment, InputFile, Piece
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sources.ahead import each_at_once
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.sources.columns import refuse_columns
from atriva_ray.batch.sources.numbered import NUMBERED, WHOLE_FILE, bad_row, row_identity
from atriva_ray.batch.sources.samples import cast_block, check_kind, fit_block, is_safe
from atriva_ray.batch.stages import Stage
from atriva_ray.errors import InputFileError

__all__ = ["UNREADABLE", "NpyHeader", "NpySource", "read_header"]

_VERSIONS = ((1, 0), (2, 0))
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,
    OverflowError,
    MemoryError,
    RecursionError,
    TokenError,
)
"""What reading a file that is not what it should be raises."""


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What stands at the beginning of a file.

    Attributes:
        shape: of the array, rows first.
        dtype: its elements'.
        is_fortran: whether the first axis varies fastest.
        offset: where the elements begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def like_row(self) -> Array:
        """Return a block of one row of this kind, which takes no memory."""
        return np.broadcast_to(np.zeros((), self.dtype), (1, *self.shape[1:]))

    def rows_in(self, size_bytes: int) -> int:
        """Return how many rows are whole in a file of this size."""
        elements = max(0, size_bytes - self.offset) // self.dtype.itemsize
        per_row = math.prod(self.shape[1:])
        if self.is_fortran:  # the last element of a row lies behind those of all rows
            elements -= self.shape[0] * (per_row - 1)
            return min(self.shape[0], max(0, elements))
        return min(self.shape[0], elements // per_row)


def read_header(file: Any) -> NpyHeader:
    """Read the header from the beginning of a stream.

    Raises:
        Exception: one of `UNREADABLE`: it is no NumPy file, or holds no rows of numbers or text.
    """
    version = np.lib.format.read_magic(file)
    if version not in _VERSIONS:
        raise ValueError("it is in a format for records, which no model takes")
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject or dtype.kind not in "biufcSU":
        raise ValueError(f"its elements are {dtype}, neither numbers nor text")
    if not shape or min(shape) < 0 or 0 in shape[1:] or dtype.itemsize == 0:
        raise ValueError(f"its shape {shape} has no rows along a first axis")
    return NpyHeader(tuple(shape), dtype, is_fortran, file.tell())


@dataclass(frozen=True, slots=True)
class NpySource:
    """Arrays for a model with one input, one row along the first axis for each sample.

    Attributes:
        bytes_per_fragment: about how much is done as a whole.
        rows_per_fragment: how many rows at most.
    """

    bytes_per_fragment: int = 64 << 20
    rows_per_fragment: int = 65_536

    @property
    def kind(self) -> str:
        """What people call it."""
        return "npy"

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
        """Return itself.

        Raises:
            InputError: the model does not take rows of the first file that can be read.
            InputFileError: the model has several inputs.
            OptionError: columns are named.
        """
        refuse_columns(self.kind, columns, keep)
        port = _only_port(files[0].path if files else "", ports)
        for file in files:
            found = _look(filesystem, file)
            if found is None:
                continue
            check_kind(port, found[0].dtype)
            fit_block(port, found[0].like_row())
            break
        return self

    def kept(self, context: ReadContext) -> pa.Schema:  # noqa: ARG002
        """Return no columns."""
        return pa.schema([])

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:
        """Cut every file into ranges of rows; only headers are read."""
        fragments: list[Fragment] = []
        looks = each_at_once(partial(_look, filesystem), files)
        for file, found in zip(files, looks, strict=True):
            if found is None:
                fragments.append(Fragment(len(fragments), (Piece(file, first_row=None),)))
                continue
            header, there = found
            step = self.bytes_per_fragment // header.row_bytes
            step = max(1, min(step, self.rows_per_fragment))
            for start in range(0, there, step):
                stop = min(start + step, there)
                piece = Piece(file, start, stop, start)
                fragments.append(Fragment(len(fragments), (piece,), stop - start))
            if there < header.shape[0]:
                piece = Piece(file, there, None, there)
                fragments.append(Fragment(len(fragments), (piece,)))
        return fragments

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:
        """Yield rows as views of the file's memory, mapped only as far as the fragment goes.

        Files elsewhere are read as far as the fragment goes; so are arrays in Fortran order, in
        many small parts.

        Raises:
            InputFileError: the model has several inputs.
        """
        port = _only_port(fragment.pieces[0].file.path, context.ports)
        return (row for piece in fragment.pieces for row in _rows(piece, port, context))


def _only_port(path: str, ports: Sequence[Port]) -> Port:
    if len(ports) != 1:
        names = ", ".join(repr(port.name) for port in ports)
        raise InputFileError(
            path, f"the model has {len(ports)} inputs ({names}); pass .npz files with all of them"
        )
    return ports[0]


def _look(filesystem: FileSystem, file: InputFile) -> tuple[NpyHeader, int] | None:
    """Return the header and how many rows are there; None if reading has to say what is wrong."""
    try:
        with filesystem.open_input_file(file.path) as stream:
            header = read_header(stream)
            return header, header.rows_in(stream.size())
    except UNREADABLE:
        return None


def _rows(piece: Piece, port: Port, context: ReadContext) -> Iterator[Row]:
    """Yield the rows of a piece, those that are not there as bad ones.

    Without an end, the file is damaged: one bad row stands for all that is not there.
    """
    path, start, stop = piece.file.path, piece.start, piece.stop
    block: Array = np.empty(0)
    first_missing = WHOLE_FILE
    try:
        with context.times.during(Stage.READ):
            window, row_count = _window(context.filesystem, path, start, stop)
        first_missing = start + len(window)
        check_kind(port, window.dtype)
        block = fit_block(port, window)
        expected = max(row_count, stop or 0)
        is_whole = first_missing == expected
        reason = "" if is_whole else f"the file ends before the last of its {expected:,} rows"
    except InputError as error:
        reason = str(error)
    except UNREADABLE as error:
        reason = f"it cannot be read as .npy: {error}"
    safe = is_safe(port, block.dtype)
    for number, index in enumerate(range(len(block)), start):
        identity = row_identity(path, number)
        sample = block[index, ...]
        if safe:
            yield Row(identity, {port.name: sample})
            continue
        try:
            yield Row(identity, {port.name: cast_block(port, sample)})
        except InputDtypeError as error:
            yield bad_row(path, number, str(error))
    if stop is not None:
        for number in range(start + len(block), stop):
            yield bad_row(path, number, reason)
    elif reason:
        yield bad_row(path, first_missing, reason)


def _window(filesystem: FileSystem, path: str, start: int, stop: int | None) -> tuple[Array, int]:
    """Return what is there of a range of rows, and how many the file should have in all."""
    with filesystem.open_input_file(path) as opened:
        stream: Any = opened  # its type lacks read_at
        header = read_header(stream)
        row_count = header.shape[0]
        there = header.rows_in(stream.size())
        rows = max(0, min(there, row_count if stop is None else stop) - start)
        shape = (rows, *header.shape[1:])
        first = header.offset + start * header.row_bytes
        if rows == 0:
            return np.empty(shape, header.dtype), row_count
        if header.is_fortran:
            return _gathered(stream, header, start, rows), row_count
        if isinstance(filesystem, LocalFileSystem):
            mapped = np.memmap(path, header.dtype, "r", first, shape)
            return np.asarray(mapped), row_count
        data = stream.read_at(rows * header.row_bytes, first)
        return np.frombuffer(data, header.dtype).reshape(shape), row_count


def _gathered(stream: Any, header: NpyHeader, start: int, rows: int) -> Array:
    """Read rows in Fortran order: an element of one lies beside the same element of others."""
    row_count, *sizes = header.shape
    itemsize = header.dtype.itemsize
    columns: Array = np.empty((math.prod(sizes), rows), header.dtype)
    for index, column in enumerate(columns):
        first = header.offset + (index * row_count + start) * itemsize
        column[:] = np.frombuffer(stream.read_at(rows * itemsize, first), header.dtype)
    return columns.reshape(*reversed(sizes), rows).transpose()
