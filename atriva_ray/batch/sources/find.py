"""Which kind of input files are, told by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from atriva_inference.errors import OptionError
from atriva_ray.batch.fragments import InputFile
from atriva_ray.batch.sources.base import Source
from atriva_ray.batch.sources.csv_files import CsvSource
from atriva_ray.batch.sources.images import ImageSource
from atriva_ray.batch.sources.jsonl import JsonLinesSource
from atriva_ray.batch.sources.npy import NpySource
from atriva_ray.batch.sources.npz import NpzSource
from atriva_ray.batch.sources.parquet import ParquetSource
from atriva_ray.batch.sources.video import VideoSource
from atriva_ray.errors import InputFileError

__all__ = ["KINDS", "Found", "find_source"]

KINDS = {
    "images": (".jpg", ".jpeg", ".png"),
    "parquet": (".parquet", ".pq"),
    "npy": (".npy",),
    "npz": (".npz",),
    "csv": (".csv",),
    "jsonl": (".jsonl", ".ndjson"),
    "video": (".mp4", ".mkv", ".avi", ".mov", ".webm"),
}
"""Suffixes of every kind of input, in small letters."""

_SOURCES: dict[str, Callable[[], Source]] = {
    "images": ImageSource,
    "parquet": ParquetSource,
    "npy": NpySource,
    "npz": NpzSource,
    "csv": CsvSource,
    "jsonl": JsonLinesSource,
}
_KIND_OF = {suffix: kind for kind, suffixes in KINDS.items() for suffix in suffixes}


@dataclass(frozen=True, slots=True)
class Found:
    """What a set of files is.

    Attributes:
        source: how to read them.
        files: those of its kind.
        ignored: how many are left out, because their suffix is that of no kind or of another one.
    """

    source: Source
    files: tuple[InputFile, ...]
    ignored: int = 0


def find_source(files: Sequence[InputFile], kind: str | None = None, every: int = 1) -> Found:
    """Choose the kind of input by the files' suffixes.

    Args:
        files: all files of a path, of a folder or of a glob.
        kind: take those of this kind; if no file has a suffix of any kind, take all for it.
        every: of videos, every n-th frame.

    Raises:
        InputFileError: there are files of several kinds, or of none.
        OptionError: there is no such `kind`, or `every` is not for it or below 1.
    """
    if kind is not None and kind not in KINDS:
        raise OptionError("kind", kind, f"one of {', '.join(KINDS)}")
    kinds = [_kind_of(file) for file in files]
    counts = Counter(each for each in kinds if each is not None)
    if kind is None:
        kind = _only_kind(files, counts)
    chosen = tuple(file for file, each in zip(files, kinds, strict=True) if each == kind)
    if not chosen and not counts:
        chosen = tuple(files)  # names without suffix, say, and the caller knows
    if not chosen:
        raise InputFileError(
            _common(files), f"none of its files is of kind {kind!r}; {_listed(counts)}"
        )
    return Found(_source(kind, every), chosen, len(files) - len(chosen))


def _kind_of(file: InputFile) -> str | None:
    return _KIND_OF.get(PurePosixPath(file.path).suffix.lower())


def _only_kind(files: Sequence[InputFile], counts: Counter[str]) -> str:
    if len(counts) > 1:
        raise InputFileError(
            _common(files),
            f"its files are of several kinds ({_listed(counts)}); "
            "pass a glob like '*.jpg', or say which kind",
        )
    if not counts:
        suffixes = sorted({PurePosixPath(file.path).suffix for file in files})
        raise InputFileError(
            _common(files),
            f"unknown suffix {', '.join(map(repr, suffixes[:5]))}; "
            f"known are {', '.join(_KIND_OF)}; if it is one of these, say which kind",
        )
    return next(iter(counts))


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{kind}: {count:,}" for kind, count in sorted(counts.items()))


def _common(files: Sequence[InputFile]) -> str:
    """Return the file, or the folder that all are in."""
    if len(files) == 1:
        return files[0].path
    parts = [PurePosixPath(file.path).parent.parts for file in (files[0], files[-1])]
    same = 0
    for one, other in zip(*parts, strict=False):
        if one != other:
            break
        same += 1
    return str(PurePosixPath(*parts[0][:same]))


def _source(kind: str, every: int) -> Source:
    if every < 1 or (every > 1 and kind != "video"):
        raise OptionError(
            "every", str(every), "at least 1" if every < 1 else f"1: {kind} have no frames to skip"
        )
    if kind == "video":
        return VideoSource(every)
    return _SOURCES[kind]()
