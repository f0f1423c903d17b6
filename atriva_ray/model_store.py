"""Copies of models on a node, kept by content, for nodes that cannot read the original path."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from atriva_inference.errors import ModelError
from atriva_inference.model_files import ModelFiles
from atriva_ray.errors import ModelFilesMissingError

__all__ = ["ModelArchive", "ModelSource", "keep", "locate", "pack"]

ModelArchive: TypeAlias = Mapping[str, npt.NDArray[np.uint8]]
"""File contents by name relative to the model's folder."""

_FOLDER_VARIABLE = "ATRIVA_MODEL_STORE"
_LIMIT_VARIABLE = "ATRIVA_MODEL_STORE_BYTES"
_DEFAULT_LIMIT_BYTES = 20 * 1024**3
_UNFINISHED_S = 3600.0
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
"""Only what has such a name was put there by us, and may be removed by us."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Which model, wherever it lies.

    Attributes:
        path: absolute path on the machine that named it.
        entry: name of the file (or SavedModel folder) inside the model's own folder.
        fingerprint: content hash of all its files.
    """

    path: str
    entry: str
    fingerprint: str

    @classmethod
    def of(cls, files: ModelFiles) -> ModelSource:
        """Describe a model on this machine."""
        return cls(str(files.path.absolute()), files.path.name, files.fingerprint)


def pack(files: ModelFiles) -> ModelArchive:
    """Read all files of a model into memory."""
    return {name: np.fromfile(file, np.uint8) for name, file in files.parts()}


def locate(source: ModelSource) -> ModelFiles:
    """Return the model as this node can read it: at its own path, or from the store.

    A file at the path with other content is not the model, and is passed over.

    Raises:
        ModelFilesMissingError: neither place has it; `keep` a copy first.
    """
    for path in (Path(source.path), _folder(source) / source.entry):
        try:
            files = ModelFiles.find(path)
            if files.fingerprint == source.fingerprint:
                if path != Path(source.path):
                    os.utime(_folder(source))  # the store lets go of what was used least recently
                return files
        except (ModelError, OSError):  # not there, or not readable: the next place may have it
            continue
    raise ModelFilesMissingError(source.path, os.uname().nodename)


def keep(source: ModelSource, archive: ModelArchive) -> ModelFiles:
    """Write a model into this node's store and return it.

    Writers of the same model do not disturb each other: each writes a folder of its own and the
    first to rename it wins. Models that were not used for longest go when the store outgrows
    ``ATRIVA_MODEL_STORE_BYTES`` (20 GiB).

    Raises:
        ModelFilesMissingError: the copy does not have the content it should have.
    """
    target = _folder(source)
    size_bytes = sum(content.nbytes for content in archive.values())
    _make_room(target.parent, size_bytes, spare=target)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as incoming:
        fresh = Path(incoming) / "model"
        for name, content in archive.items():
            file = fresh / _safe(name, source)
            file.parent.mkdir(parents=True, exist_ok=True)
            content.tofile(file)
        try:
            fresh.rename(target)
        except OSError:  # another process was first, or a damaged copy is in the way
            try:
                return locate(source)
            except ModelFilesMissingError:
                shutil.rmtree(target, ignore_errors=True)
                fresh.rename(target)
    return locate(source)


def _folder(source: ModelSource) -> Path:
    default = Path(tempfile.gettempdir()) / f"atriva-models-{os.getuid()}"
    root = Path(os.environ.get(_FOLDER_VARIABLE, default))
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.lstat()  # a link in a shared folder may be somebody else's
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
        raise ModelFilesMissingError(str(root), f"{os.uname().nodename} (folder of another user)")
    return root / source.fingerprint


def _safe(name: str, source: ModelSource) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ModelFilesMissingError(source.path, f"{os.uname().nodename} (bad name {name!r})")
    return path


def _make_room(root: Path, wanted_bytes: int, spare: Path) -> None:
    limit_bytes = int(os.environ.get(_LIMIT_VARIABLE, _DEFAULT_LIMIT_BYTES))
    for unfinished in root.glob(".incoming-*"):  # of writers that were killed
        if time.time() - unfinished.stat().st_mtime > _UNFINISHED_S:
            shutil.rmtree(unfinished, ignore_errors=True)
    kept = [folder for folder in root.iterdir() if _FINGERPRINT.fullmatch(folder.name)]
    sizes = {
        folder: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in kept
        if folder != spare
    }
    total_bytes = wanted_bytes + sum(sizes.values())
    for folder in sorted(sizes, key=lambda folder: folder.stat().st_mtime):
        if total_bytes <= limit_bytes:
            return
        shutil.rmtree(folder, ignore_errors=True)
        total_bytes -= sizes[folder]
