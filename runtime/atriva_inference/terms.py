"""On what terms a request is run: until when its answer is wanted, and how urgent it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from atriva_inference.errors import OptionError

__all__ = ["RANKS", "USUAL", "Priority", "Terms", "make_terms"]


class Priority(IntEnum):
    """How urgent a request is, in OpenVINO's words; the lower number goes first.

    HIGH is for requests somebody waits for while others may wait; MEDIUM is the default; LOW is for
    work that has time, as whole data sets have.
    """

    HIGH = 0
    MEDIUM = 1
    LOW = 2

    @classmethod
    def parse(cls, value: Priority | str) -> Priority:
        """Take a priority, or its name in any case.

        Raises:
            OptionError: there is no such priority.
        """
        if isinstance(value, cls):
            return value
        try:
            return cls[str(value).upper()]
        except KeyError:
            names = ", ".join(each.name for each in cls)
            raise OptionError("priority", str(value), f"one of {names}") from None


RANKS = 2 * len(Priority)
"""How many ranks there are; see `Terms.rank`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a caller asks of a request besides its answer.

    Attributes:
        timeout_s: how long the caller will wait, from the call on; None: as long as it takes.
        deadline_s: when that is over, on this process's monotonic clock.
        priority: how urgent it is.
    """

    timeout_s: float | None = None
    deadline_s: float | None = None
    priority: Priority = Priority.MEDIUM

    @property
    def rank(self) -> int:
        """Whose turn comes first, the lower one; those with a deadline before those without."""
        return 2 * self.priority + (self.deadline_s is None)


USUAL = Terms()
"""Of a request whose caller says nothing."""


def make_terms(timeout_s: float | None, priority: Priority | str, now_s: float) -> Terms:
    """Return the terms of a request that is made now.

    Args:
        timeout_s: seconds from now; None or infinite: no deadline. 0 is over at once.
        priority: or its name.
        now_s: the time on this process's monotonic clock.

    Raises:
        OptionError: the time is no number, or negative; or there is no such priority.
    """
    urgency = Priority.parse(priority)
    if timeout_s is None:
        return USUAL if urgency is Priority.MEDIUM else Terms(priority=urgency)
    if (
        isinstance(timeout_s, bool)
        or not isinstance(timeout_s, (int, float))
        or not timeout_s >= 0  # also what is not a number
    ):
        raise OptionError("timeout_s", repr(timeout_s), "None or seconds, 0 or more")
    if math.isinf(timeout_s):
        return make_terms(None, urgency, now_s)
    return Terms(float(timeout_s), now_s + timeout_s, urgency)
