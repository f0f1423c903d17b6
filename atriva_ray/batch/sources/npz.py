"""NumPy archives: one array for each input, whose first axes count the same rows."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import IO, Any, Self, cast
from zipfile import BadZipFile, ZipFile

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSystem

from atriva_inference.errors import InferenceRuntimeError, InputDtypeError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.batch.fragments import Fragment, InputFile, Piece
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.sources.columns import Feed, Form, check_names, feeds_of
from atriva_ray.batch.sources.npy import UNREADABLE, NpyHeader, read_header
from atriva_ray.batch.sources.numbered import NUMBERED, WHOLE_FILE, bad_row, row_identity
from atriva_ray.batch.sources.samples import cast_block, check_kind, fit_block
from atriva_ray.batch.stages import Stage
from atriva_ray.errors import InputFileError

__all__ = ["NpzSource"]

_MAX_BYTES = 4 << 30
_UNREADABLE: tuple[type[Exception], ...] = (
    *UNREADABLE,
    BadZipFile,
    zlib.error,
    KeyError,
    RuntimeError,
    pa.ArrowException,
)


@dataclass(frozen=True, slots=True)
class NpzSource:
    """Archives of named arrays. Each is read as a whole, and is done as a whole.

    Attributes:
        feeds: which array feeds which input, as the first file tells; empty: each file tells.
        kept_fields: names and types of the arrays that go to the output.
    """

    feeds: tuple[Feed, ...] = ()
    kept_fields: tuple[pa.Field[Any], ...] = ()

    @property
    def kind(self) -> str:
        """What people call it."""
        return "npz"

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
        """Return the source that knows which array feeds which input.

        Raises:
            InputError: the model does not take rows of the first file that can be read.
            InputFileError: there is no such array, or more than one that could be meant.
        """
        for file in files:
            try:
                headers = _headers(filesystem, file.path)
            except _UNREADABLE:
                continue
            feeds = _feeds(file.path, headers, ports, columns, keep)
            for port, feed in zip(ports, feeds, strict=True):
                header = headers[feed.columns[0]]
                check_kind(port, header.dtype)
                fit_block(port, header.like_row())
            try:
                fields = tuple(pa.field(name, _kept_type(headers[name])) for name in keep)
            except pa.ArrowException as error:
                raise InputFileError(file.path, f"it cannot be kept: {error}") from error
            return replace(self, feeds=feeds, kept_fields=fields)
        return self

    def kept(self, context: ReadContext) -> pa.Schema:
        """Return the arrays that go to the output."""
        known = self.kept_fields
        return pa.schema(known or [pa.field(name, pa.null()) for name in context.keep])

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:  # noqa: ARG002
        """Make each file a fragment; none is opened."""
        return [Fragment(index, (Piece(file, first_row=None),)) for index, file in enumerate(files)]

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:
        """Yield rows as views of the arrays; a file of more than 4 GiB is one bad row."""
        return (row for piece in fragment.pieces for row in self._rows(piece.file.path, context))

    def _rows(self, path: str, context: ReadContext) -> Iterator[Row]:
        try:
            with context.times.during(Stage.READ):
                blocks, kept = self._arrays(path, context)
        except InputFileError as error:
            yield bad_row(path, WHOLE_FILE, error.reason)
            return
        except InferenceRuntimeError as error:
            yield bad_row(path, WHOLE_FILE, str(error))
            return
        except _UNREADABLE as error:
            yield bad_row(path, WHOLE_FILE, f"it cannot be read as .npz: {error}")
            return
        for index in range(len(next(iter(blocks.values())))):
            identity = row_identity(path, index)
            try:
                inputs = {
                    port.name: cast_block(port, blocks[port.name][index, ...])
                    for port in context.ports
                }
            except InputDtypeError as error:
                yield bad_row(path, index, str(error))
                continue
            values = {name: array[index].tolist() for name, array in kept.items()}
            yield Row(identity, inputs, values)

    def _arrays(self, path: str, context: ReadContext) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return rows by input, and what is kept of them."""
        headers = _headers(context.filesystem, path)
        feeds = self.feeds or _feeds(path, headers, context.ports, context.columns, context.keep)
        names = [feed.columns[0] for feed in feeds]
        check_names(path, list(headers), [*names, *context.keep])
        wanted = {name: headers[name] for name in [*names, *context.keep]}
        lengths = {name: header.shape[0] for name, header in wanted.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name!r} {length:,}" for name, length in lengths.items())
            raise InputFileError(path, f"its arrays have different numbers of rows: {listed}")
        size_bytes = sum(header.row_bytes * header.shape[0] for header in wanted.values())
        if size_bytes > _MAX_BYTES:
            raise InputFileError(
                path,
                f"its arrays have {size_bytes:,} bytes, at most {_MAX_BYTES:,} are read at once; "
                "save them as several files",
            )
        arrays = _load(context.filesystem, path, list(wanted))
        ports = {port.name: port for port in context.ports}
        for field in self.kept_fields:
            here = _kept_type(headers[field.name])
            if here != field.type:
                raise InputFileError(
                    path, f"array {field.name!r} has {here}, in the first file {field.type}"
                )
        blocks = {}
        for feed in feeds:
            array = arrays[feed.columns[0]]
            check_kind(ports[feed.port], array.dtype)
            blocks[feed.port] = fit_block(ports[feed.port], array)
        return blocks, {name: arrays[name] for name in context.keep}


def _feeds(
    path: str,
    headers: Mapping[str, NpyHeader],
    ports: Sequence[Port],
    columns: Mapping[str, str],
    keep: Sequence[str],
) -> tuple[Feed, ...]:
    return feeds_of(path, dict.fromkeys(headers, Form.VECTOR), ports, columns, keep)


def _headers(filesystem: FileSystem, path: str) -> dict[str, NpyHeader]:
    """Return what is known of the arrays without reading them; those without rows are left out."""
    headers = {}
    with filesystem.open_input_file(path) as stream, ZipFile(cast("IO[bytes]", stream)) as archive:
        for member in archive.namelist():
            with archive.open(member) as file, suppress(*UNREADABLE):
                headers[member.removesuffix(".npy")] = read_header(file)
    return headers


def _load(filesystem: FileSystem, path: str, names: Sequence[str]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    with filesystem.open_input_file(path) as stream, ZipFile(cast("IO[bytes]", stream)) as archive:
        for name in names:
            with archive.open(f"{name}.npy") as file:
                arrays[name] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _kept_type(header: NpyHeader) -> pa.DataType:
    """Return the type of an array's rows as a column.

    Raises:
        pa.ArrowException: there is no such type.
    """
    names: dict[str, pa.DataType] = {"U": pa.string(), "S": pa.binary()}
    kept = names.get(header.dtype.kind)
    if kept is None:
        kept = pa.from_numpy_dtype(header.dtype.newbyteorder("="))
    for _ in header.shape[1:]:
        kept = pa.list_(kept)
    return kept
