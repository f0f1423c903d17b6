"""A thread that tells when requests' deadlines pass, also while everything else hangs."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Expiry", "Ticket"]

_logger = logging.getLogger(__name__)

Item = TypeVar("Item")

_MIN_DEAD = 64

_IDLE_S = 10.0
"""How long the thread stays when no deadline is left; until then it keeps its executor alive."""


class Ticket(Generic[Item]):
    """An item's place among the deadlines."""

    __slots__ = ("_expiry", "deadline_s", "item")

    def __init__(self, expiry: Expiry[Item], deadline_s: float, item: Item) -> None:
        self._expiry = expiry
        self.deadline_s = deadline_s
        self.item: Item | None = item

    def forget(self) -> None:
        """Take the item out; nothing happens if its deadline has passed."""
        self._expiry.remove(self)

    def __lt__(self, other: Ticket[Item]) -> bool:
        return self.deadline_s < other.deadline_s


class Expiry(Generic[Item]):
    """Deadlines of one executor; its thread is there while there are any. Thread-safe.

    An item that is done in time is let go of at once; nothing of it is kept until its deadline.
    """

    def __init__(self, on_expired: Callable[[list[Item]], None], name: str) -> None:
        """Know of no deadline yet.

        Args:
            on_expired: called by the thread with those whose time is over; it must not block.
            name: of the thread.
        """
        self._on_expired = on_expired
        self._name = name
        self._changed = threading.Condition()
        self._heap: list[Ticket[Item]] = []
        self._dead_count = 0
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def add(self, deadline_s: float, item: Item) -> Ticket[Item]:
        """Watch a deadline, on the monotonic clock."""
        ticket = Ticket(self, deadline_s, item)
        with self._changed:
            if self._is_closed:
                return ticket
            heapq.heappush(self._heap, ticket)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name=self._name, daemon=True)
                self._thread.start()
            elif self._heap[0] is ticket:
                self._changed.notify()
        return ticket

    def remove(self, ticket: Ticket[Item]) -> None:
        """Forget a deadline; nothing happens if it has passed."""
        with self._changed:
            if ticket.item is None:
                return
            ticket.item = None
            self._dead_count += 1
            if self._dead_count > _MIN_DEAD and 2 * self._dead_count > len(self._heap):
                self._heap = [each for each in self._heap if each.item is not None]
                heapq.heapify(self._heap)
                self._dead_count = 0

    def post(self, work: Callable[[], object]) -> None:
        """Run a function that may block: here, but on a thread of its own instead of the watch's.

        For callbacks of futures, which must not keep other deadlines waiting.
        """
        if threading.current_thread() is self._thread:
            threading.Thread(target=work, name=f"{self._name}-callback", daemon=True).start()
        else:
            work()

    def close(self) -> None:
        """End the thread; deadlines that have not passed never will."""
        with self._changed:
            self._is_closed = True
            self._heap.clear()
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self) -> None:
        while True:
            with self._changed:
                expired = self._expired(time.monotonic())
                if self._is_closed:
                    return
                if not expired:
                    until_s = self._heap[0].deadline_s if self._heap else None
                    wait_s = _IDLE_S if until_s is None else until_s - time.monotonic()
                    # A far deadline may be more than a lock can wait for.
                    is_told = self._changed.wait(min(wait_s, threading.TIMEOUT_MAX))
                    if not is_told and not self._heap:
                        self._thread = None
                        return
                    continue
            try:
                self._on_expired(expired)
            except Exception:
                _logger.exception("requests whose time is over could not be given up")
            del expired  # and what they hold

    def _expired(self, now_s: float) -> list[Item]:
        expired = []
        while self._heap and (self._heap[0].item is None or self._heap[0].deadline_s <= now_s):
            ticket = heapq.heappop(self._heap)
            if ticket.item is None:
                self._dead_count -= 1
            else:
                expired.append(ticket.item)
                ticket.item = None
        return expired
