"""`Tree`: what lies in a folder at one moment, the same for a disk and for a bucket."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from atriva_ray.errors import RepositoryError

__all__ = ["MAX_ENTRIES", "Entry", "Tree", "join", "printable", "read_local"]

MAX_ENTRIES = 200_000
"""Files and folders of one repository; with more than that the wrong folder was named."""

_MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder.

    Attributes:
        is_folder: whether it is a folder.
        size_bytes: length of a file.
        stamp: differs when the content of a file does: its time, or the store's checksum of it.
        trouble: why it must not be used; empty if it may.
    """

    is_folder: bool = False
    size_bytes: int = 0
    stamp: str = ""
    trouble: str = ""


class Tree:
    """Files and folders below one folder, by their paths relative to it.

    What begins with a dot is not in it.

    Args:
        location: the folder, as a path or a URL.
        entries: what is in it. Folders above a file may be left out.
        read: returns the first bytes of the file at a relative path.
    """

    def __init__(
        self, location: str, entries: Mapping[str, Entry], read: Callable[[str, int], bytes]
    ) -> None:
        self.location = location
        self._entries: dict[str, Entry] = {"": Entry(is_folder=True)}
        self._children: dict[str, set[str]] = {}
        self._read = read
        for path, entry in entries.items():
            self._entries[path] = entry
            while path and path not in self._children.get(path.rpartition("/")[0], ()):
                path, _, name = path.rpartition("/")  # noqa: PLW2901 - climbs to the root
                self._children.setdefault(path, set()).add(name)
                self._entries.setdefault(path, Entry(is_folder=True))

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def __getitem__(self, path: str) -> Entry:
        return self._entries[path]

    def url(self, path: str) -> str:
        """Return the path or URL of what is at a relative path."""
        return join(self.location, path)

    def folders(self, path: str) -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        return [name for name in self._names(path) if self._entries[join(path, name)].is_folder]

    def files(self, path: str) -> list[str]:
        """Return the names of the files in a folder, sorted."""
        return [name for name in self._names(path) if not self._entries[join(path, name)].is_folder]

    def below(self, path: str) -> Iterator[tuple[str, Entry]]:
        """Yield all that is below a folder by its path relative to it, in a fixed order."""
        waiting = self._names(path)[::-1]
        while waiting:
            name = waiting.pop()
            yield name, self._entries[join(path, name)]
            waiting += [join(name, each) for each in self._names(join(path, name))[::-1]]

    def read_text(self, path: str, limit_bytes: int) -> str:
        """Read a small file.

        Raises:
            RepositoryError: it must not be used, is too large, no UTF-8, or cannot be read.
        """
        url, entry = self.url(path), self._entries.get(path)
        if entry is None or entry.is_folder:
            raise RepositoryError(url, "there is no such file")
        if entry.trouble:
            raise RepositoryError(url, entry.trouble)
        try:
            content = self._read(path, limit_bytes + 1)
        except OSError as error:
            raise RepositoryError(url, error.strerror or str(error)) from error
        if len(content) > limit_bytes:
            raise RepositoryError(url, f"it is larger than {limit_bytes:,} bytes")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise RepositoryError(url, f"it is no UTF-8 text: {error}") from error

    def _names(self, path: str) -> list[str]:
        return sorted(self._children.get(path, ()))


def join(folder: str, name: str) -> str:
    """Put a relative path behind a folder's; either may be empty."""
    if not folder or not name:
        return folder or name
    return f"{folder}{name}" if folder.endswith("/") else f"{folder}/{name}"


def printable(name: str) -> str:
    """Return a name that any terminal and any protocol can take."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def read_local(
    folder: Path,
    *,
    allow_links_outside: bool = False,
    only: Callable[[str], bool] | None = None,
) -> Tree:
    """Look at a folder of this machine.

    Args:
        folder: which one; may be a link itself.
        allow_links_outside: whether links may lead to what is not below it. Otherwise what they
            lead to is not looked at.
        only: which names in the folder itself count, where its subfolders do not; None for all that
            is below it.

    Raises:
        RepositoryError: there is no such folder, it cannot be listed, or too much is in it.
    """
    try:
        real = folder.resolve(strict=True)
        scan = _Scan(folder, None if allow_links_outside else real, only)
        scan.walk("", frozenset())
    except OSError as error:
        raise RepositoryError(str(folder), error.strerror or str(error)) from error
    except RuntimeError as error:  # links in a circle
        raise RepositoryError(str(folder), str(error)) from error
    return Tree(str(folder), scan.entries, scan.read)


class _Scan:
    """One walk through a folder; `within` is what links must not leave."""

    def __init__(
        self, folder: Path, within: Path | None, only: Callable[[str], bool] | None
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self._folder = folder
        self._within = within
        self._only = only

    def walk(self, path: str, above: frozenset[tuple[int, int]]) -> None:
        """Note all that is below a folder."""
        if path.count("/") >= _MAX_DEPTH:
            trouble = f"it is more than {_MAX_DEPTH} folders deep"
            self.entries[path] = Entry(is_folder=True, trouble=trouble)
            return
        status = (self._folder / path).stat()
        here = above | {(status.st_dev, status.st_ino)}
        if here == above:
            self.entries[path] = Entry(is_folder=True, trouble="it is a link to a folder above it")
            return
        with os.scandir(self._folder / path) as found:
            names = [each.name for each in found if not each.name.startswith(".")]
        for name in names:
            if self._only is None or self._only(name):
                self._note(join(path, name), here)

    def read(self, path: str, limit_bytes: int) -> bytes:
        """Return the first bytes of a file."""
        with (self._folder / path).open("rb") as stream:
            return stream.read(limit_bytes)

    def _note(self, path: str, above: frozenset[tuple[int, int]]) -> None:
        if len(self.entries) >= MAX_ENTRIES:
            reason = f"it has more than {MAX_ENTRIES:,} files and folders; name the models' folder"
            raise RepositoryError(str(self._folder), reason)
        full = self._folder / path
        try:
            if full.is_symlink() and (trouble := self._astray(full)):
                self.entries[path] = Entry(is_folder=full.is_dir(), trouble=trouble)
                return
            status = full.stat()
            if stat.S_ISDIR(status.st_mode):
                self.entries[path] = Entry(is_folder=True)
                if self._only is None:
                    self.walk(path, above)
            elif stat.S_ISREG(status.st_mode):
                stamp = str(status.st_mtime_ns)
                self.entries[path] = Entry(size_bytes=status.st_size, stamp=stamp)
            else:
                self.entries[path] = Entry(trouble="it is neither a file nor a folder")
        except FileNotFoundError:  # gone since the folder was listed, or a link that leads nowhere
            if full.is_symlink():
                self.entries[path] = Entry(trouble="it is a link that leads nowhere")
            else:
                self.entries.pop(path, None)
        except (OSError, RuntimeError) as error:
            is_folder = path in self.entries and self.entries[path].is_folder
            reason = getattr(error, "strerror", None) or str(error)
            self.entries[path] = Entry(is_folder=is_folder, trouble=f"it cannot be read: {reason}")

    def _astray(self, link: Path) -> str:
        """Say where a link leads if it must not be followed."""
        target = link.resolve(strict=True)
        if self._within is None or target.is_relative_to(self._within):
            return ""
        return (
            f"it is a link that leaves the repository, to {printable(str(target))}; "
            "move that there, or allow links to lead outside"
        )
