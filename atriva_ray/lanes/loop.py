"""One thread that waits for the answers of all of a program's lanes."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from atriva_ray.lanes.client_lane import ClientLane, LaneClosedError
from atriva_ray.lanes.errors import FrameError

__all__ = ["LaneLoop"]

_logger = logging.getLogger(__name__)

_SHORTEST_PAUSE_S = 1e-3

_CLOSING = select.EPOLLHUP | select.EPOLLERR


class LaneLoop:
    """Reads lanes as answers arrive; its thread starts with the first lane. Thread-safe."""

    def __init__(self, pause_s: Callable[[], float] = lambda: 0.0) -> None:
        """Make a loop that has nothing to read yet.

        Args:
            pause_s: how long answers may be left lying now, to be taken in together.
        """
        self._pause_s = pause_s
        self._lock = threading.Lock()
        self._lanes: dict[int, ClientLane[Any]] = {}
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._epoll: select.epoll | None = None
        self._alarm = -1

    def add(self, lane: ClientLane[Any]) -> None:
        """Read a lane from now on."""
        with self._lock:
            if self._is_closed:
                lane.close()
                return
            if self._epoll is None:
                self._epoll = select.epoll()
                self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                self._epoll.register(self._alarm, select.EPOLLIN)
                self._thread = threading.Thread(
                    target=self._serve, args=(self._epoll,), name="atriva-lanes", daemon=True
                )
                self._thread.start()
            self._lanes[lane.wire.fileno()] = lane
            self._epoll.register(lane.wire.fileno(), select.EPOLLIN)

    def send(self, lane: ClientLane[Any], requests: Sequence[Any]) -> None:
        """Send requests on a lane; if it breaks, it tells so itself.

        Raises:
            LaneClosedError: it is closed; none was sent.
        """
        try:
            if not lane.send(requests):
                self._watch(lane)
        except LaneClosedError:
            raise
        except BaseException as error:  # they come back as lost, whatever it was
            self._lose(lane, str(error) or type(error).__name__)
            if not isinstance(error, Exception):
                raise

    def cancel(self, lane: ClientLane[Any], request: Any) -> None:
        """Tell the replica that nobody waits for a request; if the lane breaks, it tells so."""
        try:
            if not lane.cancel(request):
                self._watch(lane)
        except Exception as error:  # noqa: BLE001 - whatever it was, its requests come back as lost
            self._lose(lane, str(error) or type(error).__name__)

    def exchange(
        self,
        lane: ClientLane[Any],
        requests: Sequence[Any],
        is_done: Callable[[], bool],
        deadline_s: float | None = None,
    ) -> None:
        """Send requests and read the lane on this thread, without a detour over another one.

        Returns when `is_done` says so or the deadline has passed, and at once if somebody else
        reads the lane already, or it broke.

        Raises:
            LaneClosedError: it is closed; none was sent.
        """
        if not lane.reading.acquire(blocking=False):
            self.send(lane, requests)
            return
        try:
            lane.is_read_elsewhere = True
            self._watch(lane)
            self.send(lane, requests)
            while not is_done() and lane.is_open:
                if deadline_s is None:
                    lane.wire.wait()
                elif (left_s := deadline_s - time.monotonic()) > 0:
                    lane.wire.wait(left_s)
                else:
                    break
                self._read(lane)
        finally:
            lane.is_read_elsewhere = False
            lane.reading.release()
            self._watch(lane)

    def remove(self, lane: ClientLane[Any]) -> None:
        """Stop reading a lane, and close it."""
        self._forget(lane)
        lane.close()

    def close(self) -> None:
        """Close every lane and end the thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            lanes = list(self._lanes.values())
        for lane in lanes:
            self.remove(lane)
        if self._epoll is None or self._thread is None:
            return
        os.eventfd_write(self._alarm, 1)
        if self._thread is not threading.current_thread():
            self._thread.join()
        self._epoll.close()
        os.close(self._alarm)

    def _serve(self, epoll: select.epoll) -> None:
        while not self._is_closed:
            for descriptor, event in epoll.poll():
                lane = self._lanes.get(descriptor)
                if lane is not None:
                    self._handle(lane, event)
            # Woken for each answer, this thread finds nothing of what it needs in the processor's
            # caches, which the models fill, and takes them away from the models.
            if (pause_s := self._pause_s()) >= _SHORTEST_PAUSE_S:
                time.sleep(pause_s)

    def _handle(self, lane: ClientLane[Any], event: int) -> None:
        if event & select.EPOLLOUT:
            try:
                lane.wire.flush()
                self._watch(lane)
            except OSError as error:
                self._lose(lane, str(error))
        if event & (select.EPOLLIN | _CLOSING) and lane.reading.acquire(blocking=False):
            try:
                self._read(lane)
            finally:
                lane.reading.release()

    def _read(self, lane: ClientLane[Any]) -> None:
        try:
            lane.read()
        except FrameError as error:
            _logger.warning("a lane was closed for what came on it: %s", error.reason)
            self._lose(lane, error.reason)
        except EOFError:
            self._lose(lane, "the replica closed it")
        except (OSError, MemoryError) as error:
            self._lose(lane, str(error) or type(error).__name__)
        except BaseException as error:
            self._lose(lane, repr(error))
            if not isinstance(error, Exception):  # interrupted, who knows where in a frame
                raise
            _logger.exception("a lane was closed with an error of the runtime itself")

    def _watch(self, lane: ClientLane[Any]) -> None:
        """Wait for what is to be done on a lane, apart from what another thread sees to."""
        with self._lock, suppress(OSError, ValueError):  # it was closed meanwhile
            events = 0 if lane.is_read_elsewhere else select.EPOLLIN
            if lane.wire.unsent_bytes:
                events |= select.EPOLLOUT
            if self._epoll is not None:
                self._epoll.modify(lane.wire.fileno(), events)

    def _lose(self, lane: ClientLane[Any], reason: str) -> None:
        self._forget(lane)
        lane.lose(reason)

    def _forget(self, lane: ClientLane[Any]) -> None:
        with self._lock:
            descriptor = lane.wire.fileno()
            if descriptor >= 0 and self._lanes.get(descriptor) is lane:
                del self._lanes[descriptor]
                if self._epoll is not None:
                    with suppress(OSError, ValueError):
                        self._epoll.unregister(descriptor)
