"""Input files of ``atriva run``: arrays, and images fitted to the model's input."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from atriva_inference.errors import InputShapeError, format_shape
from atriva_inference.ports import Port
from atriva_inference.tensor import Tensor
from atriva_ray.errors import InputFileError, PictureError
from atriva_ray.pictures import decode_picture

__all__ = ["check_inputs", "npz_target", "read_inputs"]

_GREY_CHANNELS = 1
_COLOUR_CHANNELS = 3
_SUFFIXES = (".npy", ".npz", ".png", ".jpg", ".jpeg")


def check_inputs(path: Path) -> None:
    """Say early what can be said without reading the file.

    Raises:
        InputFileError: it is missing, or not of a kind that can be read.
    """
    if not path.is_file():
        raise InputFileError(str(path), "there is no such file")
    if path.suffix.lower() not in _SUFFIXES:
        raise InputFileError(
            str(path), f"unknown suffix {path.suffix!r}; known are {', '.join(_SUFFIXES)}"
        )


def npz_target(path: Path) -> Path:
    """Return where outputs will be written: the path, with ``.npz`` added if it lacks it.

    Raises:
        InputFileError: its folder does not exist.
    """
    if not path.parent.is_dir():
        raise InputFileError(str(path), f"there is no folder {str(path.parent)!r} to write it to")
    return path if path.suffix == ".npz" else path.with_name(path.name + ".npz")


def read_inputs(path: Path, ports: Sequence[Port], fit: str = "stretch") -> dict[str, Tensor]:
    """Read a file as the inputs of a model.

    Args:
        path: ``.npz`` has one array per input name; ``.npy`` and images go to the only input.
        ports: the model's inputs.
        fit: how an image comes to the input's size: ``stretch``, ``crop`` or ``pad``.

    Raises:
        InputFileError: the file is missing or is not what its suffix says.
        InputShapeError: an image for a model that does not take one image.
    """
    check_inputs(path)
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as data:
                return {name: Tensor(data[name]) for name in data.files}
        if suffix == ".npy":
            return {_only(path, ports).name: Tensor(np.load(path, allow_pickle=False))}
    except (ValueError, OSError, EOFError, TypeError, MemoryError, BadZipFile, zlib.error) as error:
        raise InputFileError(str(path), str(error)) from error
    port = _only(path, ports)
    return {port.name: _read_image(path, port, fit)}


def _only(path: Path, ports: Sequence[Port]) -> Port:
    if len(ports) != 1:
        names = ", ".join(repr(port.name) for port in ports)
        raise InputFileError(
            str(path), f"the model has {len(ports)} inputs ({names}); pass a .npz with all of them"
        )
    return ports[0]


def _read_image(path: Path, port: Port, fit: str) -> Tensor:
    """Read an image as one sample of the input's size, values 0 to 255."""
    layout, shape = port.layout, port.shape
    if layout not in ("NCHW", "NHWC") or shape is None or shape[0] not in (-1, 1):
        takes = "any rank" if shape is None else format_shape(shape)
        raise InputShapeError(port.name, (), shape or (), f"an image does not fit {takes}")
    sizes = dict(zip(layout, shape, strict=True))
    height, width = (sizes[axis] if sizes[axis] > 0 else None for axis in "HW")
    channels = _GREY_CHANNELS if sizes["C"] == _GREY_CHANNELS else _COLOUR_CHANNELS
    try:
        pixels = decode_picture(path.read_bytes(), height, width, channels, fit)
    except PictureError as error:
        raise InputFileError(str(path), error.reason) from error
    except OSError as error:
        raise InputFileError(str(path), str(error)) from error
    return Tensor(pixels[np.newaxis], "NHWC")
