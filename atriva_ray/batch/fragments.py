"""What a data set is cut into: files, pieces of files, and fragments made of pieces."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Fragment", "InputFile", "Piece"]


@dataclass(frozen=True, slots=True, order=True)
class InputFile:
    """A file of the input, as it was when the job was planned.

    Attributes:
        path: as its filesystem names it.
        size_bytes: its length.
        mtime_ns: when it was last changed; 0 where the filesystem does not say.
    """

    path: str
    size_bytes: int
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one file.

    Attributes:
        file: which one.
        start: first row, row group, byte or frame, whichever the source cuts files by.
        stop: the one after the last; None for the end of the file.
        first_row: number of its first row in the file; None if only reading tells.
    """

    file: InputFile
    start: int = 0
    stop: int | None = None
    first_row: int | None = 0


@dataclass(frozen=True, slots=True)
class Fragment:
    """What is done, or not done, as a whole: its output appears at once.

    Attributes:
        index: its place in the data set, from 0.
        pieces: what it is made of, in order.
        row_count: how many rows it has; None if only reading tells.
        digest: of its content, where files do not tell one data set from another; else empty.
    """

    index: int
    pieces: tuple[Piece, ...]
    row_count: int | None = None
    digest: str = ""
