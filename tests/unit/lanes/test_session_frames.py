"""What is said about sessions: it comes out as it went in, or is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.frames import HEADER_BYTES, FrameReader, Kind
from atriva_ray.lanes.session_frames import (
    SessionCall,
    SessionOp,
    decode_call,
    decode_state,
    encode_state,
    max_call_bytes,
)

dtypes = st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i4", "i8", "b1"])
arrays = dtypes.flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0, max_side=5))
)
states = st.dictionaries(st.text(max_size=20), arrays, max_size=4)


def joined(buffers):
    return bytearray(b"".join(bytes(each) for each in buffers))


def assert_same(state, other):
    assert set(state) == set(other)
    for name, array in state.items():
        assert other[name].dtype == array.dtype
        assert other[name].shape == array.shape
        assert other[name].tobytes() == array.tobytes()


def frames_of(call, request=7):
    stream = joined(call.buffers(request))
    reader = FrameReader(lambda _header: len(stream))
    space = reader.space()
    space[: len(stream)] = stream
    return list(reader.received(len(stream)))


@given(states)
def test_a_state_comes_out_as_it_went_in(state):
    decoded = decode_state(joined(encode_state(state)))
    assert list(decoded) == list(state)
    assert_same(state, decoded)


@given(st.sampled_from(SessionOp), st.integers(1, 2**32 - 1), states)
def test_a_call_comes_out_as_it_went_in(op, session, state):
    given_state = state if op is SessionOp.SET else None
    (frame,) = frames_of(SessionCall(op, session, given_state))
    assert (frame.kind, frame.request) == (Kind.SESSION, 7)
    assert frame.body_size <= max_call_bytes(frame)
    call = decode_call(frame)
    assert (call.op, call.session) == (op, session)
    assert_same(given_state or {}, call.state or {})


def test_what_was_decoded_has_memory_of_its_own():
    body = joined(encode_state({"total": np.ones(3, np.float32)}))
    state = decode_state(body)
    body[:] = bytes(len(body))
    assert state["total"].tolist() == [1, 1, 1]
    state["total"][0] = 5


def test_only_giving_a_state_may_have_a_body():
    for op in SessionOp:
        (frame,) = frames_of(SessionCall(op, 1, {} if op is SessionOp.SET else None))
        assert (max_call_bytes(frame) > 0) == (op is SessionOp.SET)


@pytest.mark.parametrize("op", [0, 6, 2**32 - 1])
def test_unknown_operations_are_refused(op):
    (frame,) = frames_of(SessionCall(SessionOp.GET, 1))
    with pytest.raises(FrameError, match="session operation"):
        max_call_bytes(frame._replace(layout=op))


def test_session_0_is_none():
    (frame,) = frames_of(SessionCall(SessionOp.GET, 1))
    with pytest.raises(FrameError, match="session 0"):
        decode_call(frame._replace(first=0))


@given(states, st.data())
def test_a_spoilt_state_is_refused_or_still_one(state, data):
    body = joined(encode_state(state))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place] ^= 1 << data.draw(st.integers(0, 7))
    size = data.draw(st.integers(0, len(body)) | st.just(len(body)))
    try:
        decoded = decode_state(body[:size])
    except FrameError:
        return
    assert sum(array.nbytes for array in decoded.values()) <= size


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b'[["a"], "[]"]',
        b'[["a", "a"], "[[\\"<f4\\", [1]], [\\"<f4\\", [1]]]"]',
        b'[[1], "[[\\"<f4\\", [1]]]"]',
        b'[["a"], []]',
        b'["a", "[[\\"<f4\\", [1]]]"]',
        b"[" * 4000,
        b"\xff",
    ],
)
def test_odd_descriptions_are_refused(text):
    head = struct.pack("<I", len(text)) + text
    body = bytearray(head + bytes(-len(head) % 64) + bytes(64))
    body = body[: len(body) - 60]  # one float, as some of them say
    with pytest.raises(FrameError):
        decode_state(body)


def test_a_header_alone_is_no_state():
    for size in range(HEADER_BYTES):
        with pytest.raises(FrameError):
            decode_state(bytes(size))
