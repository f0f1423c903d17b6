"""A connected socket that never blocks: bytes out in order, bytes and descriptors in."""

from __future__ import annotations

import array
import math
import os
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from atriva_ray.lanes.errors import FrameError

__all__ = ["Wire"]

_MAX_BUFFERS = 64
"""Buffers in one call to the kernel."""

_TCP_OPTIONS = (
    (socket.TCP_NODELAY, 1),
    # A host that is gone without a word is noticed in about 3 s: by the first three while nothing
    # is under way (seconds, seconds, probes), by the last while something is (milliseconds).
    (socket.TCP_KEEPIDLE, 1),
    (socket.TCP_KEEPINTVL, 1),
    (socket.TCP_KEEPCNT, 2),
    (socket.TCP_USER_TIMEOUT, 2_000),
)

_MAX_DESCRIPTORS = 8
_LOOK_MS = 1_000
"""Whoever waits looks this often whether the connection was closed just before."""

_DESCRIPTOR_SPACE = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
_Pending = tuple[memoryview, int | None]


class Wire:
    """One end of a connection. Reading is for one thread at a time, sending for any.

    Attributes:
        descriptors: file descriptors that were received and not claimed yet, oldest first.
        unsent_bytes: what waits until the other end reads.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._encrypted = connected if isinstance(connected, ssl.SSLSocket) else None
        self._is_unix = connected.family == socket.AF_UNIX
        if not self._is_unix:
            for option, value in _TCP_OPTIONS:
                connected.setsockopt(socket.IPPROTO_TCP, option, value)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # OpenSSL does not allow two threads in one connection, not even one in each direction.
        self._tls = threading.Lock()
        self._sending = threading.Lock()
        self._out: deque[_Pending] = deque()
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self.descriptors: deque[int] = deque()
        self.unsent_bytes = 0

    @property
    def is_unix(self) -> bool:
        """Whether the other end is on this machine, and descriptors can be handed over."""
        return self._is_unix

    @property
    def is_encrypted(self) -> bool:
        """Whether what is read comes in pieces, of which the next may be there already."""
        return self._encrypted is not None

    @property
    def unsent_count(self) -> int:
        """Buffers that wait until the other end reads."""
        return len(self._out)

    @property
    def has_buffered(self) -> bool:
        """Whether bytes are there that waiting on the descriptor would not tell of."""
        if self._encrypted is None:
            return False
        with self._tls:
            return self._encrypted.pending() > 0

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def read_into(self, space: memoryview) -> int | None:
        """Receive what is there.

        Returns:
            How many bytes; 0 at the end of the stream, None if there is nothing now.

        Raises:
            OSError: the connection broke.
            FrameError: more descriptors came than anybody may send.
        """
        try:
            if self._is_unix:
                return self._read_with_descriptors(space)
            if self._encrypted is not None:
                with self._tls:
                    return self._socket.recv_into(space)
            return self._socket.recv_into(space)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:
            return 0

    def _read_with_descriptors(self, space: memoryview) -> int:
        count, ancillary, flags, _ = self._socket.recvmsg_into(
            [space], _DESCRIPTOR_SPACE, socket.MSG_CMSG_CLOEXEC
        )
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                usable = len(data) - len(data) % array.array("i").itemsize
                self.descriptors.extend(array.array("i", data[:usable]))
        if flags & socket.MSG_CTRUNC or len(self.descriptors) > _MAX_DESCRIPTORS:
            raise FrameError("too many descriptors")
        return count

    def send(self, buffers: Iterable[Any], descriptor: int | None = None) -> bool:
        """Send buffers in this order, or keep what the kernel does not take now.

        Args:
            buffers: bytes-like; they must not change until they have left.
            descriptor: one to hand over with the first buffer; it is closed when it has left.

        Returns:
            Whether everything has left. If not, call `flush` when the socket takes more.

        Raises:
            OSError: the connection broke.
        """
        with self._sending:
            for buffer in buffers:
                view = memoryview(buffer)
                if view.nbytes:
                    self._out.append((view, descriptor))
                    self.unsent_bytes += view.nbytes
                    descriptor = None
            return self._flush()

    def flush(self) -> bool:
        """Send on; returns whether everything has left.

        Raises:
            OSError: the connection broke.
        """
        with self._sending:
            return self._flush()

    def _flush(self) -> bool:
        while self._out:
            try:
                count = self._send_some()
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            self.unsent_bytes -= count
            while count:
                view, _ = self._out[0]
                if count < view.nbytes:
                    self._out[0] = (view[count:], None)
                    break
                count -= view.nbytes
                self._out.popleft()
        return True

    def _send_some(self) -> int:
        view, descriptor = self._out[0]
        if self._encrypted is not None:
            with self._tls:
                return self._socket.send(view)
        if descriptor is not None:
            count = socket.send_fds(self._socket, [view], [descriptor])
            os.close(descriptor)
            self._out[0] = (view, None)
            return count
        if len(self._out) == 1:
            return self._socket.send(view)
        views: list[memoryview] = []
        for view, descriptor in self._out:
            if descriptor is not None or len(views) == _MAX_BUFFERS:
                break
            views.append(view)
        return self._socket.sendmsg(views)

    def wait(self, timeout_s: float | None = None) -> None:
        """Block until something is there to read, or the connection ends, or a second is over.

        Args:
            timeout_s: less than a second.
        """
        shorter = timeout_s is not None and timeout_s * 1e3 < _LOOK_MS
        self._poll.poll(math.ceil((timeout_s or 0.0) * 1e3) if shorter else _LOOK_MS)

    def close(self) -> None:
        """Close the socket and every descriptor that nobody claimed; wakes who waits for it."""
        with suppress(OSError):  # not SSLSocket's own, after which it would send in clear
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        with self._sending:
            for _, descriptor in self._out:
                if descriptor is not None:
                    os.close(descriptor)
            self._out.clear()
            self.unsent_bytes = 0
            while self.descriptors:
                os.close(self.descriptors.popleft())
            self._socket.close()
