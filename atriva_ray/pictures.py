"""From a JPEG or PNG file to pixels of the size that a model takes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atriva_inference.errors import OptionError
from atriva_ray.errors import PictureError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

__all__ = ["FITS", "Pixels", "centred", "decode_picture", "require_pillow", "scaled_size"]

FITS = ("stretch", "crop", "pad")
"""How a picture gets to a size of another shape: out of proportion, cut, or with black borders."""

Pixels = npt.NDArray[np.uint8]
"""Height × width × channels."""

_MAX_PIXELS = 200_000_000
_JPEG_BEGIN = b"\xff\xd8\xff"
_PNG_BEGIN = b"\x89PNG\r\n\x1a\n"
_ORIENTATION_TAG = 0x0112
_TURNS = {
    1: "",
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
"""What makes a picture upright, by how EXIF says the camera was held."""

_WIDE = ("I;16", "I;16B", "I")
"""Modes in which Pillow keeps grey of 16 bits."""

_BROKEN: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What Pillow raises for files that are not what they should be."""

_BROKEN_EXIF: tuple[type[Exception], ...] = (*_BROKEN, Warning)
"""And what it only warns of there, where warnings are errors."""


def require_pillow() -> None:
    """Say what to install if the library that decodes is missing.

    Raises:
        PictureError: it is.
    """
    try:
        import PIL.Image  # noqa: F401, PLC0415 - an optional dependency
    except ImportError as error:
        raise PictureError("images need Pillow: pip install 'atriva-ray[images]'") from error


def decode_picture(
    data: bytes, height: int | None, width: int | None, channels: int, fit: str = "stretch"
) -> Pixels:
    """Decode a JPEG or PNG file to pixels of a size.

    A picture that was taken with the camera turned is turned back. What is transparent is laid over
    black, 16 bits per value are scaled to 8, colour becomes grey and grey becomes colour as the
    model wants it. May be called by many threads at once, most of it runs without the GIL.

    Args:
        data: the file.
        height: of the result; None for the picture's own.
        width: of the result; None for the picture's own.
        channels: 1 for grey, 3 for red, green and blue.
        fit: ``stretch``; ``crop``: as large as needed, the middle of it; ``pad``: as large as
            possible, the rest black.

    Returns:
        Height × width × channels; maybe read-only.

    Raises:
        PictureError: it is no picture, a part of it is missing, or it has too many pixels.
        OptionError: there is no such `fit`.
    """
    require_pillow()
    try:
        picture = _open(data)
        if picture.width * picture.height > _MAX_PIXELS:
            raise PictureError(
                f"{picture.width}×{picture.height} pixels are too many; "
                f"at most {_MAX_PIXELS:,} are decoded"
            )
        orientation = _orientation(picture)
        is_turned = orientation > 4  # noqa: PLR2004 - the last four lie on their side
        own_size = picture.size[::-1] if is_turned else picture.size
        size = (width or own_size[0], height or own_size[1])
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which is much faster.
        needed = scaled_size(own_size, size, fit)
        picture.draft("L" if channels == 1 else "RGB", needed[::-1] if is_turned else needed)
        plain = _turn(_plain(picture, channels), orientation)
        return _fitted(plain, size[1], size[0], fit)
    except _BROKEN as error:
        raise PictureError(f"it cannot be decoded: {str(error) or type(error).__name__}") from error


def scaled_size(size: tuple[int, int], wanted: tuple[int, int], fit: str) -> tuple[int, int]:
    """Return the width and height that a whole picture is scaled to, before it is cut or padded.

    Raises:
        OptionError: there is no such `fit`.
    """
    if fit not in FITS:
        raise OptionError("fit", fit, f"one of {', '.join(FITS)}")
    if fit == "stretch":
        return wanted
    scales = (wanted[0] / size[0], wanted[1] / size[1])
    scale = max(scales) if fit == "crop" else min(scales)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def centred(pixels: Pixels, height: int, width: int) -> Pixels:
    """Cut the middle out of pixels, or put black around them, until they have a size."""
    own_height, own_width, channels = pixels.shape
    if (own_height, own_width) == (height, width):
        return pixels
    result: Pixels = np.zeros((height, width, channels), np.uint8)
    rows, own_rows = _middle(height, own_height)
    columns, own_columns = _middle(width, own_width)
    result[rows, columns] = pixels[own_rows, own_columns]
    return result


def _middle(size: int, own_size: int) -> tuple[slice, slice]:
    """Return which part of a size is covered, and by which part of what there is."""
    count = min(size, own_size)
    start, own_start = (size - count) // 2, (own_size - count) // 2
    return slice(start, start + count), slice(own_start, own_start + count)


def _fitted(picture: Image, height: int, width: int, fit: str) -> Pixels:
    """Bring a grey or RGB picture to a size."""
    from PIL.Image import Resampling  # noqa: PLC0415 - an optional dependency

    size = (width, height)
    inner = scaled_size(picture.size, size, fit)
    if fit == "crop":
        # The part that is left is cut out while scaling, rather than scaling what is thrown away.
        scale = max(width / picture.width, height / picture.height)
        left = max(0.0, (picture.width - width / scale) / 2)
        top = max(0.0, (picture.height - height / scale) / 2)
        box = (left, top, picture.width - left, picture.height - top)
        scaled = picture.resize(size, Resampling.BILINEAR, box)
    elif picture.size == inner:
        scaled = picture
    else:
        scaled = picture.resize(inner, Resampling.BILINEAR)
    pixels: Pixels = np.asarray(scaled)
    return centred(pixels.reshape(scaled.height, scaled.width, -1), height, width)


def _open(data: bytes) -> ImageFile:
    """Read a file's header, of the two formats only and past Pillow's own limits of pixels."""
    from PIL.JpegImagePlugin import JpegImageFile  # noqa: PLC0415 - an optional dependency
    from PIL.PngImagePlugin import PngImageFile  # noqa: PLC0415 - an optional dependency

    if data.startswith(_PNG_BEGIN):
        return PngImageFile(io.BytesIO(data))
    if data.startswith(_JPEG_BEGIN):
        return JpegImageFile(io.BytesIO(data))
    raise PictureError("it is neither JPEG nor PNG" if data else "the file is empty")


def _orientation(picture: ImageFile) -> int:
    """How the camera was held, as EXIF numbers it; 1 (upright) if that cannot be read."""
    if picture.format == "PNG":
        picture.load()  # it may come after the pixels
    try:
        value = picture.getexif().get(_ORIENTATION_TAG, 1)
    except _BROKEN_EXIF:
        return 1
    return value if isinstance(value, int) and value in _TURNS else 1


def _turn(picture: Image, orientation: int) -> Image:
    from PIL.Image import Transpose  # noqa: PLC0415 - an optional dependency

    turn = _TURNS[orientation]
    return picture.transpose(Transpose[turn]) if turn else picture


def _plain(picture: ImageFile, channels: int) -> Image:
    """Decode to grey or RGB of 8 bits without transparency."""
    from PIL.Image import fromarray, new  # noqa: PLC0415 - an optional dependency

    plain: Image = picture
    if picture.mode in _WIDE:  # Pillow would cut off at 255
        plain = fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        plain = new("RGB", picture.size)
        plain.paste(coloured, mask=coloured.getchannel("A"))
    mode = "L" if channels == 1 else "RGB"
    return plain if plain.mode == mode else plain.convert(mode)
