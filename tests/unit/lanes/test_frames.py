"""Frames: what is cut anywhere comes out whole, and nothing is taken on trust."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.frames import (
    HEADER_BYTES,
    INLINE,
    FrameReader,
    Kind,
    pack,
    packed_queue,
    queue_of,
)

BUFFER_BYTES = 64 * 1024
DIRECT_BYTES = 32 * 1024
UINT32_MAX = 2**32 - 1
UINT64_MAX = 2**64 - 1

headers = st.fixed_dictionaries(
    {
        "kind": st.integers(0, 255),
        "flags": st.integers(0, 255),
        "slot": st.integers(0, 0xFFFF),
        "layout": st.integers(0, UINT32_MAX),
        "request": st.integers(0, UINT64_MAX),
        "first": st.integers(0, UINT32_MAX),
        "second": st.integers(0, UINT32_MAX),
    }
)
sizes = st.one_of(
    st.just(0),
    st.integers(0, 200),
    st.integers(DIRECT_BYTES - 40, DIRECT_BYTES + 40),
    st.integers(BUFFER_BYTES - 80, BUFFER_BYTES + 80),
    st.integers(0, 300_000),
)
frames = st.lists(st.tuples(headers, sizes), max_size=12)
cuts = st.lists(st.one_of(st.integers(1, 70), st.integers(1, 100_000)), max_size=30).map(
    lambda sizes: [*sizes, 20_000]  # so that a large body does not take too many
)


def body_of(number, size):
    pattern = struct.pack("<I", number * 7919 % 2**32)
    return (pattern * (size // 4 + 1))[:size]


def feed(reader, stream, cuts=(10**9,)):
    """Pass a stream on in pieces, the sizes of which are repeated, and return what comes out."""
    received = []
    position = number = 0
    while position < len(stream):
        space = reader.space()
        assert len(space) > 0
        count = min(len(space), cuts[number % len(cuts)], len(stream) - position)
        number += 1
        space[:count] = stream[position : position + count]
        position += count
        received += list(reader.received(count))
    return received


def allow(_header):
    return UINT64_MAX


@settings(deadline=None)
@given(frames, cuts)
@example([({"kind": 3}, DIRECT_BYTES), ({"kind": 3}, DIRECT_BYTES - 1)], [HEADER_BYTES])
@example([({"kind": 3}, BUFFER_BYTES - HEADER_BYTES)] * 3, [BUFFER_BYTES])
@example([({"kind": 3}, 0)] * 3000, [BUFFER_BYTES, 1])
def test_frames_come_out_as_they_were_sent_however_they_are_cut(frames, cuts):
    bodies = [body_of(number, size) for number, (_, size) in enumerate(frames)]
    stream = b"".join(
        pack(**fields, body_size=len(body)) + body
        for (fields, _), body in zip(frames, bodies, strict=True)
    )
    received = feed(FrameReader(allow), stream, cuts)

    assert [bytes(frame.body) for frame in received] == bodies
    assert [frame[:8] for frame in received] == [
        (
            fields["kind"],
            fields.get("flags", 0),
            fields.get("slot", INLINE),
            fields.get("layout", 0),
            fields.get("request", 0),
            len(body),
            fields.get("first", 0),
            fields.get("second", 0),
        )
        for (fields, _), body in zip(frames, bodies, strict=True)
    ]


def test_a_body_of_many_megabytes_comes_whole_with_what_stands_around_it():
    large = body_of(1, 20 * 2**20 + 5)
    stream = (
        pack(Kind.REQUEST, request=1, body_size=3)
        + b"abc"
        + pack(Kind.REQUEST, request=2, body_size=len(large))
        + large
        + pack(Kind.REQUEST, request=3, body_size=1)
        + b"z"
    )
    received = feed(FrameReader(allow), stream, [50_000])
    assert [frame.request for frame in received] == [1, 2, 3]
    assert [len(frame.body) for frame in received] == [3, len(large), 1]
    assert bytes(received[1].body) == large


def test_bodies_belong_to_the_receiver_and_are_not_written_over():
    reader = FrameReader(allow)
    (first,) = feed(reader, pack(Kind.REQUEST, body_size=4) + b"aaaa")
    feed(reader, pack(Kind.REQUEST, body_size=4) + b"bbbb")
    assert bytes(first.body) == b"aaaa"
    first.body[:] = b"cccc"
    (last,) = feed(reader, pack(Kind.REQUEST, body_size=4) + b"dddd")
    assert bytes(last.body) == b"dddd"


@pytest.mark.parametrize("size", [1, DIRECT_BYTES, 10 * 2**20, 2**40, UINT64_MAX])
def test_a_refused_header_takes_no_memory(size):
    asked = []

    def refuse(header):
        asked.append(header.body_size)
        raise FrameError("no")

    reader = FrameReader(refuse)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="no"):
            feed(reader, pack(Kind.REQUEST, body_size=size))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert asked == [size]
    assert peak_bytes < 100_000


@pytest.mark.parametrize("size", [11, DIRECT_BYTES, 2**40, UINT64_MAX])
def test_a_body_larger_than_it_may_be_is_refused_before_it_comes(size):
    reader = FrameReader(lambda _header: 10)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match="may have 10"):
            feed(reader, pack(Kind.REQUEST, body_size=size))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100_000


def test_a_header_is_looked_at_as_soon_as_it_is_there():
    asked = []

    def note(header):
        asked.append(header.request)
        return UINT64_MAX

    reader = FrameReader(note)
    header = pack(Kind.REQUEST, request=7, body_size=1000)
    assert feed(reader, header[:-1]) == []
    assert asked == []
    assert feed(reader, header[-1:]) == []
    assert set(asked) == {7}


def test_what_a_frame_said_is_known_when_the_next_header_is_looked_at():
    known = set()

    def check(header):
        if header.kind == Kind.REQUEST and header.layout not in known:
            raise FrameError("never described")
        return 10

    reader = FrameReader(check)
    stream = pack(Kind.LAYOUT, layout=3, body_size=2) + b"[]" + pack(Kind.REQUEST, layout=3)
    reader.space()[: len(stream)] = stream
    kinds = []
    for frame in reader.received(len(stream)):
        kinds.append(frame.kind)
        known.add(frame.layout)
    assert kinds == [Kind.LAYOUT, Kind.REQUEST]


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": 256},
        {"kind": -1},
        {"kind": 1, "flags": 256},
        {"kind": 1, "slot": 0x10000},
        {"kind": 1, "layout": 2**32},
        {"kind": 1, "request": 2**64},
        {"kind": 1, "body_size": 2**64},
        {"kind": 1, "body_size": -1},
        {"kind": 1, "first": 2**32},
        {"kind": 1, "second": 2**32},
    ],
)
def test_a_header_with_a_number_out_of_bounds_is_not_written(fields):
    with pytest.raises(struct.error):
        pack(**fields)


def test_a_header_is_32_bytes_and_little_endian():
    header = pack(3, flags=1, slot=2, layout=3, request=4, body_size=5, first=6, second=7)
    assert header == bytes.fromhex("03 01 0200 03000000 0400000000000000 0500000000000000") + (
        bytes.fromhex("06000000 07000000")
    )
    assert len(header) == HEADER_BYTES == 32


@given(st.integers(0, 2**40), st.integers(0, 15))
def test_queue_and_wish_share_a_number(queue_len, bits):
    (frame,) = feed(
        FrameReader(lambda _: 0), pack(Kind.ANSWER, second=packed_queue(queue_len, 1 << bits))
    )
    assert queue_of(frame) == (min(2**28 - 1, queue_len), 1 << bits)
