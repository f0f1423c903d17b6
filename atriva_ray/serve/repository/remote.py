"""Folders in an object store, and the copies of their models on this machine's disk."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fsspec.core import url_to_fs  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.tree import MAX_ENTRIES, Entry, Tree, join, printable
from atriva_ray.serve.repository.version_files import ModelVersion, fingerprint_of

__all__ = ["ModelCache", "is_remote_file", "is_url", "read_remote"]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_CHECKSUMS = ("ETag", "etag", "md5Hash", "md5", "content_md5", "checksum", "generation")
_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")
_KEY = re.compile(r"[0-9a-f]{64}")
"""Only what has such a name was put into the cache by us, and may be removed by us."""

_INCOMING = ".incoming-"
_UNFINISHED_S = 3600.0


def is_url(location: str) -> bool:
    """Whether a location is a URL rather than a path."""
    return _URL.match(location) is not None


def is_remote_file(url: str) -> bool:
    """Whether there is a file at a URL.

    Raises:
        RepositoryError: the store does not answer.
    """
    filesystem, root = _open(url)
    try:
        return bool(filesystem.isfile(root))
    except Exception as error:  # each store has errors of its own
        raise _failed(url, error) from error


def read_remote(url: str, *, only: Callable[[str], bool] | None = None) -> Tree:
    """Look at a folder of an object store, or of anything else that fsspec has.

    Args:
        url: which one.
        only: which names in the folder itself count, where its subfolders do not; None for all that
            is below it.

    Raises:
        RepositoryError: there is no such folder, the store does not answer, or too much is in it.
    """
    filesystem, root = _open(url)
    try:
        filesystem.invalidate_cache()  # a listing that is kept never changes
        if only is None:
            listed = filesystem.find(root, withdirs=True, detail=True).values()
        else:
            listed = filesystem.ls(root, detail=True)
        found = list(listed)
        is_there = bool(found) or filesystem.exists(root)
    except FileNotFoundError:
        is_there = False
    except Exception as error:  # each store has errors of its own
        raise _failed(url, error) from error
    if not is_there:
        raise RepositoryError(url, "there is nothing there")
    if len(found) > MAX_ENTRIES:
        reason = f"it has more than {MAX_ENTRIES:,} files and folders; name the models' folder"
        raise RepositoryError(url, reason)
    if any(info["name"] == root and info.get("type") == "file" for info in found):
        raise RepositoryError(url, "it is a file; name its folder, or name it as a model")

    def read(path: str, limit_bytes: int) -> bytes:
        try:
            return bytes(filesystem.cat_file(join(root, path), start=0, end=limit_bytes))
        except Exception as error:  # each store has errors of its own
            raise _failed(join(url, path), error) from error

    return Tree(url, _entries(root, found, only), read)


class ModelCache:
    """Copies of versions that lie elsewhere, on this machine's disk.

    A copy is there as a whole or not at all, and one is made at a time. Each cache belongs to one
    server: what nobody there uses any more is removed.

    Args:
        folder: where the copies are kept, also when the cache is closed; those that are in use then
            are found again by the next server. None for a temporary folder, which goes.
        limit_bytes: what the copies may take together; None for no limit.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        self._is_temporary = folder is None
        self._limit_bytes = limit_bytes
        self._uses: Counter[str] = Counter()
        self._lock = threading.Lock()
        try:
            self.folder = folder or Path(tempfile.mkdtemp(prefix="atriva-models-"))
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_unfinished()
        except OSError as error:
            raise RepositoryError(str(folder), error.strerror or str(error)) from error

    def fetch(self, version: ModelVersion) -> Path:
        """Return where a version can be loaded from; blocks while it is downloaded.

        The copy stays until it is released as often as it was fetched.

        Raises:
            RepositoryError: it does not fit, cannot be downloaded, or changed in the meantime.
        """
        key = _key(version)
        target = self.folder / key
        with self._lock:
            try:
                if target.is_dir():
                    os.utime(target)  # what was used least recently goes first
                else:
                    self._make_room(version)
                    self._download(version, target)
            except OSError as error:
                raise RepositoryError(str(target), error.strerror or str(error)) from error
            self._uses[key] += 1
        return target / version.entry

    def release(self, version: ModelVersion) -> None:
        """Say that a version is not used any more; its copy goes if nobody else uses it."""
        key = _key(version)
        with self._lock:
            if self._uses[key] > 1:
                self._uses[key] -= 1
            elif self._uses.pop(key, 0):
                shutil.rmtree(self.folder / key, ignore_errors=True)

    def close(self) -> None:
        """Let go of all copies; safe to call again."""
        with self._lock:
            self._uses.clear()
            if self._is_temporary:
                shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _download(self, version: ModelVersion, target: Path) -> None:
        filesystem, root = _open(version.folder)
        with tempfile.TemporaryDirectory(prefix=_INCOMING, dir=self.folder) as incoming:
            fresh = Path(incoming) / "version"
            places = [fresh / name for name in version.files]
            for place in places:
                if not place.resolve().is_relative_to(fresh.resolve()):
                    raise RepositoryError(version.folder, f"it has a bad name: {place.name!r}")
                place.parent.mkdir(parents=True, exist_ok=True)
            try:
                sources = [join(root, name) for name in version.files]
                filesystem.get(sources, [str(place) for place in places])
            except Exception as error:  # each store has errors of its own
                raise _failed(version.folder, error) from error
            self._check(version, places)
            try:
                fresh.rename(target)
            except OSError:
                if not target.is_dir():  # otherwise somebody else was first, with the same
                    raise

    def _check(self, version: ModelVersion, places: Iterable[Path]) -> None:
        """See that what was downloaded is what had been listed, and still is."""
        is_flat = not any("/" in name for name in version.files)
        wanted = set(version.files)
        now = read_remote(version.folder, only=wanted.__contains__ if is_flat else None)
        entries = {name: now[name] for name in version.files if name in now}
        size_bytes = sum(place.stat().st_size for place in places if place.is_file())
        if fingerprint_of(entries) != version.fingerprint or size_bytes != version.size_bytes:
            raise RepositoryError(version.path, "it changed while it was downloaded; look again")

    def _make_room(self, version: ModelVersion) -> None:
        if self._limit_bytes is None:
            return
        kept = [each for each in self.folder.iterdir() if _KEY.fullmatch(each.name)]
        sizes = {each: _size_bytes(each) for each in kept}
        free_bytes = self._limit_bytes - sum(sizes.values())
        unused = [each for each in kept if each.name not in self._uses]
        for each in sorted(unused, key=lambda folder: folder.stat().st_mtime):
            if version.size_bytes <= free_bytes:
                return
            shutil.rmtree(each, ignore_errors=True)
            free_bytes += sizes[each]
        if version.size_bytes > free_bytes:
            reason = (
                f"its {version.size_bytes:,} bytes do not fit into the cache: of "
                f"{self._limit_bytes:,} bytes {max(free_bytes, 0):,} are free; allow more"
            )
            raise RepositoryError(version.path, reason)

    def _remove_unfinished(self) -> None:
        """Remove what killed servers left."""
        for each in self.folder.glob(f"{_INCOMING}*"):
            if time.time() - each.stat().st_mtime > _UNFINISHED_S:
                shutil.rmtree(each, ignore_errors=True)


def _open(url: str) -> tuple[Any, str]:
    if "::" in url:
        raise RepositoryError(url, "one store inside another (::) cannot be a repository")
    try:
        filesystem, root = url_to_fs(url)
    except Exception as error:  # a missing library, no credentials, or anything else
        raise RepositoryError(url, f"it cannot be opened: {error}") from error
    if isinstance(filesystem, LocalFileSystem):  # where links would be followed anywhere
        raise RepositoryError(url, "it is on this machine; write it as a path")
    return filesystem, str(root).rstrip("/")


def _entries(
    root: str, found: Iterable[Mapping[str, Any]], only: Callable[[str], bool] | None
) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    above = f"{root}/".lstrip("/")
    for info in found:
        path = str(info["name"])
        is_folder = info.get("type") == "directory" or path.endswith("/")
        below = path.lstrip("/").removesuffix("/")
        parts = below.removeprefix(above).split("/")
        # A listing may have the folder itself in it, and that of a web server anything.
        if not below.startswith(above) or (only is not None and not only(parts[0])):
            continue
        odd = next((i for i, part in enumerate(parts) if not part or "\0" in part), None)
        if odd is not None:
            trouble = f"it holds what no file can be called: {printable(path)!r}"
            entries["/".join(parts[:odd])] = Entry(is_folder=True, trouble=trouble)
        elif not any(part.startswith(".") for part in parts):
            entries["/".join(parts)] = (
                Entry(is_folder=True)
                if is_folder
                else Entry(size_bytes=int(info.get("size") or 0), stamp=_stamp(info))
            )
    return entries


def _stamp(info: Mapping[str, Any]) -> str:
    """Return what tells one content of a file from another, as well as the store can."""
    for names in (_CHECKSUMS, _TIMES):
        for name in names:
            if info.get(name):
                return f"{name}={info[name]}"
    return ""


def _key(version: ModelVersion) -> str:
    # Where a store gives no checksums, other files may look the same.
    return hashlib.sha256(f"{version.folder}\0{version.fingerprint}".encode()).hexdigest()


def _size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _failed(url: str, error: Exception) -> RepositoryError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return RepositoryError(printable(url), reason)
