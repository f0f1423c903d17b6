"""Folders of pictures as rows."""

from __future__ import annotations

import io
import sys
import uuid

import numpy as np
import pytest
from PIL import Image

from atriva_inference import InputNameError, InputShapeError, OptionError, Port
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.sources.images import ImageSource
from atriva_ray.errors import PictureError
from tests.unit.batch.reading import COLOUR, by_fragment, port, reading, reasons, rows_of


def jpeg(shade=0, size=(8, 12)):
    stream = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(stream, "JPEG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    for number in range(10):
        (tmp_path / f"{number:02d}.jpg").write_bytes(jpeg(number * 20))
    return tmp_path


def test_every_file_is_a_row_in_order(folder):
    rows = rows_of(ImageSource(), folder, [COLOUR])
    assert [row.identity["path"] for row in rows] == [f"{folder}/{n:02d}.jpg" for n in range(10)]
    for number, row in enumerate(rows):
        pixels = row.inputs["image"]
        assert (pixels.shape, pixels.dtype) == ((6, 4, 3), np.uint8)
        assert pixels.mean() == pytest.approx(number * 20, abs=2)


@pytest.mark.parametrize(("size", "counts"), [(3, [3, 3, 3, 1]), (5, [5, 5]), (256, [10])])
def test_consecutive_files_are_done_as_a_whole(folder, size, counts):
    fragments = by_fragment(ImageSource(size), folder, [COLOUR])
    assert [len(rows) for rows in fragments] == counts


@pytest.mark.parametrize("ahead", [0, 1, 5, 100])
def test_no_more_is_decoded_ahead_than_allowed(folder, monkeypatch, ahead):
    begun = []
    decode = "atriva_ray.picture_port.decode_picture"
    monkeypatch.setattr(decode, lambda data, *_: begun.append(data) or np.zeros((6, 4, 3)))
    with reading(ImageSource(), folder, [COLOUR], ahead=ahead) as (source, [fragment], context):
        for number, _ in enumerate(source.read(fragment, context)):
            assert len(begun) <= number + 1 + ahead
    assert len(begun) == 10


def test_fit_and_size_come_from_the_model(tmp_path):
    (tmp_path / "wide.jpg").write_bytes(jpeg(255, (40, 10)))
    [row] = rows_of(ImageSource(), tmp_path, [COLOUR], fit="pad")
    assert row.inputs["image"][0].max() == 0
    grey = port("image", (-1, 5, 9, 1), "u1", "NHWC")
    [row] = rows_of(ImageSource(), tmp_path, [grey])
    assert row.inputs["image"].shape == (5, 9, 1)
    free = port("image", (1, 3, -1, -1), "f4", "NCHW")
    [row] = rows_of(ImageSource(), tmp_path, [free])
    assert row.inputs["image"].shape == (10, 40, 3)


def test_damaged_files_are_bad_rows_among_good_ones(folder):
    (folder / "03.jpg").write_bytes(b"")
    (folder / "04.jpg").write_text("a text")
    (folder / "05.jpg").write_bytes(jpeg()[:-100])
    (folder / "07.jpg").unlink()
    (folder / "07.jpg").symlink_to(folder / "nowhere")
    rows = rows_of(ImageSource(), folder, [COLOUR])
    bad = {row.identity["path"][-6:-4]: row.bad_because for row in rows if row.bad_because}
    assert list(bad) == ["03", "04", "05", "07"]
    assert bad["03"] == "the file is empty"
    assert bad["04"] == "it is neither JPEG nor PNG"
    assert "truncated" in bad["05"].lower()
    assert "it cannot be read" in bad["07"]


def test_a_file_that_vanished(folder):
    rows = rows_of(ImageSource(), folder, [COLOUR], twist=(folder / "01.jpg").unlink)
    assert len(rows) == 10
    assert len(reasons(rows)) == 1


def test_a_file_too_large_to_be_a_picture(folder):
    with (folder / "01.jpg").open("ab") as file:
        file.truncate(2 << 30)
    [reason] = reasons(rows_of(ImageSource(), folder, [COLOUR]))
    assert reason == "the file has more than 1,073,741,824 bytes"


def test_files_elsewhere():
    filesystem, root = open_location(f"memory://i{uuid.uuid4().hex}")
    filesystem.create_dir(root)
    for number in range(3):
        with filesystem.open_output_stream(f"{root}/{number}.jpg") as stream:
            stream.write(jpeg(number * 100) if number != 1 else b"?")
    rows = rows_of(ImageSource(), f"memory://{root}/*.jpg", [COLOUR])
    assert [row.bad_because is None for row in rows] == [True, False, True]
    filesystem.delete_dir(root)


@pytest.mark.parametrize(
    ("ports", "error", "words"),
    [
        ([port()], InputShapeError, "a picture does not fit"),
        ([port(shape=None)], InputShapeError, "any rank"),
        ([port("image", (4, 3, 8, 8), layout="NCHW")], InputShapeError, "does not fit 4×3×8×8"),
        ([port("image", (1, 4, 8, 8), layout="NCHW")], InputShapeError, "does not fit 1×4×8×8"),
        ([port("image", (1, 3, 8, 8), "U", layout="NCHW")], InputShapeError, "does not fit"),
        ([COLOUR, port()], InputNameError, "missing input 'x'"),
        ([], InputNameError, "inputs are none"),
    ],
)
def test_a_model_of_other_things(folder, ports, error, words):
    with pytest.raises(error, match=words):
        rows_of(ImageSource(), folder, ports)
    with pytest.raises(error, match=words):
        ImageSource().read(None, type("Context", (), {"ports": tuple(ports)}))


def test_there_are_no_columns(folder):
    with pytest.raises(OptionError, match="images input has no columns"):
        rows_of(ImageSource(), folder, [COLOUR], keep=["label"])
    with pytest.raises(OptionError, match="images input has no columns"):
        rows_of(ImageSource(), folder, [COLOUR], columns={"image": "pixels"})


def test_without_pillow_it_is_said_before_the_first_row(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PictureError, match="pip install"):
        rows_of(ImageSource(), folder, [COLOUR])


def test_an_unknown_fit_ends_the_job(folder):
    with pytest.raises(OptionError, match="fit"):
        rows_of(ImageSource(), folder, [COLOUR], fit="squash")


def test_any_channel_count_means_colour(folder):
    any_colour = Port("image", ("image",), np.dtype("f4"), (-1, 4, 4, -1), "NHWC")
    assert rows_of(ImageSource(), folder, [any_colour])[0].inputs["image"].shape == (4, 4, 3)
