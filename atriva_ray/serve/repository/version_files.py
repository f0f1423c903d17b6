"""`ModelVersion`: the model in one version's folder, whole, half-written or none at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.tree import Entry, Tree, join, printable

__all__ = [
    "ModelVersion",
    "UnreadyVersion",
    "companion_of",
    "find_version",
    "fingerprint_of",
    "is_model_name",
    "stem",
]

_SUFFIXES = (".xml", ".onnx", ".pb", ".tflite", ".pdmodel")
_UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".tmp")
"""What programs that copy and download call a file until it is whole."""

_SAVED_MODEL = "saved_model.pb"
_SHARD = re.compile(r"variables\.data-[0-9]{5}-of-([0-9]{5})")
_USUAL_STEM = "model"
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model, ready to be loaded.

    Attributes:
        version: its number, from 1.
        folder: path or URL of the folder that its files are in.
        entry: the file (or SavedModel folder) to be loaded, relative to the folder; empty if it is
            the folder.
        files: all that belongs to it, relative to the folder.
        size_bytes: of all of them together.
        fingerprint: of their names, sizes and times (or a store's checksums), in hex. No file is
            read for it.
    """

    version: int
    folder: str
    entry: str
    files: tuple[str, ...]
    size_bytes: int
    fingerprint: str

    @property
    def path(self) -> str:
        """Path or URL of what is loaded."""
        return join(self.folder, self.entry)


@dataclass(frozen=True, slots=True)
class UnreadyVersion:
    """A version that is there but cannot be loaded.

    Attributes:
        version: its number.
        reason: what is missing or wrong.
        is_problem: it will not go away by waiting.
    """

    version: int
    reason: str
    is_problem: bool = False


def find_version(
    tree: Tree,
    folder: str,
    version: int,
    *,
    default_name: str = "",
    takes: Callable[[str], bool] = lambda _path: True,
) -> ModelVersion | UnreadyVersion:
    """Look for the one model in a folder.

    Args:
        tree: what there is.
        folder: where to look, relative to the tree.
        version: number of what is found.
        default_name: name of the model in the folder, where that was declared.
        takes: which of the files below the folder belong to it, by their path relative to it.
    """
    entries = {path: entry for path, entry in tree.below(folder) if takes(path)}
    files = {path: entry for path, entry in entries.items() if not entry.is_folder}
    try:
        _check_usable(tree, folder, entries)
        reason = _unfinished(files)
        entry_name = "" if reason else _choose(tree, folder, files, default_name)
    except RepositoryError as error:
        return UnreadyVersion(version, f"{printable(error.path)}: {error.reason}", is_problem=True)
    if entry_name is None:
        return UnreadyVersion(version, _nothing(files, default_name))
    if reason := reason or _missing(files, entry_name):
        return UnreadyVersion(version, reason)
    return ModelVersion(
        version,
        tree.url(folder),
        entry_name,
        tuple(files),
        sum(entry.size_bytes for entry in files.values()),
        fingerprint_of(files),
    )


def is_model_name(name: str) -> bool:
    """Whether a file of this name can be a model."""
    return name.lower().endswith(_SUFFIXES)


def stem(name: str) -> str:
    """Return a file's name without its suffix."""
    return PurePosixPath(name).stem


def fingerprint_of(files: Mapping[str, Entry]) -> str:
    """Return what tells a set of files from another, by what was listed of them."""
    digest = hashlib.sha256()
    for path, entry in sorted(files.items()):
        line = f"{path}\0{entry.size_bytes}\0{entry.stamp}\0"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def companion_of(name: str) -> Callable[[str], bool]:
    """Return which files beside a model file belong to it.

    These are its weights, and large tensors that are named like the model with something behind.
    """
    weights = {name, f"{stem(name)}.bin", f"{stem(name)}.pdiparams"}
    beginnings = (f"{name}.", f"{name}_")
    return lambda other: other in weights or other.startswith(beginnings)


def _check_usable(tree: Tree, folder: str, entries: Mapping[str, Entry]) -> None:
    """Refuse a folder of which a part must not be used, such as a link that leads elsewhere."""
    for path, entry in [("", tree[folder]), *entries.items()]:
        if entry.trouble:
            raise RepositoryError(tree.url(join(folder, path)), entry.trouble)


def _choose(tree: Tree, folder: str, files: Mapping[str, Entry], default_name: str) -> str | None:
    """Return the entry of the model; None if there is none yet."""
    if default_name:
        entry = _inside(files, default_name)
        if entry in files and not is_model_name(default_name):
            known = ", ".join(_SUFFIXES)
            reason = f"{printable(default_name)!r} is no model that can be read; known are {known}"
            raise RepositoryError(tree.url(folder), reason)
        return entry
    if _SAVED_MODEL in files:
        return ""
    found = {name for name in files if "/" not in name and is_model_name(name)}
    for name in tree.folders(folder):
        entry = _inside(files, name)
        if entry is not None:
            found.add(entry)
    usual = {name for name in found if stem(name.partition("/")[0]) == _USUAL_STEM}
    candidates = sorted(usual or found)
    if len(candidates) > 1:
        reason = f"it has several models: {_listed(candidates)}; leave one"
        raise RepositoryError(tree.url(folder), reason)
    return candidates[0] if candidates else None


def _inside(files: Iterable[str], name: str) -> str | None:
    """Return what to load for a file or folder: itself, or the model that such a folder holds."""
    if name in files or join(name, _SAVED_MODEL) in files:
        return name
    is_folder_of_onnx = name.lower().endswith(".onnx") and join(name, "model.onnx") in files
    return join(name, "model.onnx") if is_folder_of_onnx else None


def _nothing(files: Mapping[str, Entry], default_name: str) -> str:
    there = _listed(list(files)) or "nothing"
    wanted = repr(printable(default_name)) if default_name else f"a model ({', '.join(_SUFFIXES)})"
    return f"it has not got {wanted} yet, there is {there}"


def _unfinished(files: Iterable[str]) -> str:
    names = [path for path in files if path.lower().endswith(_UNFINISHED)]
    return f"{_listed(names)} is still being written" if names else ""


def _missing(files: Mapping[str, Entry], entry_name: str) -> str:
    """Say what a model lacks of its files; empty if they are all there."""
    entry = files.get(entry_name)
    if entry is None:
        return _missing_of_saved_model(files, entry_name)
    if entry.size_bytes == 0:
        return f"{entry_name!r} is empty"
    if entry_name.lower().endswith(".xml"):
        weights = str(PurePosixPath(entry_name).with_suffix(".bin"))
        if weights not in files:
            return f"{entry_name!r} is there, its weights {weights!r} are not"
    return ""


def _missing_of_saved_model(files: Mapping[str, Entry], entry_name: str) -> str:
    if files[join(entry_name, _SAVED_MODEL)].size_bytes == 0:
        return f"{_SAVED_MODEL!r} is empty"
    inside = [path for path in files if path.startswith(join(entry_name, "variables/"))]
    names = [path.rpartition("/")[2] for path in inside]
    shards = [match for name in names if (match := _SHARD.fullmatch(name))]
    wanted = max((int(match[1]) for match in shards), default=0)
    if names and ("variables.index" not in names or not shards or len(shards) < wanted):
        return "its folder 'variables' is not whole"
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(printable(name)) for name in names[:_SHOWN])
    return f"{shown}, …" if len(names) > _SHOWN else shown
