"""Listening sockets that several processes of a node share; the kernel spreads connections."""

from __future__ import annotations

import socket
from errno import EADDRINUSE
from ipaddress import ip_address

from atriva_inference.errors import OptionError

__all__ = ["check_free", "is_loopback", "listen_shared"]

_BACKLOG = 2048


def listen_shared(host: str, port: int) -> socket.socket:
    """Return a socket that listens, also where another process of the same user does already.

    Raises:
        OSError: the address cannot be had.
    """
    listener = _bound(host, port, is_shared=True)
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def check_free(host: str, port: int) -> None:
    """See that nobody listens there yet: sharing with another server would mix up the two.

    Raises:
        OptionError: somebody does, or the address is not one of this machine.
    """
    try:
        _bound(host, port, is_shared=False).close()
    except OSError as error:
        free = "a port that is free" if error.errno == EADDRINUSE else "an address of this machine"
        raise OptionError("address", f"{host}:{port}", f"{free} ({error.strerror})") from error


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach an address; of a name, nobody knows."""
    if host.lower() == "localhost":
        return True
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return False  # a name; what it stands for may change
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _bound(host: str, port: int, *, is_shared: bool) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound
