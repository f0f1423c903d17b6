"""Where a replica takes new lanes: an abstract Unix socket, and TCP once somebody asks for it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import struct
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from atriva_ray.lanes.connect import receive_exactly
from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.handshake import HELLO_BYTES, check_hello, make_challenge
from atriva_ray.lanes.tls import server_context
from atriva_ray.lanes.wire import Wire

__all__ = ["Listener"]

_logger = logging.getLogger(__name__)

_BACKLOG = 128
_GREETING_TIMEOUT_S = 3.0
_MAX_GREETINGS = 8
_MAX_GREETINGS_FROM_ELSEWHERE = 6
"""Strangers on the network, however slow, must not keep programs on this host waiting."""


class Listener:
    """Accepts connections on the running event loop and passes on those that prove themselves."""

    def __init__(self, token: bytes, on_wire: Callable[[Wire], None]) -> None:
        """Listen on a Unix socket.

        Its name is in the abstract namespace: it has no file, so nothing is left behind when the
        process is killed. The kernel says who connects, and only the same user or root may.

        Args:
            token: the secret that clients must know.
            on_wire: called on another thread with every connection whose client knows it.
        """
        self.name = f"atriva-{os.getpid()}-{secrets.token_hex(8)}"
        self._token = token
        self._on_wire = on_wire
        self._greeters = ThreadPoolExecutor(_MAX_GREETINGS, thread_name_prefix="atriva-greet")
        self._strangers = asyncio.Semaphore(_MAX_GREETINGS_FROM_ELSEWHERE)
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._tcp: tuple[str, int] | None = None
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(b"\0" + self.name.encode())
        self._listen(listening)

    def listen_tcp(self, host: str) -> tuple[str, int]:
        """Listen on TCP too, on one address and a free port, and return both; again, the same.

        Raises:
            OSError: it cannot.
        """
        if self._tcp is None:
            server_context()  # settings that are wrong show here, and not at every connection
            listening = socket.create_server((host, 0), family=_family(host))
            self._tcp = (host, listening.getsockname()[1])
            self._listen(listening)
        return self._tcp

    async def close(self) -> None:
        """Take no more connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listening in self._sockets:
            listening.close()
        self._greeters.shutdown(wait=False, cancel_futures=True)

    def _listen(self, listening: socket.socket) -> None:
        listening.listen(_BACKLOG)
        listening.setblocking(False)
        self._sockets.append(listening)
        self._spawn(self._accept(listening))

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connected, _ = await loop.sock_accept(listening)
            except OSError as error:  # no descriptors left, most often; it passes
                _logger.warning("a lane could not be accepted: %s", error)
                await asyncio.sleep(0.1)
                continue
            if connected.family == socket.AF_UNIX:
                self._spawn(self._greeted(connected))
            elif self._strangers.locked():
                connected.close()
            else:
                self._spawn(self._greeted_stranger(connected))

    async def _greeted_stranger(self, connected: socket.socket) -> None:
        async with self._strangers:
            await self._greeted(connected)

    async def _greeted(self, connected: socket.socket) -> None:
        await asyncio.get_running_loop().run_in_executor(self._greeters, self._greet, connected)

    def _greet(self, connected: socket.socket) -> None:
        try:
            connected.settimeout(_GREETING_TIMEOUT_S)
            if connected.family == socket.AF_UNIX:
                _check_user(connected)
            else:
                context = server_context()
                if context is not None:
                    connected = context.wrap_socket(connected, server_side=True)
            challenge = make_challenge()
            connected.sendall(challenge)
            hello = receive_exactly(connected, HELLO_BYTES)
            connected.sendall(check_hello(self._token, challenge, hello))
            self._on_wire(Wire(connected))
        except (OSError, FrameError) as error:
            _logger.warning("a lane was refused: %s", error)
            connected.close()
        except BaseException:
            connected.close()
            raise

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _check_user(connected: socket.socket) -> None:
    """Refuse other users of this machine.

    Raises:
        FrameError: it is one.
    """
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, user, _ = struct.unpack("iII", credentials)
    if user not in (os.geteuid(), 0):
        raise FrameError(f"user {user} of this machine")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
