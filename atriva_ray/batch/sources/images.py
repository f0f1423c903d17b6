"""Folders of JPEG and PNG files, one row each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import pyarrow as pa
from pyarrow.fs import FileSystem

from atriva_inference.ports import Port
from atriva_ray.batch.fragments import Fragment, InputFile, Piece
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sources.ahead import ahead
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.sources.columns import refuse_columns
from atriva_ray.batch.stages import Stage
from atriva_ray.errors import PictureError
from atriva_ray.picture_port import PicturePort, only_picture_port
from atriva_ray.pictures import require_pillow

__all__ = ["ImageSource"]

_IDENTITY: pa.Schema = pa.schema({"path": pa.string()})
_MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Pictures, each in a file of its own.

    Attributes:
        rows_per_fragment: how many are done as a whole.
    """

    rows_per_fragment: int = 256

    @property
    def kind(self) -> str:
        """What people call it."""
        return "images"

    @property
    def identity(self) -> pa.Schema:
        """Columns that tell rows apart."""
        return _IDENTITY

    def checked(
        self,
        files: Sequence[InputFile],  # noqa: ARG002 - a file with a broken picture is a bad row
        filesystem: FileSystem,  # noqa: ARG002
        ports: Sequence[Port],
        columns: Mapping[str, str],
        keep: Sequence[str],
    ) -> Self:
        """Return itself.

        Raises:
            InputError: the model does not take a picture and nothing else.
            OptionError: columns are named.
            PictureError: Pillow is missing.
        """
        require_pillow()
        refuse_columns(self.kind, columns, keep)
        only_picture_port(ports)
        return self

    def kept(self, context: ReadContext) -> pa.Schema:  # noqa: ARG002
        """Return no columns."""
        return pa.schema([])

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:  # noqa: ARG002
        """Put consecutive files together; none is opened."""
        size = self.rows_per_fragment
        return [
            Fragment(
                index,
                tuple(Piece(file, 0, 1) for file in files[start : start + size]),
                min(size, len(files) - start),
            )
            for index, start in enumerate(range(0, len(files), size))
        ]

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:
        """Yield one row per file; files are read and decoded ahead.

        Raises:
            InputError: the model does not take a picture and nothing else.
            PictureError: Pillow is missing.
        """
        require_pillow()
        work = partial(_row, only_picture_port(context.ports), context)
        return ahead(work, fragment.pieces, context.pool, context.ahead)


def _row(port: PicturePort, context: ReadContext, piece: Piece) -> Row:
    identity = {"path": piece.file.path}
    if piece.file.size_bytes > _MAX_BYTES:
        return Row(identity, bad_because=f"the file has more than {_MAX_BYTES:,} bytes")
    try:
        with (
            context.times.during(Stage.READ),
            context.filesystem.open_input_stream(piece.file.path, compression=None) as stream,
        ):
            data = stream.read()
        with context.times.during(Stage.DECODE):
            return Row(identity, {port.name: port.decode(data, context.fit)})
    except PictureError as error:
        return Row(identity, bad_because=error.reason)
    except OSError as error:
        return Row(identity, bad_because=f"it cannot be read: {error}")
