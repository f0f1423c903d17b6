"""`InOrder`: whoever asks first goes first, and one at a time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["InOrder"]

Begin = Callable[[], bool]
"""Called when a turn has come; returns whether it is still taken, and so left later."""


class InOrder:
    """Gives turns in the order in which they were asked for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Begin] = deque()
        self._is_taken = False

    def enter(self, begin: Begin) -> None:
        """Ask for a turn without blocking.

        Args:
            begin: called once, at once or on the thread that leaves before; it must be quick.
        """
        with self._lock:
            if self._is_taken:
                self._waiting.append(begin)
                return
            self._is_taken = True
        if not begin():
            self.leave()

    def leave(self) -> None:
        """End a turn, and begin the next one."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_taken = False
                    return
                begin = self._waiting.popleft()
            if begin():
                return

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Block until it is this thread's turn, and have it inside the block."""
        came = threading.Event()

        def begin() -> bool:
            came.set()
            return True

        try:
            self.enter(begin)
            came.wait()
        except BaseException:  # interrupted; the turn must not be kept by nobody
            if not self._withdrawn(begin):
                self.leave()
            raise
        try:
            yield
        finally:
            self.leave()

    def _withdrawn(self, begin: Begin) -> bool:
        with self._lock:
            if begin not in self._waiting:
                return False
            self._waiting.remove(begin)
            return True
