"""Videos as rows: exactly the frames that decoding from the begin gives."""

from __future__ import annotations

import struct
import sys
import uuid
from itertools import islice

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_inference import InputNameError, InputShapeError, OptionError
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.sources import video_file
from atriva_ray.batch.sources.video import VideoSource
from atriva_ray.errors import InputFileError
from tests.unit.batch.reading import COLOUR, by_fragment, port, reading, reasons, rows_of

WIDTH, HEIGHT = 64, 48
FRAME = port("image", (1, 3, HEIGHT, WIDTH), layout="NCHW")

MP4 = {"codec": "libx264", "suffix": "mp4", "g": 12, "bf": 3}
WAYS = {
    "h264 in mp4": MP4,
    "open groups": {**MP4, "x264-params": "open-gop=1:b-pyramid=normal"},
    "intra refresh": {**MP4, "bf": 0, "x264-params": "intra-refresh=1:keyint=12"},
    "h264 in mkv": {**MP4, "suffix": "mkv"},
    "h264 in mov": {**MP4, "suffix": "mov"},
    "mpeg4 in mp4": {"codec": "mpeg4", "suffix": "mp4", "g": 12, "bf": 2},
    "mpeg4 in avi": {"codec": "mpeg4", "suffix": "avi", "g": 12},
    "h264 in avi": {**MP4, "suffix": "avi"},
    "vp8 in webm": {"codec": "libvpx", "suffix": "webm", "g": 12},
    "vp9 in webm": {"codec": "libvpx-vp9", "suffix": "webm", "g": 12, "deadline": "realtime"},
}
CUT = {"h264 in mp4", "open groups", "h264 in mkv", "h264 in mov", "mpeg4 in mp4", "vp9 in webm"}


def numbered(number):
    """A picture that says its number in eight stripes, strong enough for any codec."""
    picture = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            picture[:, bit * 8 : bit * 8 + 8] = 235
    return picture


def number_of(pixels):
    """What `numbered` put into it."""
    width = pixels.shape[1] // 8
    stripes = pixels[:, : width * 8].mean(axis=(0, 2)).reshape(8, width).mean(axis=1)
    return sum(1 << bit for bit in range(8) if stripes[bit] > 128)


def write(path, count, codec="libx264", suffix="mp4", movflags="", **options):
    path = path.with_suffix(f".{suffix}")
    muxing = {"movflags": movflags} if movflags else {}
    with av.open(str(path), "w", options=muxing) as container:
        try:
            stream = container.add_stream(
                codec, rate=25, options={key: str(value) for key, value in options.items()}
            )
        except av.FFmpegError:
            pytest.skip(f"there is no encoder {codec}")
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(count):
            picture = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    made = {}

    def get(way, count=120):
        if (way, count) not in made:
            made[way, count] = write(folder / f"{way} {count}", count, **WAYS[way])
        return made[way, count]

    return get


def numbers(rows):
    return [None if row.bad_because else number_of(row.inputs["image"]) for row in rows]


def frame_numbers(rows):
    return [row.identity["frame"] for row in rows]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("every", [1, 7])
def test_every_n_th_frame_is_a_row(videos, way, every):
    rows = rows_of(VideoSource(every), videos(way), [FRAME])
    expected = list(range(0, 120, every))
    assert frame_numbers(rows) == expected
    assert numbers(rows) == expected
    assert rows[0].identity["path"] == str(videos(way))
    assert {row.inputs["image"].shape for row in rows} == {(HEIGHT, WIDTH, 3)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("every", "size"), [(1, 20), (5, 3), (1, 1), (13, 1)])
def test_fragments_together_hold_every_frame_once(videos, way, every, size):
    whole = rows_of(VideoSource(every, 10_000), videos(way), [FRAME])
    fragments = by_fragment(VideoSource(every, size), videos(way), [FRAME])
    if way in CUT:
        assert len(fragments) > 1
        assert all(len(rows) >= size for rows in fragments[:-1])
    if way not in CUT and way != "intra refresh":
        assert len(fragments) == 1
    rows = [row for rows in fragments for row in rows]
    assert [row.identity for row in rows] == [row.identity for row in whole]
    for row, expected in zip(rows, whole, strict=True):
        np.testing.assert_array_equal(row.inputs["image"], expected.inputs["image"])


@settings(deadline=None, max_examples=15)
@given(
    way=st.sampled_from(sorted(WAYS)),
    count=st.sampled_from([1, 2, 11, 12, 13, 60]),
    every=st.integers(1, 70),
    size=st.integers(1, 30),
)
def test_any_video_can_be_cut_or_is_left_whole(videos, way, count, every, size):
    rows = rows_of(VideoSource(every, size), videos(way, count), [FRAME])
    assert frame_numbers(rows) == numbers(rows) == list(range(0, count, every))


def test_times_that_are_not_the_packets_are_found(videos, monkeypatch):
    monkeypatch.setattr(video_file, "_CUT_FORMATS", {"avi"})
    assert len(by_fragment(VideoSource(1, 20), videos("h264 in avi"), [FRAME])) == 1
    assert len(by_fragment(VideoSource(1, 20), videos("mpeg4 in avi"), [FRAME])) > 1


def test_a_short_video_is_not_looked_at(videos, monkeypatch):
    monkeypatch.setattr(video_file, "_is_as_decoded", None)
    for way in ("h264 in mp4", "h264 in mkv"):
        assert len(by_fragment(VideoSource(), videos(way), [FRAME])) == 1


def test_how_many_rows_there_will_be_is_known_if_a_video_was_cut(videos):
    with reading(VideoSource(1, 20), videos("h264 in mp4"), [FRAME]) as (_, fragments, _context):
        assert sum(fragment.row_count for fragment in fragments) == 120
    with reading(VideoSource(), videos("h264 in mp4"), [FRAME]) as (_, fragments, _context):
        assert [fragment.row_count for fragment in fragments] == [None]


def test_where_decoding_cannot_begin_after_all_it_begins_at_the_begin(videos, monkeypatch):
    """Seeking goes wrong: too far, or to a frame from which not all can be decoded."""
    path = videos("h264 in mp4")
    original = video_file.frames
    for lost in (1, 30):

        def late(container, video, lost=lost):
            found = original(container, video)
            first = next(found)
            if first.pts == 0:
                yield first
            yield from islice(found, lost if first.pts else 0, None)

        monkeypatch.setattr("atriva_ray.batch.sources.video.frames", late)
        rows = rows_of(VideoSource(1, 20), path, [FRAME])
        assert numbers(rows) == list(range(120))


# -- how frames get to the model's size ----------------------------------------------------------


def test_frames_are_scaled_to_the_model(videos):
    path = videos("h264 in mp4")
    rows = rows_of(VideoSource(), path, [port("image", (1, 24, 16, 3), "u1", "NHWC")])
    assert {row.inputs["image"].shape for row in rows} == {(24, 16, 3)}
    assert numbers(rows) == list(range(120))
    grey = rows_of(VideoSource(), path, [port("image", (-1, 1, -1, -1), layout="NCHW")])
    assert grey[0].inputs["image"].shape == (HEIGHT, WIDTH, 1)
    assert numbers(grey) == list(range(120))
    odd = rows_of(VideoSource(40), path, [port("image", (1, 3, 17, 31), layout="NCHW")])
    assert odd[0].inputs["image"].flags.c_contiguous


def test_crop_and_pad(videos):
    path = videos("h264 in mp4")
    square = [port("image", (1, 3, 32, 32), layout="NCHW")]
    row = rows_of(VideoSource(255), path, square, fit="pad")[0]
    lines = row.inputs["image"].mean(axis=(1, 2))
    assert (lines[:4] == 0).all()
    assert (lines[4:28] > 10).all()
    assert (lines[28:] == 0).all()
    rows = rows_of(VideoSource(4), path, square, fit="crop")
    middle = rows[60 // 4].inputs["image"]  # 0b00111100: white from stripe 2 to stripe 5
    assert middle[:, 8:-8].mean() > 220
    assert middle[:, :4].mean() < 60
    assert middle[:, -4:].mean() < 60
    with pytest.raises(OptionError, match="fit"):
        rows_of(VideoSource(), path, square, fit="squash")


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
        ((0, -1, 1, 0), lambda pixels: np.rot90(pixels, 1)),
        ((-1, 0, 0, -1), lambda pixels: np.rot90(pixels, 2)),
    ],
)
def test_a_turned_video_is_turned_back(videos, tmp_path, matrix, turn):
    content = bytearray(videos("h264 in mp4").read_bytes())
    offset = content.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (value << 16 for value in matrix)
    content[offset : offset + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(content)
    free = [port("image", (1, 3, -1, -1), layout="NCHW")]
    plain = rows_of(VideoSource(50), videos("h264 in mp4"), free)[2].inputs["image"]
    turned = rows_of(VideoSource(50), path, free)[2].inputs["image"]
    np.testing.assert_array_equal(turned, turn(plain))
    fixed = rows_of(VideoSource(50), path, [COLOUR])[2].inputs["image"]
    assert fixed.shape == (6, 4, 3)


# -- files that are not as they should be ----------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        {"movflags": "faststart"},
        {"suffix": "mkv"},
        {"suffix": "avi"},
        {"suffix": "avi", "codec": "mpeg4", "bf": 0},
    ],
)
@pytest.mark.parametrize("size", [10_000, 20])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_a_video_that_is_cut_off(tmp_path, way, size, part):
    path = write(tmp_path / "video", 120, **{**MP4, **way})
    content = path.read_bytes()
    whole = rows_of(VideoSource(), path, [FRAME])
    path.write_bytes(content[: int(len(content) * part)])
    rows = rows_of(VideoSource(1, size), path, [FRAME])
    good = [row for row in rows if row.bad_because is None]
    assert numbers(good) == frame_numbers(good) == list(range(len(good)))
    for row, expected in zip(good, whole, strict=False):
        np.testing.assert_array_equal(row.inputs["image"], expected.inputs["image"])
    if way.get("suffix") == "avi" and part == 0.9:  # only the index is lost
        assert len(good) == 120
    else:
        assert 120 * (part - 0.45) < len(good) < 115
        [reason] = reasons(rows)
        assert any(words in reason for words in ("cut off", "decoded", "cannot be read"))
        assert rows[-1].identity["frame"] == (len(good) or -1)


def test_a_video_that_is_cut_off_between_frames(tmp_path):
    path = write(tmp_path / "video", 120, **MP4, movflags="faststart")
    with av.open(str(path)) as container:
        packets = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: sorted(packets)[60]])
    for size in (10_000, 20):
        rows = rows_of(VideoSource(1, size), path, [FRAME])
        assert numbers(rows) == [*range(len(rows) - 1), None]
        assert 55 < len(rows) <= 60
        assert reasons(rows) == ["the file is cut off"]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_damage_anywhere_is_never_an_error(tmp_path_factory, videos, suffix, data):
    content = bytearray(videos(f"h264 in {suffix}").read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 20] = data.draw(st.binary(min_size=20, max_size=20))
    path = tmp_path_factory.mktemp("video") / f"video.{suffix}"
    path.write_bytes(content)
    for size in (10_000, 20):
        rows = rows_of(VideoSource(1, size), path, [FRAME])
        assert rows


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a text",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile b.mp4\n",
    ],
)
def test_a_file_that_is_no_video_is_one_bad_row(tmp_path, videos, content):
    good = videos("h264 in mp4", 12)
    (tmp_path / "a.mp4").write_bytes(content.replace(b"{}", str(good).encode()))
    (tmp_path / "b.mp4").write_bytes(good.read_bytes())
    rows = rows_of(VideoSource(), tmp_path, [FRAME])
    assert numbers(rows) == [None, *range(12)]
    assert rows[0].identity == {"path": f"{tmp_path}/a.mp4", "frame": -1}
    assert "it cannot be read as a video" in rows[0].bad_because


def test_a_video_without_frames_is_one_bad_row(videos, monkeypatch):
    monkeypatch.setattr("atriva_ray.batch.sources.video.frames", lambda *_: iter(()))
    [row] = rows_of(VideoSource(), videos("h264 in mp4"), [FRAME])
    assert row.identity["frame"] == -1
    assert row.bad_because == "it has no frames in it"


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    [row] = rows_of(VideoSource(), path, [FRAME])
    assert "it has no video in it" in row.bad_because


@pytest.mark.parametrize(("every", "size"), [(1, 10_000), (1, 20), (7, 3), (11, 1)])
def test_a_file_that_vanished(tmp_path, videos, every, size):
    path = tmp_path / "video.mp4"
    path.write_bytes(videos("h264 in mp4").read_bytes())
    rows = rows_of(VideoSource(every, size), path, [FRAME], twist=path.unlink)
    if size < 120:
        assert frame_numbers(rows) == list(range(0, 120, every))
    else:
        assert frame_numbers(rows) == [-1]
    assert all("it cannot be read as a video" in row.bad_because for row in rows)


@pytest.mark.parametrize("size", [10_000, 20])
def test_files_elsewhere(videos, size):
    filesystem, root = open_location(f"memory://v{uuid.uuid4().hex}")
    filesystem.create_dir(root)
    with filesystem.open_output_stream(f"{root}/a.mp4") as stream:
        stream.write(videos("h264 in mp4").read_bytes())
    fragments = by_fragment(VideoSource(1, size), f"memory://{root}", [FRAME])
    assert (len(fragments) > 1) == (size == 20)
    assert [number for rows in fragments for number in numbers(rows)] == list(range(120))
    filesystem.delete_dir(root)


# -- what does not fit ---------------------------------------------------------------------------


def test_a_model_of_other_things(videos):
    path = videos("h264 in mp4")
    with pytest.raises(InputShapeError, match="a picture does not fit"):
        rows_of(VideoSource(), path, [port()])
    with pytest.raises(InputNameError, match="missing input 'x'"):
        rows_of(VideoSource(), path, [FRAME, port()])
    with pytest.raises(OptionError, match="video input has no columns"):
        rows_of(VideoSource(), path, [FRAME], keep=["label"])


def test_without_pyav_it_says_what_to_install(videos, monkeypatch):
    path = videos("h264 in mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputFileError, match=r"pip install 'atriva-ray\[video\]'"):
        rows_of(VideoSource(), path, [FRAME])


def test_no_more_is_decoded_ahead_than_allowed(videos, monkeypatch):
    begun = []
    original = video_file.frames

    def counted(container, video):
        for frame in original(container, video):
            begun.append(frame.pts)
            yield frame

    monkeypatch.setattr("atriva_ray.batch.sources.video.frames", counted)
    with reading(VideoSource(), videos("h264 in mp4"), [FRAME], ahead=1000) as (
        source,
        parts,
        context,
    ):
        for number, _ in enumerate(source.read(parts[0], context)):
            assert len(begun) <= number + 1 + 16
