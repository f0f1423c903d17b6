"""How both ends of a new connection prove that they know the lane's token, without saying it.

The replica sends a challenge; the client answers with a challenge of its own and a proof; the
replica answers with its proof. A proof is an HMAC-SHA256 (RFC 2104) of both challenges, keyed with
the token and marked with who proves it, so none can be sent back or used again.
"""

from __future__ import annotations

import hmac
import secrets

from atriva_ray.lanes.errors import FrameError

__all__ = [
    "CHALLENGE_BYTES",
    "HELLO_BYTES",
    "PROOF_BYTES",
    "check_hello",
    "check_welcome",
    "make_challenge",
    "make_hello",
    "make_token",
]

_MAGIC = b"atriva-lane/1\0\0\0"
_NONCE_BYTES = 32
PROOF_BYTES = 32
CHALLENGE_BYTES = len(_MAGIC) + _NONCE_BYTES
HELLO_BYTES = len(_MAGIC) + _NONCE_BYTES + PROOF_BYTES


def make_token() -> bytes:
    """Return a new secret of 32 bytes."""
    return secrets.token_bytes(_NONCE_BYTES)


def make_challenge() -> bytes:
    """Return what the replica sends first."""
    return _MAGIC + secrets.token_bytes(_NONCE_BYTES)


def make_hello(token: bytes, challenge: bytes) -> bytes:
    """Return the client's answer to a challenge.

    Raises:
        FrameError: whoever sent it speaks something else.
    """
    if len(challenge) != CHALLENGE_BYTES or not challenge.startswith(_MAGIC):
        raise FrameError("no lane of this version")
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return _MAGIC + nonce + _proof(token, b"client", challenge, nonce)


def check_hello(token: bytes, challenge: bytes, hello: bytes) -> bytes:
    """Return the replica's proof if the client's is right.

    Raises:
        FrameError: the client does not know the token.
    """
    nonce = hello[len(_MAGIC) : -PROOF_BYTES]
    proof = _proof(token, b"client", challenge, nonce)
    if not hello.startswith(_MAGIC) or not hmac.compare_digest(hello[-PROOF_BYTES:], proof):
        raise FrameError("a client that does not know the token")
    return _proof(token, b"replica", challenge, nonce)


def check_welcome(token: bytes, challenge: bytes, hello: bytes, proof: bytes) -> None:
    """Check the replica's proof.

    Raises:
        FrameError: whoever sent it does not know the token.
    """
    nonce = hello[len(_MAGIC) : -PROOF_BYTES]
    if not hmac.compare_digest(proof, _proof(token, b"replica", challenge, nonce)):
        raise FrameError("a replica that does not know the token")


def _proof(token: bytes, who: bytes, challenge: bytes, nonce: bytes) -> bytes:
    return hmac.digest(token, who + challenge + nonce, "sha256")
