"""Replicas whose device fails: set aside, for longer each time, and tried again."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DOUBT_S", "FIRST_DELAY_S", "LAST_DELAY_S", "Trouble"]

FIRST_DELAY_S = 1.0
LAST_DELAY_S = 60.0

DOUBT_S = 10.0
"""Without trouble for this long, a replica is as good as any other again."""


@dataclass(slots=True)
class Trouble:
    """What is held against one replica.

    Attributes:
        until_s: when it is tried again.
        delay_s: how long it was set aside the last time; 0 if it never was.
    """

    until_s: float = 0.0
    delay_s: float = 0.0

    def happened(self, now_s: float) -> None:
        """Set it aside: twice as long as before if it was tried again only just now."""
        is_long_ago = now_s - self.until_s >= DOUBT_S
        delay_s = FIRST_DELAY_S if is_long_ago or not self.delay_s else 2 * self.delay_s
        self.delay_s = min(LAST_DELAY_S, delay_s)
        self.until_s = now_s + self.delay_s
