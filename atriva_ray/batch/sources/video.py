"""Videos as rows, one frame each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Self

import numpy as np
import pyarrow as pa
from pyarrow.fs import FileSystem

from atriva_inference.ports import Port
from atriva_ray.batch.fragments import Fragment, InputFile, Piece
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sources.ahead import ahead, each_at_once
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.sources.columns import refuse_columns
from atriva_ray.batch.sources.numbered import WHOLE_FILE
from atriva_ray.batch.sources.video_file import (
    DamagedVideoError,
    frames,
    opened,
    read_errors,
    require_av,
    scan,
)
from atriva_ray.batch.stages import Stage
from atriva_ray.picture_port import PicturePort, only_picture_port
from atriva_ray.pictures import Pixels, centred, scaled_size

if TYPE_CHECKING:
    from av import VideoFrame

__all__ = ["VideoSource"]

_FIELDS: dict[str, pa.DataType] = {"path": pa.string(), "frame": pa.int64()}
_IDENTITY = pa.schema(_FIELDS)
_MOST_AHEAD = 16
"""Frames of a large video are large; this many may wait to be scaled."""


@dataclass(frozen=True, slots=True)
class VideoSource:
    """Videos, of which every frame is a row, or every n-th.

    Frames are numbered from 0 in the order in which they are shown.

    Attributes:
        every: take frames 0, n, 2n and so on.
        rows_per_fragment: how many of them are done as a whole, about: videos are cut where
            decoding can begin, and only if that is known without doubt.
    """

    every: int = 1
    rows_per_fragment: int = 512

    @property
    def kind(self) -> str:
        """What people call it."""
        return "video"

    @property
    def identity(self) -> pa.Schema:
        """Columns that tell rows apart."""
        return _IDENTITY

    def checked(
        self,
        files: Sequence[InputFile],
        filesystem: FileSystem,  # noqa: ARG002 - a video that cannot be read is a bad row
        ports: Sequence[Port],
        columns: Mapping[str, str],
        keep: Sequence[str],
    ) -> Self:
        """Return itself.

        Raises:
            InputError: the model does not take a picture and nothing else.
            InputFileError: PyAV is missing.
            OptionError: columns are named.
        """
        require_av(files[0].path if files else self.kind)
        refuse_columns(self.kind, columns, keep)
        only_picture_port(ports)
        return self

    def kept(self, context: ReadContext) -> pa.Schema:  # noqa: ARG002
        """Return no columns."""
        return pa.schema([])

    def plan(self, files: Sequence[InputFile], filesystem: FileSystem) -> list[Fragment]:
        """Cut long videos; their packets are read and not decoded."""
        require_av(files[0].path if files else self.kind)
        fragments: list[Fragment] = []
        for found in each_at_once(partial(self._pieces, filesystem), files):
            for piece, row_count in found:
                fragments.append(Fragment(len(fragments), (piece,), row_count))
        return fragments

    def read(self, fragment: Fragment, context: ReadContext) -> Iterator[Row]:
        """Yield frames; they are decoded here and scaled ahead.

        Raises:
            InputError: the model does not take a picture and nothing else.
            InputFileError: PyAV is missing.
        """
        piece = fragment.pieces[0]
        require_av(piece.file.path)
        port = only_picture_port(context.ports)
        makers = self._makers(piece, fragment.row_count, port, context)
        return ahead(_made, makers, context.pool, min(context.ahead, _MOST_AHEAD))

    def _pieces(self, filesystem: FileSystem, file: InputFile) -> list[tuple[Piece, int | None]]:
        """Return the pieces of a file, and how many rows each has, if that is known."""
        try:
            with opened(filesystem, file.path) as (container, video):
                found = scan(container, video, self.every * self.rows_per_fragment)
        except read_errors():
            return [(Piece(file, first_row=None), None)]  # reading will say what is wrong
        chosen = list(found.cuts[:1])
        for cut in found.cuts:
            if self._rows_in(chosen[-1].frame, cut.frame) >= self.rows_per_fragment:
                chosen.append(cut)
        if len(chosen) <= 1 or chosen[0].frame:
            return [(Piece(file), None)]
        pieces: list[tuple[Piece, int | None]] = [
            (Piece(file, cut.pts, after.pts, cut.frame), self._rows_in(cut.frame, after.frame))
            for cut, after in pairwise(chosen)
        ]
        last, end = chosen[-1], found.frame_count
        rows = None if end is None else self._rows_in(last.frame, end)
        return [*pieces, (Piece(file, last.pts, None, last.frame), rows)]

    def _rows_in(self, start: int, stop: int) -> int:
        """Return how many frames of a range are taken."""
        return -(-stop // self.every) + -start // self.every

    def _makers(
        self, piece: Piece, row_count: int | None, port: PicturePort, context: ReadContext
    ) -> Iterator[Callable[[], Row]]:
        """Yield what makes one row each, as many as planned whatever becomes of the file."""
        path = piece.file.path
        number = piece.first_row or 0
        done = 0
        reason = ""
        try:
            for frame in _timed(_frames_of(piece, context.filesystem), context):
                if number % self.every == 0:
                    yield partial(_row, path, number, frame, port, context)
                    done += 1
                number += 1
            reason = "" if number else "it has no frames in it"
        except DamagedVideoError as error:
            reason = str(error)
        except read_errors() as error:
            reason = f"it cannot be read as a video: {getattr(error, 'strerror', None) or error}"
        if row_count is not None:
            first = piece.first_row or 0
            begin = -(-first // self.every)
            for missing in range(begin + done, begin + row_count):
                yield partial(_bad, path, missing * self.every, reason or "it was not decoded")
        elif reason:
            yield partial(_bad, path, number or WHOLE_FILE, reason)


def _frames_of(piece: Piece, filesystem: FileSystem) -> Iterator[VideoFrame]:
    """Yield the frames of a piece, whose bounds are times."""
    path, start, stop = piece.file.path, piece.start, piece.stop
    if not piece.first_row:
        with opened(filesystem, path) as (container, video):
            yield from _until(stop, frames(container, video))
        return
    with opened(filesystem, path) as (container, video):
        container.seek(start, stream=video)
        found = _from(start, frames(container, video))
        first = None
        with suppress(DamagedVideoError):
            first = next(found, None)
        if first is not None and first.pts == start:
            yield from _until(stop, chain([first], found))
            return
    # Decoding could not begin there after all, so it begins where it always can.
    with opened(filesystem, path) as (container, video):
        yield from _until(stop, _from(start, frames(container, video)))


def _from(start: int, found: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    return (frame for frame in found if frame.pts is not None and frame.pts >= start)


def _until(stop: int | None, found: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    for frame in found:
        if stop is not None and frame.pts is not None and frame.pts >= stop:
            return
        yield frame


def _timed(found: Iterator[VideoFrame], context: ReadContext) -> Iterator[VideoFrame]:
    while True:
        with context.times.during(Stage.DECODE):
            frame = next(found, None)
        if frame is None:
            return
        yield frame


def _row(path: str, number: int, frame: VideoFrame, port: PicturePort, context: ReadContext) -> Row:
    if frame.is_corrupt:
        return _bad(path, number, "the frame is damaged")
    with context.times.during(Stage.DECODE):
        try:
            pixels = _pixels(frame, port, context.fit)
        except read_errors() as error:
            return _bad(path, number, f"it cannot be scaled: {error}")
    return Row({"path": path, "frame": number}, {port.name: pixels})


def _bad(path: str, number: int, reason: str) -> Row:
    return Row({"path": path, "frame": number}, bad_because=reason)


def _pixels(frame: VideoFrame, port: PicturePort, fit: str) -> Pixels:
    """Scale a frame, and turn it as the camera was held."""
    turns = round(getattr(frame, "rotation", 0) / 90)
    size = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
    width, height = port.width or size[0], port.height or size[1]
    scaled = scaled_size(size, (width, height), fit)
    scaled_width, scaled_height = scaled[::-1] if turns % 2 else scaled
    mode = "gray" if port.channels == 1 else "rgb24"
    array = np.asarray(frame.reformat(scaled_width, scaled_height, mode).to_ndarray(), np.uint8)
    pixels = np.rot90(array.reshape(scaled_height, scaled_width, port.channels), turns)
    return np.ascontiguousarray(centred(pixels, height, width))


def _made(maker: Callable[[], Row]) -> Row:
    return maker()
