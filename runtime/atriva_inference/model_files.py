"""The files that make up one model: which format, which companions, which content."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path, PurePosixPath

from atriva_inference.errors import ModelNotFoundError, ModelUnreadableError, OptionError

__all__ = ["ModelFiles", "ModelFormat"]

_CHUNK_BYTES = 1024 * 1024
# In protobuf: the entry "location" of a tensor's external_data, its value's length, the value.
_EXTERNAL_DATA = re.compile(
    rb"\x0a\x08location\x12([\x80-\xff]?[\x00-\x7f])(?=(.{1,4096}))", re.DOTALL
)


class ModelFormat(StrEnum):
    """How a model is stored."""

    OPENVINO_IR = "OpenVINO IR"
    ONNX = "ONNX"
    TENSORFLOW = "TensorFlow frozen graph"
    SAVED_MODEL = "TensorFlow SavedModel"
    TFLITE = "TensorFlow Lite"
    PADDLE = "PaddlePaddle"


_FORMATS = {
    ".xml": ModelFormat.OPENVINO_IR,
    ".onnx": ModelFormat.ONNX,
    ".pb": ModelFormat.TENSORFLOW,
    ".tflite": ModelFormat.TFLITE,
    ".pdmodel": ModelFormat.PADDLE,
}


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine's disk.

    Attributes:
        path: the file (or SavedModel directory) that the libraries are given.
        format: how the model is stored.
    """

    path: Path
    format: ModelFormat

    @classmethod
    def find(cls, path: str | os.PathLike[str]) -> ModelFiles:
        """Look at a path and say what kind of model it is.

        Raises:
            ModelNotFoundError: nothing is there.
            ModelUnreadableError: something is there that cannot be a model.
            OptionError: this is no path at all.
        """
        try:
            model_path = Path(path)
        except TypeError:
            raise OptionError("model_path", repr(path), "a path, as str or pathlib.Path") from None
        try:
            return cls._find(model_path.expanduser())
        except (OSError, RuntimeError) as error:  # no permission, name too long, no such home
            raise ModelUnreadableError(str(path), "the runtime", str(error)) from error

    @classmethod
    def _find(cls, model_path: Path) -> ModelFiles:
        text = str(model_path)
        if model_path.is_dir():
            if not (model_path / "saved_model.pb").is_file():
                raise ModelUnreadableError(
                    text,
                    "the runtime",
                    "it is a directory without a saved_model.pb; name the model file itself",
                )
            return cls(model_path, ModelFormat.SAVED_MODEL)
        if not model_path.is_file():
            raise ModelNotFoundError(text, f"(working directory {Path.cwd()})")
        format_ = _FORMATS.get(model_path.suffix.lower())
        if format_ is None:
            raise ModelUnreadableError(
                text,
                "the runtime",
                f"unknown suffix {model_path.suffix!r}; known are {', '.join(_FORMATS)} and "
                "TensorFlow SavedModel directories",
            )
        if model_path.stat().st_size == 0:
            raise ModelUnreadableError(text, "the runtime", "the file is empty")
        files = cls(model_path, format_)
        if format_ is ModelFormat.OPENVINO_IR and not files.weights_path.is_file():
            raise ModelUnreadableError(
                text, "the runtime", f"its weights {str(files.weights_path)!r} are missing"
            )
        return files

    @property
    def name(self) -> str:
        """File name without its suffix."""
        return self.path.stem

    @property
    def weights_path(self) -> Path:
        """Where an OpenVINO IR keeps its weights."""
        return self.path.with_suffix(".bin")

    def parts(self) -> list[tuple[str, Path]]:
        """Return every file of the model with its name relative to the model's folder, sorted."""
        return sorted(self._parts())

    def _parts(self) -> Iterator[tuple[str, Path]]:
        if self.format is ModelFormat.SAVED_MODEL:
            for file in self.path.rglob("*"):
                if file.is_file():
                    yield str(Path(self.path.name) / file.relative_to(self.path)), file
            return
        yield self.path.name, self.path
        if self.format is ModelFormat.OPENVINO_IR:
            yield self.weights_path.name, self.weights_path
        elif self.format is ModelFormat.PADDLE:
            weights = self.path.with_suffix(".pdiparams")
            if weights.is_file():
                yield weights.name, weights
        elif self.format is ModelFormat.ONNX:
            yield from self._external_data()

    def _external_data(self) -> Iterator[tuple[str, Path]]:
        """Yield the files an ONNX model names as the home of its large tensors.

        They lie beside the model or in a folder there, never above it.
        """
        with (
            self.path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            entries = set(_EXTERNAL_DATA.findall(content))
        names = set()
        for length, value in entries:
            size = (length[0] & 0x7F) | (length[1] << 7 if len(length) > 1 else 0)
            names.add(value[:size].decode(errors="replace"))
        for name in names:
            relative = PurePosixPath(name)
            file = self.path.parent / relative
            if not relative.is_absolute() and ".." not in relative.parts and file.is_file():
                yield str(relative), file

    @cached_property
    def size_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.stat().st_size for _, file in self.parts())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of all files, in hex."""
        digest = hashlib.sha256()
        for name, file in self.parts():
            digest.update(f"{name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
        return digest.hexdigest()
