"""Opening a lane from the client's side; blocks for a moment."""

from __future__ import annotations

import socket
import time

from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.handshake import (
    CHALLENGE_BYTES,
    PROOF_BYTES,
    check_welcome,
    make_hello,
)
from atriva_ray.lanes.tls import client_context
from atriva_ray.lanes.wire import Wire

__all__ = ["CONNECT_TIMEOUT_S", "connect_tcp", "connect_unix", "receive_exactly"]

CONNECT_TIMEOUT_S = 3.0


def connect_unix(name: str, token: bytes, timeout_s: float = CONNECT_TIMEOUT_S) -> Wire:
    """Connect to a replica on this host.

    Args:
        name: of the socket, in the abstract namespace.
        token: the lane's secret.
        timeout_s: for each step.

    Raises:
        OSError: nobody listens, or not in time.
        FrameError: the other end does not know the token.
    """
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(timeout_s)
        connected.connect(b"\0" + name.encode())
        return _greeted(connected, token)
    except BaseException:
        connected.close()
        raise


def connect_tcp(host: str, port: int, token: bytes, timeout_s: float = CONNECT_TIMEOUT_S) -> Wire:
    """Connect to a replica on another host, with TLS if Ray is configured for it.

    Raises:
        OSError: nobody listens, or not in time, or the certificate is not of the authority.
        FrameError: the other end does not know the token.
    """
    connected = socket.create_connection((host, port), timeout_s)
    try:
        context = client_context()
        if context is not None:
            connected = context.wrap_socket(connected)
        return _greeted(connected, token)
    except BaseException:
        connected.close()
        raise


def _greeted(connected: socket.socket, token: bytes) -> Wire:
    challenge = receive_exactly(connected, CHALLENGE_BYTES)
    hello = make_hello(token, challenge)
    connected.sendall(hello)
    check_welcome(token, challenge, hello, receive_exactly(connected, PROOF_BYTES))
    return Wire(connected)


def receive_exactly(connected: socket.socket, count: int) -> bytes:
    """Receive so many bytes.

    Raises:
        FrameError: the stream ends before.
        OSError: the connection broke, or they did not come in time.
    """
    received = b""
    timeout_s = connected.gettimeout() or CONNECT_TIMEOUT_S
    deadline_s = time.monotonic() + timeout_s  # of all of it, or a byte now and then would do
    while len(received) < count:
        connected.settimeout(max(1e-3, deadline_s - time.monotonic()))
        piece = connected.recv(count - len(received))
        if not piece:
            raise FrameError("the other end closed the connection while it was opened")
        received += piece
    connected.settimeout(timeout_s)
    return received
