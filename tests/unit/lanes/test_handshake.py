"""The handshake: whoever knows the token gets in, whatever else is tried does not."""

from __future__ import annotations

import pytest

from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.handshake import (
    CHALLENGE_BYTES,
    HELLO_BYTES,
    PROOF_BYTES,
    check_hello,
    check_welcome,
    make_challenge,
    make_hello,
    make_token,
)

TOKEN = bytes(range(32))
OTHER_TOKEN = bytes(range(1, 33))


def changed(data):
    """Every way to change one byte."""
    for position in range(len(data)):
        for bit in (1, 128):
            yield data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]


@pytest.fixture
def challenge():
    return make_challenge()


@pytest.fixture
def hello(challenge):
    return make_hello(TOKEN, challenge)


@pytest.fixture
def welcome(challenge, hello):
    return check_hello(TOKEN, challenge, hello)


def test_both_ends_with_the_token_accept_each_other(challenge, hello, welcome):
    assert (len(challenge), len(hello), len(welcome)) == (CHALLENGE_BYTES, HELLO_BYTES, PROOF_BYTES)
    check_welcome(TOKEN, challenge, hello, welcome)


def test_the_token_itself_is_never_said(challenge, hello, welcome):
    token = make_token()
    hello = make_hello(token, challenge)
    said = challenge + hello + check_hello(token, challenge, hello)
    assert token not in said
    assert len(token) == 32


def test_tokens_challenges_and_hellos_are_never_the_same(challenge):
    for make in (make_token, make_challenge, lambda: make_hello(TOKEN, challenge)):
        assert len({make() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "token", [OTHER_TOKEN, TOKEN[:-1], TOKEN + b"\1", TOKEN[::-1], b"", bytes(32)]
)
def test_another_token_is_refused_on_both_ends(challenge, hello, token):
    with pytest.raises(FrameError, match="does not know the token"):
        check_hello(token, challenge, hello)
    with pytest.raises(FrameError, match="does not know the token"):
        check_hello(TOKEN, challenge, make_hello(token, challenge))
    theirs = check_hello(token, challenge, make_hello(token, challenge))
    with pytest.raises(FrameError, match="does not know the token"):
        check_welcome(TOKEN, challenge, hello, theirs)


def test_a_hello_with_any_byte_changed_is_refused(challenge, hello):
    for other in changed(hello):
        with pytest.raises(FrameError):
            check_hello(TOKEN, challenge, other)


def test_a_welcome_with_any_byte_changed_is_refused(challenge, hello, welcome):
    for other in changed(welcome):
        with pytest.raises(FrameError):
            check_welcome(TOKEN, challenge, hello, other)


def test_a_challenge_with_any_byte_changed_on_the_way_is_refused(challenge):
    for other in changed(challenge):
        with pytest.raises(FrameError):
            check_hello(TOKEN, challenge, make_hello(TOKEN, other))


def test_a_client_does_not_answer_a_challenge_of_something_else(challenge):
    for other in (
        b"",
        b"HTTP/1.1 400 Bad Request\r\n".ljust(CHALLENGE_BYTES),
        bytes(CHALLENGE_BYTES),
        challenge[:-1],
        challenge + b"\0",
        b"atriva-lane/2\0\0\0" + challenge[16:],
    ):
        with pytest.raises(FrameError, match="no lane of this version"):
            make_hello(TOKEN, other)


def test_a_hello_cannot_be_used_again(challenge, hello):
    with pytest.raises(FrameError):
        check_hello(TOKEN, make_challenge(), hello)


def test_a_welcome_cannot_be_used_again(challenge, hello, welcome):
    with pytest.raises(FrameError):
        check_welcome(TOKEN, challenge, make_hello(TOKEN, challenge), welcome)
    with pytest.raises(FrameError):
        check_welcome(TOKEN, make_challenge(), hello, welcome)


def test_a_proof_cannot_be_sent_back(challenge, hello, welcome):
    proof = hello[-PROOF_BYTES:]
    with pytest.raises(FrameError):
        check_welcome(TOKEN, challenge, hello, proof)
    with pytest.raises(FrameError):
        check_hello(TOKEN, challenge, hello[:-PROOF_BYTES] + welcome)
    # one who knows no token asks the replica to answer the challenge it was given itself
    with pytest.raises(FrameError):
        check_hello(TOKEN, challenge, challenge + proof)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 31, 32, 47, 48, HELLO_BYTES - 1])
def test_a_short_hello_is_refused(challenge, hello, length):
    with pytest.raises(FrameError):
        check_hello(TOKEN, challenge, hello[:length])


@pytest.mark.parametrize("length", [0, 1, PROOF_BYTES - 1])
def test_a_short_welcome_is_refused(challenge, hello, welcome, length):
    with pytest.raises(FrameError):
        check_welcome(TOKEN, challenge, hello, welcome[:length])
