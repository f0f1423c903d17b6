"""How the terms of a request travel: its priority and the time that is left, in a frame's header.

The clocks of two hosts differ, so what travels is how long from now the answer is wanted, and the
replica counts from when it reads the request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from atriva_inference.errors import DeadlineExceededError, InferenceFailedError
from atriva_inference.terms import USUAL, Priority, Terms
from atriva_ray.lanes.errors import FrameError

__all__ = ["PRIORITY_BITS", "cancelled", "late_ones", "packed", "too_late", "unpacked"]

_SHIFT = 4
PRIORITY_BITS = 0b11 << _SHIFT
"""Bits of a request's flags: 0 for MEDIUM, 1 for HIGH, 2 for LOW."""

_CODES = {Priority.MEDIUM: 0, Priority.HIGH: 1, Priority.LOW: 2}
_PRIORITIES = {code << _SHIFT: priority for priority, code in _CODES.items()}
_US_PER_S = 1e6
_MAX_US = 2**32 - 1


def packed(terms: Terms, now_s: float) -> tuple[int, int]:
    """Return the flags and the remaining time in microseconds, 0 for no deadline.

    A deadline more than 71 minutes away is left out; the client sees to it.
    """
    flags = _CODES[terms.priority] << _SHIFT
    if terms.deadline_s is None:
        return flags, 0
    left_us = max(1, int((terms.deadline_s - now_s) * _US_PER_S))
    return flags, left_us if left_us <= _MAX_US else 0


def unpacked(flags: int, left_us: int, now_s: float) -> Terms:
    """Return the terms of a request that was read now.

    Raises:
        FrameError: there is no such priority.
    """
    if not left_us and not flags & PRIORITY_BITS:
        return USUAL
    priority = _PRIORITIES.get(flags & PRIORITY_BITS)
    if priority is None:
        raise FrameError(f"priority {flags >> _SHIFT:#x}")
    if not left_us:
        return Terms(priority=priority)
    timeout_s = left_us / _US_PER_S
    return Terms(timeout_s, now_s + timeout_s, priority)


def late_ones(all_terms: Sequence[Terms]) -> list[int]:
    """Return which of some requests need not be run any more."""
    if all(terms.deadline_s is None for terms in all_terms):
        return []
    now_s = time.monotonic()
    return [
        index
        for index, terms in enumerate(all_terms)
        if terms.deadline_s is not None and terms.deadline_s <= now_s
    ]


def too_late(model: str, terms: Terms) -> DeadlineExceededError:
    """Return the answer to a request whose time was over before it ran."""
    return DeadlineExceededError(
        model, terms.timeout_s or 0.0, None, "while it waited at a replica; it was not run there"
    )


def cancelled(model: str) -> InferenceFailedError:
    """Return the answer to a request that was cancelled; nobody waits for it."""
    return InferenceFailedError(model, "a replica", "it was cancelled before it ran")
