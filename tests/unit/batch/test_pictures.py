"""Pictures: every kind of file, every way to fit it, and files that are none."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from atriva_inference import OptionError
from atriva_ray.errors import PictureError
from atriva_ray.pictures import decode_picture, require_pillow


def written(picture, format_="PNG", **options):
    stream = io.BytesIO()
    picture.save(stream, format_, **options)
    return stream.getvalue()


def gradient(width=64, height=48):
    """Smooth, and different at every corner, so that JPEG keeps it and turns show."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([across, down, 255 - across], -1).astype(np.uint8))


def png16(pixels, colour_type):
    """A PNG of 16 bits per value, which Pillow does not write in colour."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


PICTURE = gradient()
PIXELS = np.asarray(PICTURE)


def test_a_png_keeps_its_pixels():
    pixels = decode_picture(written(PICTURE), None, None, 3)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (48, 64, 3))
    np.testing.assert_array_equal(pixels, PIXELS)


def test_a_jpeg_nearly_does():
    pixels = decode_picture(written(PICTURE, "JPEG", quality=95), None, None, 3)
    np.testing.assert_allclose(pixels.astype(int), PIXELS, atol=6)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_colour_becomes_grey_and_grey_becomes_colour(format_):
    grey = PICTURE.convert("L")
    expected = np.asarray(grey)[..., np.newaxis]
    from_colour = decode_picture(written(PICTURE, format_), None, None, 1)
    from_grey = decode_picture(written(grey, format_), None, None, 3)
    np.testing.assert_allclose(from_colour.astype(int), expected, atol=6)
    np.testing.assert_allclose(from_grey.astype(int), np.repeat(expected, 3, -1), atol=6)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("P", (4, 4), 0), (0, 0, 0)),
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("LA", (4, 4), (200, 255)), (200, 200, 200)),
        (Image.new("LA", (4, 4), (200, 0)), (0, 0, 0)),
        (Image.new("RGBA", (4, 4), (200, 100, 50, 255)), (200, 100, 50)),
        (Image.new("RGBA", (4, 4), (200, 100, 50, 128)), (100, 50, 25)),
        (Image.new("RGBA", (4, 4), (200, 100, 50, 0)), (0, 0, 0)),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_every_mode_becomes_colour(picture, expected):
    data = written(picture, "JPEG" if picture.mode == "CMYK" else "PNG")
    pixels = decode_picture(data, None, None, 3)
    np.testing.assert_allclose(pixels[2, 2].astype(int), expected, atol=2)


def test_palettes():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    pixels = decode_picture(written(palette), None, None, 3)
    assert pixels.tolist() == [[[10, 20, 30], [200, 100, 50]]]
    pixels = decode_picture(written(palette, transparency=1), None, None, 3)
    assert pixels.tolist() == [[[10, 20, 30], [0, 0, 0]]]


def test_a_colour_that_means_transparent():
    picture = Image.new("RGB", (2, 1), (9, 9, 9))
    picture.putpixel((1, 0), (1, 2, 3))
    pixels = decode_picture(written(picture, transparency=(9, 9, 9)), None, None, 3)
    assert pixels.tolist() == [[[0, 0, 0], [1, 2, 3]]]


def test_sixteen_bits_are_scaled():
    grey = np.array([[0, 255, 256, 40_000, 65_535]], np.uint16)
    expected = [0, 0, 1, 156, 255]
    assert decode_picture(png16(grey, 0), None, None, 1).ravel().tolist() == expected
    colour = np.stack([grey, grey, grey], -1)
    assert decode_picture(png16(colour, 2), None, None, 3)[0, :, 0].tolist() == expected
    with_alpha = np.concatenate([colour, np.full((1, 5, 1), 65_535, np.uint16)], -1)
    assert decode_picture(png16(with_alpha, 6), None, None, 3)[0, :, 1].tolist() == expected


TURNED = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: np.transpose(pixels, (1, 0, 2)),
    6: lambda pixels: np.rot90(pixels, 3),
    7: lambda pixels: np.rot90(np.transpose(pixels, (1, 0, 2)), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_a_turned_picture_is_turned_back(format_, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = written(PICTURE, format_, exif=exif, **({"quality": 95} if format_ == "JPEG" else {}))
    expected = TURNED.get(orientation, TURNED[1])(PIXELS)
    pixels = decode_picture(data, None, None, 3)
    np.testing.assert_allclose(pixels.astype(int), expected, atol=8)
    small = decode_picture(data, 6, 4, 3)
    reference = np.asarray(Image.fromarray(np.ascontiguousarray(expected)).resize((4, 6), 2))
    np.testing.assert_allclose(small.astype(int), reference, atol=8)


def test_exif_may_come_after_the_pixels():
    exif = Image.Exif()
    exif[0x0112] = 3
    data = written(PICTURE, exif=exif)
    begin = data.index(b"eXIf") - 4
    end = begin + 12 + int.from_bytes(data[begin : begin + 4], "big")
    last = data.index(b"IEND") - 4
    moved = data[:begin] + data[end:last] + data[begin:end] + data[last:]
    np.testing.assert_array_equal(decode_picture(moved, None, None, 3), np.rot90(PIXELS, 2))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_is_ignored():
    data = written(PICTURE, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode_picture(data, None, None, 3), PIXELS)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_stretching_is_a_bilinear_filter_over_all_pixels(format_):
    picture = gradient(400, 300)
    reference = np.asarray(picture.resize((20, 30), Image.Resampling.BILINEAR)).astype(int)
    pixels = decode_picture(written(picture, format_), 30, 20, 3)
    np.testing.assert_allclose(pixels, reference, atol=6)


def test_fine_lines_become_grey_whichever_way_it_is_scaled():
    lines = np.zeros((256, 256, 3), np.uint8)
    lines[:, ::2] = 255
    pixels = decode_picture(written(Image.fromarray(lines), "JPEG", quality=95), 16, 16, 3)
    np.testing.assert_allclose(pixels.astype(int), 127, atol=6)


@pytest.mark.parametrize(
    ("fit", "decoded"), [("stretch", (800, 200)), ("crop", (400, 100)), ("pad", (200, 50))]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_decoded_as_large_as_needed_and_no_larger(monkeypatch, fit, decoded, orientation):
    sizes = []
    draft = JpegImageFile.draft

    def noted(picture, mode, size):
        draft(picture, mode, size)
        sizes.append(picture.size)

    monkeypatch.setattr(JpegImageFile, "draft", noted)
    exif = Image.Exif()
    exif[0x0112] = orientation
    wanted = (100, 800) if fit == "stretch" else (100, 100)  # height and width
    if orientation == 6:
        wanted = wanted[::-1]
    data = written(gradient(1600, 400), "JPEG", exif=exif)
    assert decode_picture(data, *wanted, 3, fit).shape == (*wanted, 3)
    assert sizes == [decoded]


HALVES = np.zeros((40, 80, 3), np.uint8)
HALVES[:, :20] = (255, 0, 0)
HALVES[:, 60:] = (0, 0, 255)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
@pytest.mark.parametrize("height", [10, 40, 100])
def test_crop_takes_the_middle(format_, height):
    data = written(Image.fromarray(HALVES), format_)
    pixels = decode_picture(data, height, height, 3, "crop")
    assert pixels.shape == (height, height, 3)
    edge = 1 + height // 20
    np.testing.assert_allclose(pixels[:, edge:-edge].astype(int), 0, atol=40)
    wide = decode_picture(data, 20, 160, 3, "crop")
    assert wide.shape == (20, 160, 3)
    assert wide[10, 5].argmax() == 0
    assert wide[10, -5].argmax() == 2


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_crop_takes_the_middle_of_a_tall_picture_too(format_):
    data = written(Image.fromarray(np.ascontiguousarray(HALVES.transpose(1, 0, 2))), format_)
    pixels = decode_picture(data, 40, 40, 3, "crop")
    np.testing.assert_allclose(pixels[4:-4].astype(int), 0, atol=40)


@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_pad_takes_all_and_puts_it_in_the_middle(format_):
    white = Image.new("RGB", (80, 40), (255, 255, 255))
    pixels = decode_picture(written(white, format_), 20, 20, 3, "pad")
    lines = pixels.mean(axis=(1, 2))
    np.testing.assert_allclose(lines, [0] * 5 + [255] * 10 + [0] * 5, atol=1)
    tall = decode_picture(written(white, format_), 21, 8, 1, "pad")
    assert tall.mean(axis=(1, 2)).tolist() == [0.0] * 8 + [255.0] * 4 + [0.0] * 9


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    wanted=st.tuples(st.none() | st.integers(1, 60), st.none() | st.integers(1, 60)),
    channels=st.sampled_from([1, 3]),
    fit=st.sampled_from(["stretch", "crop", "pad"]),
    format_=st.sampled_from(["PNG", "JPEG"]),
)
def test_any_picture_gets_to_any_size(size, wanted, channels, fit, format_):
    data = written(Image.new("RGB", size, (255, 255, 255)), format_)
    pixels = decode_picture(data, *wanted, channels, fit)
    assert pixels.shape == (wanted[0] or size[1], wanted[1] or size[0], channels)
    assert pixels.flags.c_contiguous
    assert pixels.max() == 255
    if fit != "pad":
        assert pixels.min() == 255


@pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (1, 20_000)])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("format_", ["PNG", "JPEG"])
def test_strange_sizes(size, fit, format_):
    data = written(Image.new("L", size, 255), format_)
    assert decode_picture(data, 224, 224, 3, fit).shape == (224, 224, 3)
    assert decode_picture(data, None, None, 1, fit).shape == (size[1], size[0], 1)


def test_an_unknown_fit():
    with pytest.raises(OptionError, match="one of stretch, crop, pad"):
        decode_picture(written(PICTURE), 4, 4, 3, "squeeze")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"not a picture at all", "neither JPEG nor PNG"),
        (b"\xff\xd8\xff", "cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        (written(PICTURE, "GIF"), "neither JPEG nor PNG"),
        (written(PICTURE, "TIFF"), "neither JPEG nor PNG"),
    ],
)
def test_what_is_no_picture(data, reason):
    with pytest.raises(PictureError, match=reason) as caught:
        decode_picture(data, 8, 8, 3)
    assert caught.value.reason in str(caught.value)


@pytest.mark.parametrize(
    ("format_", "options"), [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True})]
)
def test_a_picture_that_lost_pixels_is_never_taken_for_whole(format_, options):
    data = written(gradient(20, 15), format_, **options)
    whole = decode_picture(data, None, None, 3)
    refused = 0
    for length in range(len(data)):
        try:
            pixels = decode_picture(data[:length], None, None, 3)
        except PictureError:
            refused += 1
        else:  # only what follows the last pixel is missing
            np.testing.assert_array_equal(pixels, whole)
    assert refused > len(data) - 25


@settings(deadline=None)
@given(st.data())
def test_damage_anywhere_is_an_error_or_a_picture(data):
    good = bytearray(data.draw(st.sampled_from([written(PICTURE), written(PICTURE, "JPEG")])))
    for _ in range(data.draw(st.integers(1, 6))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PictureError):  # any other error is a failure
        assert decode_picture(bytes(good), 8, 8, 3).shape == (8, 8, 3)


def bomb(width, height):
    """A PNG that says it is huge and has nearly nothing in it."""
    data = bytearray(written(Image.new("L", (8, 8))))
    header = b"IHDR" + struct.pack(">II", width, height) + bytes(data[24:29])
    return bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])


@pytest.mark.filterwarnings("error")
def test_too_many_pixels_are_not_decoded():
    with pytest.raises(PictureError, match="20000×10001 pixels are too many; at most 200,000,000"):
        decode_picture(bomb(20_000, 10_001), 8, 8, 3)


@pytest.mark.filterwarnings("error")
def test_the_limit_is_ours_and_not_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for fit in ("stretch", "crop", "pad"):
        assert decode_picture(written(PICTURE), 8, 8, 3, fit).shape == (8, 8, 3)


def test_without_pillow_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PictureError, match=r"pip install 'atriva-ray\[images\]'"):
        require_pillow()


def test_many_threads_at_once():
    files = [written(gradient(200 + each, 150), "JPEG") for each in range(8)] * 4
    alone = [decode_picture(data, 32, 32, 3) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decode_picture(data, 32, 32, 3), files))
    np.testing.assert_array_equal(alone, together)
