"""Whether a request may wait: pure decisions from what waits and how long requests take."""

from __future__ import annotations

from atriva_inference.errors import DeadlineExceededError, OptionError, OverloadedError
from atriva_inference.terms import Terms

__all__ = [
    "DEFAULT_MAX_WAITING",
    "check_deadline",
    "check_max_waiting",
    "expected_s",
    "overloaded",
    "retry_after_s",
    "smoothed",
]

DEFAULT_MAX_WAITING = 100_000
"""Requests of one program that may wait for one model, where it does not say otherwise."""

_SMOOTHING = 0.2
"""Weight of the newest service time in the moving average."""

_SHORTEST_RETRY_S = 0.01
_LONGEST_RETRY_S = 30.0
_UNKNOWN_RETRY_S = 1.0


def smoothed(before_s: float | None, newest_s: float) -> float:
    """Return the moving average of service times with one more in it."""
    return newest_s if before_s is None else before_s + _SMOOTHING * (newest_s - before_s)


def expected_s(service_time_s: float | None, slot_count: int, ahead: int) -> float | None:
    """Return when a request would be answered at the earliest, from now.

    Args:
        service_time_s: how long one takes, as far as that is known.
        slot_count: how many run at once.
        ahead: requests that run, or go before it.

    Returns:
        None where nothing can be said: nothing was learned yet, or the request need not wait. Such
        a request is always tried, for only trying teaches how long a request takes.
    """
    if service_time_s is None or ahead < slot_count:
        return None
    # Those that run are taken to be nearly done: who is refused could not have been answered.
    return service_time_s * ((ahead - slot_count) // slot_count + 1)


def check_deadline(model: str, terms: Terms, expected: float | None, now_s: float) -> None:
    """Refuse a request that cannot be answered in time.

    Raises:
        DeadlineExceededError: its time is over already, or it is expected to take longer.
    """
    if terms.deadline_s is None or terms.timeout_s is None:
        return
    if now_s >= terms.deadline_s:
        raise DeadlineExceededError(model, terms.timeout_s)
    if expected is not None and now_s + expected > terms.deadline_s:
        raise DeadlineExceededError(model, terms.timeout_s, expected)


def retry_after_s(drained_s: float | None) -> float:
    """Return when it is worth another try.

    Args:
        drained_s: when all that waits now will have been answered; None: nobody knows. By half of
            that there is room, and not all who were refused come back at the same moment as the
            last place falls free.
    """
    if drained_s is None:
        return _UNKNOWN_RETRY_S
    return min(_LONGEST_RETRY_S, max(_SHORTEST_RETRY_S, round(drained_s / 2, 3)))


def overloaded(waiting: int, limit: int, drained_s: float | None) -> OverloadedError:
    """Return the refusal of a request for which there is no room in the queue."""
    return OverloadedError(waiting, limit, retry_after_s(drained_s))


def check_max_waiting(value: int | None) -> int | None:
    """Return the limit of waiting requests; None: there is none.

    Raises:
        OptionError: it is not a number, or negative.
    """
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise OptionError("max_waiting", repr(value), "None or a number, 0 or more")
    return value
