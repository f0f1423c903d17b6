"""A video file: its frames, and where it can be cut."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyarrow.fs import FileSystem, LocalFileSystem

from atriva_ray.errors import InputFileError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = [
    "Cut",
    "DamagedVideoError",
    "Scan",
    "frames",
    "opened",
    "read_errors",
    "require_av",
    "scan",
]

_FORMATS = "mov,mp4,matroska,webm,avi"
"""No playlists, which would open other files."""

_CUT_FORMATS = {"mov", "mp4", "matroska", "webm"}
_CUT_CODECS = {"h264", "hevc", "mpeg4", "mpeg2video", "mjpeg", "vp9", "av1"}
"""Where each packet is a frame, and has the time at which that is shown."""

_TRIED_FRAMES = 48
_DECODER_THREADS = 4
_DURATION_UNITS = 1_000_000
_SLACK_S = 0.1
_SLACK_FRAMES = 2


class DamagedVideoError(ValueError):
    """The rest of a video cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A frame at which decoding can begin.

    Attributes:
        pts: when it is shown, in the stream's units.
        frame: its number in the order in which frames are shown.
    """

    pts: int
    frame: int


@dataclass(frozen=True, slots=True)
class Scan:
    """What is known of a video.

    Attributes:
        cuts: frames at which it can be cut, in order; none if it is short, or not known.
        frame_count: how many frames it has; None if that is not known, or some are damaged.
    """

    cuts: tuple[Cut, ...] = ()
    frame_count: int | None = None


def require_av(path: str) -> None:
    """Say what to install if the library that decodes is missing.

    Raises:
        InputFileError: it is.
    """
    try:
        import av  # noqa: F401, PLC0415 - an optional dependency
    except ImportError as error:
        raise InputFileError(path, "videos need PyAV: pip install 'atriva-ray[video]'") from error


@contextmanager
def opened(filesystem: FileSystem, path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and choose its video.

    Raises:
        Exception: `OSError`, `ValueError` or `av.FFmpegError`: it cannot be read as a video.
    """
    import av  # noqa: PLC0415 - an optional dependency

    with filesystem.open_input_file(path) as stream:  # says what is wrong with the file itself
        # The library reads a file of this machine by itself, without asking Python for each part.
        source: Any = f"file:{path}" if isinstance(filesystem, LocalFileSystem) else stream
        with av.open(source, options={"format_whitelist": _FORMATS}) as container:
            video = container.streams.best("video")
            if video is None:
                raise ValueError("it has no video in it")
            if video.codec_context is None:
                raise ValueError("nobody knows its codec")
            video.thread_type = "AUTO"
            video.codec_context.thread_count = _DECODER_THREADS
            yield container, video


def read_errors() -> tuple[type[Exception], ...]:
    """Return what is raised for a file that is no video, or cannot be read."""
    from av import FFmpegError  # noqa: PLC0415 - an optional dependency

    return (FFmpegError, OSError, ValueError, LookupError, RuntimeError)


def scan(container: InputContainer, video: VideoStream, worth_it: int) -> Scan:
    """Find out where a video can be cut.

    Packets are read and not decoded, but for the first frames, to see whether their times are what
    packets say.

    Args:
        container: just opened.
        video: the stream.
        worth_it: how many frames are not short.
    """
    frame_count = video.frames
    if not frame_count and container.duration and video.average_rate:
        frame_count = int(container.duration / _DURATION_UNITS * video.average_rate)
    formats = set(container.format.name.split(","))
    codec = video.codec_context.codec.canonical_name
    if 0 < frame_count <= worth_it or not formats & _CUT_FORMATS or codec not in _CUT_CODECS:
        return Scan()
    times: list[int] = []
    keys = set()
    end_s, last_dts, is_damaged = 0.0, None, False
    for packet in container.demux(video):
        is_damaged = is_damaged or packet.is_corrupt
        if not packet.size or packet.is_discard or packet.is_corrupt:
            continue
        if packet.pts is None:
            return Scan()
        times.append(packet.pts)
        end_s = max(end_s, _end_s(packet))
        last_dts = last_dts if packet.dts is None else packet.dts
        if packet.is_keyframe:
            keys.add(packet.pts)
    times.sort()
    if len(set(times)) != len(times) or not _is_as_decoded(container, video, times):
        return Scan()
    is_damaged = is_damaged or bool(_what_is_missing(video, last_dts, end_s))
    cuts = tuple(Cut(pts, frame) for frame, pts in enumerate(times) if pts in keys)
    return Scan(cuts, None if is_damaged else len(times))


def _is_as_decoded(container: InputContainer, video: VideoStream, times: list[int]) -> bool:
    if not times:
        return False
    container.seek(times[0], stream=video)
    found: list[int | None] = []
    with suppress(DamagedVideoError):
        for frame in frames(container, video):
            found.append(frame.pts)
            if len(found) == _TRIED_FRAMES:
                break
    return found == times[: max(1, len(found))]


def frames(container: InputContainer, video: VideoStream) -> Iterator[VideoFrame]:
    """Yield frames in the order in which they are shown, from where the container is.

    Raises:
        DamagedVideoError: after the last frame that can be decoded, if there should be more.
    """
    from av import FFmpegError  # noqa: PLC0415 - an optional dependency

    reason = ""
    last_dts: int | None = None
    pace = _Pace()
    waiting: list[VideoFrame] = []
    try:
        for packet in container.demux(video):
            if packet.is_corrupt:
                reason = "the file is cut off"
                break
            decoded = packet.decode()
            if not packet.size:  # the end: the decoder gives away what it has
                waiting = decoded
                break
            last_dts = last_dts if packet.dts is None else packet.dts
            for frame in decoded:
                pace.next(frame)
                yield frame
    except FFmpegError as error:
        reason = f"it cannot be decoded any further: {error.strerror}"
    if reason:
        with suppress(FFmpegError):
            waiting = video.codec_context.decode(None)
    end_s = max((_end_s(frame) for frame in waiting), default=pace.end_s)
    reason = reason or _what_is_missing(video, last_dts, end_s)
    has_times = "avi" not in container.format.name or not video.codec_context.has_b_frames
    for frame in waiting:
        # Where packets are missing, frames between those that are left may be missing too.
        if reason and not (has_times and pace.is_next(frame)):
            break
        pace.next(frame)
        yield frame
    if reason:
        raise DamagedVideoError(reason)


class _Pace:
    """How far apart frames are shown."""

    def __init__(self) -> None:
        self.end_s = 0.0
        self._pts: int | None = None
        self._step = 0

    def next(self, frame: VideoFrame) -> None:
        self.end_s = _end_s(frame)
        if frame.pts is not None and self._pts is not None:
            self._step = frame.pts - self._pts
        self._pts = frame.pts

    def is_next(self, frame: VideoFrame) -> bool:
        """Whether a frame follows the last one as closely as that followed the one before."""
        if frame.pts is None:
            return False
        step = self._step or frame.duration or 0
        return self._pts is None or frame.pts - self._pts <= step


def _end_s(shown: VideoFrame | Packet[VideoStream]) -> float:
    if shown.pts is None or shown.time_base is None:
        return math.inf
    return float((shown.pts + (shown.duration or 0)) * shown.time_base)


def _what_is_missing(video: VideoStream, last_dts: int | None, end_s: float) -> str:
    """Tell whether a file ends before its index or its header say."""
    index = getattr(video, "index_entries", ())  # which older versions lack
    if len(index) and last_dts is not None and last_dts < index[len(index) - 1].timestamp:
        return "the file is cut off"
    if last_dts is not None and last_dts + _SLACK_FRAMES < _frames_of_avi(video):
        return "the file is cut off"
    told_s = _told_duration_s(video)
    if told_s is not None and end_s < told_s - max(_SLACK_S, _SLACK_FRAMES * _frame_s(video)):
        return f"the file is cut off: it has {end_s:.1f} of {told_s:.1f} seconds"
    return ""


def _frames_of_avi(video: VideoStream) -> int:
    """Return how many frames the header of an AVI file tells; times are their numbers there."""
    is_avi = "avi" in video.container.format.name
    return video.frames if is_avi and video.time_base == 1 / (video.average_rate or 1) else 0


def _told_duration_s(video: VideoStream) -> float | None:
    """Return how long Matroska files say that a stream is."""
    try:
        hours, minutes, seconds = video.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except (KeyError, ValueError):
        return None


def _frame_s(video: VideoStream) -> float:
    return float(1 / video.average_rate) if video.average_rate else 0.0
