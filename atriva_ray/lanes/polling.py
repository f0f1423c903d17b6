"""Waiting on sockets for less than a millisecond, which `epoll` does not count."""

from __future__ import annotations

import select
import time

__all__ = ["poll_for"]

_STEP_S = 1e-3
_NAP_S = 50e-6


def poll_for(epoll: select.epoll, timeout_s: float) -> list[tuple[int, int]]:
    """Return what happened, or nothing after at most about `timeout_s`.

    `epoll` rounds up to milliseconds, so the last one is spent on short sleeps.
    """
    if timeout_s > 2 * _STEP_S:
        return epoll.poll(timeout_s - _STEP_S)
    events = epoll.poll(0)
    if not events:
        time.sleep(min(timeout_s, _NAP_S))
        events = epoll.poll(0)
    return events
