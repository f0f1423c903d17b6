from __future__ import annotations

import asyncio
import gzip
import itertools
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.errors import BadRequestError, RequestTooLargeError
from atriva_ray.serve.http_errors import ClientGoneError, ContentCodingError, SlowClientError
from atriva_ray.serve.inflate import Inflater
from atriva_ray.serve.limits import Limits, receive_body
from tests.unit.serve.asgi import (
    ask,
    body_of,
    echo,
    never,
    received,
    scope_of,
)


def as_dict(limits):
    return {name: getattr(limits, name) for name in limits.__dataclass_fields__}


def test_a_body_in_one_part_is_not_copied():
    part = b"whole"
    assert body_of(scope_of(content_length=5), received(part)) is part


def test_a_body_in_parts_comes_whole_and_read_only():
    body = body_of(scope_of(content_length=6), received(b"ab", b"", b"cde", b"f"))
    assert bytes(body) == b"abcdef"
    assert memoryview(body).readonly


def test_a_body_without_a_length_comes_whole():
    scope = scope_of(transfer_encoding="chunked")
    assert body_of(scope, received(b"ab", b"cd", b"")) == b"abcd"


def test_no_body_is_an_empty_one():
    assert body_of(scope_of("GET"), received(b"")) == b""


@settings(deadline=None)
@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=6), st.booleans())
def test_however_a_body_is_cut_it_is_the_same(content, cuts, has_length):
    ends = sorted({min(cut, len(content)) for cut in cuts} | {0, len(content)})
    parts = [content[begin:end] for begin, end in itertools.pairwise(ends)] or [b""]
    scope = scope_of(content_length=len(content)) if has_length else scope_of()
    assert bytes(body_of(scope, received(*parts))) == content


@pytest.mark.parametrize("parts", [(b"abc", b"d"), (b"abc", b"defghi")])
def test_a_body_that_is_not_as_long_as_was_said_is_refused(parts):
    with pytest.raises(BadRequestError, match="the 5 bytes"):
        body_of(scope_of(content_length=5), received(*parts))


def test_a_client_that_goes_away_leaves_no_body():
    async def receive(parts=[b"abc"]):  # noqa: B006 - taken out once
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": True}
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGoneError):
        body_of(scope_of(content_length=5), receive)


def test_a_client_that_drips_is_cut_off_and_one_that_is_fast_is_not():
    limits = Limits(max_idle_s=5, body_grace_s=0.1, min_body_bytes_per_s=10_000)

    def sender(part_bytes):
        async def receive():
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"a" * part_bytes, "more_body": True}

        return receive

    with pytest.raises(SlowClientError) as caught:
        body_of(scope_of(), sender(1), limits)
    assert caught.value.received_bytes < 20
    with pytest.raises(RequestTooLargeError):
        body_of(scope_of(), sender(2000), Limits(**{**as_dict(limits), "max_body_bytes": 50_000}))


def test_a_request_that_is_called_off_is_not_taken_for_a_slow_one():
    async def run():
        task = asyncio.create_task(receive_body(scope_of(), never(), Limits(max_idle_s=5)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())


PACKERS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", PACKERS)
@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=900), cut=st.integers(0, 900))
def test_a_packed_body_comes_unpacked(coding, content, cut):
    packed = PACKERS[coding](content)
    scope = scope_of(content_encoding=coding.upper(), content_length=len(packed))
    assert body_of(scope, received(packed[:cut], packed[cut:])) == content


def test_a_gzip_body_may_have_members():
    packed = gzip.compress(b"ab") + gzip.compress(b"") + gzip.compress(b"cd")
    scope = scope_of(content_encoding="gzip")
    assert body_of(scope, received(packed)) == b"abcd"
    assert body_of(scope, received(*(packed[at : at + 1] for at in range(len(packed))))) == b"abcd"


def test_so_many_members_that_they_cost_more_than_they_are_are_refused():
    with pytest.raises(BadRequestError, match="goes on"):
        body_of(scope_of(content_encoding="gzip"), received(gzip.compress(b"") * 300), Limits())


def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = gzip.compress(bytes(50_000_000), compresslevel=1)
    limits = Limits(max_body_bytes=4 << 20)
    pieces = []
    with pytest.raises(RequestTooLargeError):
        pieces.extend(Inflater("gzip", limits.max_body_bytes).feed(bomb))
    with pytest.raises(RequestTooLargeError):
        body_of(scope_of(content_encoding="gzip"), received(bomb), limits)


def test_others_get_their_turn_while_a_large_body_is_unpacked():
    async def run():
        packed = zlib.compress(bytes(16 << 20), 1)
        turns = 0

        async def other():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        body = await receive_body(
            scope_of(content_encoding="deflate"), received(packed), Limits(max_body_bytes=1 << 30)
        )
        task.cancel()
        assert len(body) == 16 << 20
        return turns

    assert asyncio.run(run()) >= 16


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1, (1 << 21) + 100, (1 << 20) - 1])
def test_nothing_is_lost_at_the_edges_of_pieces(size):
    packed = zlib.compress(bytes(size))
    scope = scope_of(content_encoding="deflate")
    assert len(body_of(scope, received(packed), Limits())) == size


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", b"no gzip"),
        ("gzip", gzip.compress(b"abc")[:-1]),
        ("gzip", b""),
        ("gzip", gzip.compress(b"abc") + b"more"),
        ("deflate", zlib.compress(b"abc") + b"more"),
        ("deflate", zlib.compress(b"abc")[:-5]),
    ],
)
def test_a_body_that_is_not_packed_as_was_said_is_refused(coding, body):
    with pytest.raises(BadRequestError, match=coding):
        body_of(scope_of(content_encoding=coding), received(body))


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_another_coding_is_refused(coding):
    with pytest.raises(ContentCodingError):
        body_of(scope_of(content_encoding=coding), received(b"abc"))
    sent = ask(echo, scope_of(content_encoding=coding), received(b"abc"))
    assert sent.status == 415
    assert "gzip, deflate" in sent.error


def test_identity_is_no_coding():
    assert body_of(scope_of(content_encoding="identity"), received(b"abc")) == b"abc"
