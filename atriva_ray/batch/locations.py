"""Where files are: from a path, a URL or a glob to a filesystem and the files in it."""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote, unquote

import pyarrow as pa
from pyarrow.fs import (
    FileInfo,
    FileSelector,
    FileSystem,
    FileType,
    FSSpecHandler,
    LocalFileSystem,
    PyFileSystem,
)

from atriva_ray.batch.fragments import InputFile
from atriva_ray.errors import InputFileError

__all__ = ["list_files", "open_location", "write_whole"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HIDDEN = (".", "_")
_LONGEST_NAME = 50
_ALLOWED = ":/?&=%@+,;!$~*'()#"
"""What stays in a URL as it is; Arrow refuses spaces and letters that are not ASCII."""


def open_location(path: str) -> tuple[FileSystem, str]:
    """Return the filesystem of a path or URL, and the path in it. It need not exist.

    Whatever Arrow has no filesystem for, fsspec may have. In a URL, ``?`` begins the options of
    the filesystem (``s3://bucket/folder?region=eu-west-1``) and is no wildcard.

    Raises:
        InputFileError: there is no such filesystem, or it cannot be opened.
    """
    if not _URL.match(path):
        return LocalFileSystem(), str(Path(path).absolute())
    if path.lower().startswith("file://"):
        return LocalFileSystem(), _local_path(path)
    # A wildcard is no part of a valid URL: only what precedes it is opened.
    location, mark, options = path.partition("?")
    parts = location.split("/")
    fixed = next((i for i, part in enumerate(parts) if i > 2 and _is_pattern(part)), len(parts))  # noqa: PLR2004 - scheme, nothing, host
    filesystem, root = _open_url(path, "/".join(parts[:fixed]) + mark + options)
    return filesystem, "/".join([root, *parts[fixed:]]) if parts[fixed:] else root


def list_files(path: str) -> tuple[FileSystem, list[InputFile]]:
    """Return the files of a file, a folder or a glob, sorted by path.

    A folder is taken with all that is below it. ``**`` in a glob stands for any number of folders.
    Files and folders whose names begin with ``.`` or ``_`` are left out unless the path, or that
    part of the glob, begins like that too. What exists under exactly this name is no glob.
    A link that leads nowhere is listed, as a file that cannot be read.

    Raises:
        InputFileError: there is no such file or folder, or no file in it.
    """
    filesystem, root = open_location(path)
    try:
        info = filesystem.get_file_info(root)
        match info.type:
            case FileType.File:
                found, reason = [info], ""
            case FileType.Directory:
                found = _below(filesystem, root)
                reason = "there is no file in it; names that begin with . or _ do not count"
            case FileType.NotFound if _is_pattern(root):
                found = _matching(filesystem, root)
                reason = "no file matches; folders do not count, /** is what is below them"
            case FileType.NotFound:
                found, reason = [], "there is no such file or folder"
            case _:
                found, reason = [], "it is neither a file nor a folder"
        files = sorted(_input_file(info) for info in found)
    except OSError as error:
        raise InputFileError(path, error.strerror or str(error)) from error
    except ValueError as error:  # a name that is no UTF-8, or no name at all
        raise InputFileError(path, str(error)) from error
    if not files:
        raise InputFileError(path, reason)
    return filesystem, files


@contextmanager
def write_whole(filesystem: FileSystem, path: str) -> Iterator[IO[bytes]]:
    """Give a stream to write a file to, which gets its name only if the block ends well.

    Whoever looks sees the file as it was before, or all of what was written; never a part.
    """
    folder, slash, name = path.rpartition("/")
    temporary = f"{folder}{slash}.{name[:_LONGEST_NAME]}.{uuid.uuid4().hex}"
    stream = filesystem.open_output_stream(temporary, compression=None)
    try:
        yield cast("IO[bytes]", stream)
        stream.close()
        filesystem.move(temporary, path)
    except BaseException:
        with suppress(OSError, pa.ArrowException):
            stream.close()
        with suppress(OSError, pa.ArrowException):
            filesystem.delete_file(temporary)
        raise


def _local_path(url: str) -> str:
    host, slash, rest = url[len("file://") :].partition("/")
    if host not in ("", "localhost") or not slash:
        raise InputFileError(url, "it names another machine; write file:///folder/file")
    return str(Path(unquote(slash + rest)))


def _open_url(path: str, url: str) -> tuple[FileSystem, str]:
    try:
        opened: tuple[FileSystem, str] = FileSystem.from_uri(quote(url, _ALLOWED))
    except pa.ArrowInvalid:  # not one of Arrow's, or not written as Arrow wants it
        return _open_with_fsspec(path, url)
    except (OSError, pa.ArrowException) as error:
        raise InputFileError(path, str(error).splitlines()[0]) from error
    return opened


def _open_with_fsspec(path: str, url: str) -> tuple[FileSystem, str]:
    try:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # noqa: PLC0415 - optional
    except ImportError as error:
        raise InputFileError(path, "such URLs need fsspec: pip install fsspec") from error
    try:
        filesystem, root = url_to_fs(url)
    except (ValueError, TypeError, ImportError, OSError) as error:
        raise InputFileError(path, f"it cannot be opened: {error}") from error
    return PyFileSystem(FSSpecHandler(filesystem)), str(root)  # type: ignore[abstract]


# -- listing -----------------------------------------------------------------------------------


def _below(filesystem: FileSystem, folder: str) -> list[FileInfo]:
    """All files below a folder, hidden ones left out."""
    return [
        info
        for info in _everything(filesystem, folder, hidden=False)
        if info.type == FileType.File and not any(map(_is_hidden, _names(info.path, folder)))
    ]


def _matching(filesystem: FileSystem, pattern: str) -> list[FileInfo]:
    """Files that a glob means, with as few folders listed as possible."""
    parts = pattern.split("/")
    for index, part in enumerate(parts):
        known = "/".join(parts[: index + 1])
        # A folder above may have a name that reads like a pattern.
        if _is_pattern(part) and filesystem.get_file_info(known).type == FileType.NotFound:
            folder = "/".join(parts[:index]) or "/"
            is_there = filesystem.get_file_info(folder).type == FileType.Directory
            return _matching_below(filesystem, folder, parts[index:]) if is_there else []
    return []


def _matching_below(filesystem: FileSystem, folder: str, patterns: Sequence[str]) -> list[FileInfo]:
    if filesystem.get_file_info(folder).type != FileType.Directory:
        return []
    if patterns[0] == "**":
        found = _everything(filesystem, folder, hidden=any(map(_is_hidden, patterns)))
        return [
            info
            for info in found
            if info.type == FileType.File and _fits(_names(info.path, folder), patterns)
        ]
    first, *rest = patterns
    if _is_pattern(first):
        found = [info for info in _entries(filesystem, folder) if _fits([info.base_name], [first])]
    else:
        found = [filesystem.get_file_info(f"{folder.rstrip('/')}/{first}")]
    if not rest:
        return [info for info in found if info.type == FileType.File]
    folders = [info.path for info in found if info.type == FileType.Directory]
    return [info for each in folders for info in _matching_below(filesystem, each, rest)]


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether the parts of a path are what the parts of a glob stand for."""
    if not patterns:
        return not names
    if patterns[0] == "**":
        return _fits(names, patterns[1:]) or (
            bool(names) and not _is_hidden(names[0]) and _fits(names[1:], patterns)
        )
    return (
        bool(names)
        and fnmatchcase(names[0], patterns[0])
        and (not _is_hidden(names[0]) or _is_hidden(patterns[0]))
        and _fits(names[1:], patterns[1:])
    )


def _everything(filesystem: FileSystem, folder: str, *, hidden: bool) -> Iterable[FileInfo]:
    """All that is below a folder; what is in hidden folders may be left out."""
    if isinstance(filesystem, LocalFileSystem):
        return _walk(folder, hidden, frozenset())
    # One call lists all of a bucket, where a call per folder would take a round trip each.
    return filesystem.get_file_info(FileSelector(folder, allow_not_found=True, recursive=True))


def _entries(filesystem: FileSystem, folder: str) -> Iterable[FileInfo]:
    if isinstance(filesystem, LocalFileSystem):
        return _scan(folder)
    return filesystem.get_file_info(FileSelector(folder, allow_not_found=True))


def _walk(folder: str, hidden: bool, above: frozenset[tuple[int, int]]) -> Iterator[FileInfo]:
    """All that is below a folder of this machine; a link to a folder above is not followed."""
    status = Path(folder).stat()
    here = above | {(status.st_dev, status.st_ino)}
    if here == above:
        return
    for info in _scan(folder):
        yield info
        if info.type == FileType.Directory and (hidden or not _is_hidden(info.base_name)):
            yield from _walk(info.path, hidden, here)


def _scan(folder: str) -> Iterator[FileInfo]:
    """What is in a folder of this machine.

    Arrow's own listing leaves out links that lead nowhere and fails as a whole for one strange
    name.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:  # reading it will say what is wrong
                yield FileInfo(entry.path, FileType.File, size=0)
                continue
            if stat.S_ISDIR(status.st_mode):
                yield FileInfo(entry.path, FileType.Directory)
            elif stat.S_ISREG(status.st_mode):
                size, mtime_ns = status.st_size, status.st_mtime_ns
                yield FileInfo(entry.path, FileType.File, size=size, mtime_ns=mtime_ns)


def _input_file(info: FileInfo) -> InputFile:
    return InputFile(info.path, info.size or 0, info.mtime_ns or 0)


def _names(path: str, folder: str) -> list[str]:
    """Return the parts of a path below a folder; filesystems differ in leading slashes."""
    return path.strip("/")[len(folder.strip("/")) :].strip("/").split("/")


def _is_hidden(name: str) -> bool:
    return name.startswith(_HIDDEN)


def _is_pattern(part: str) -> bool:
    return any(letter in part for letter in "*?[")
