"""Whose turn is next among ranks of which some are more urgent, so that none waits for ever."""

from __future__ import annotations

from bisect import insort

from atriva_inference.terms import RANKS

__all__ = ["PATIENCE", "Turns"]

PATIENCE = 16
"""How often a rank that waits is passed over before it has its turn all the same."""


class Turns:
    """Chooses among the ranks that have something waiting. Not thread-safe; knows no clock.

    The most urgent rank goes first. One that was passed over `PATIENCE` times goes before it once,
    so every rank gets about one turn in 17 at least, however much comes of the more urgent ones.
    A share and not an age: that is the same for models that take microseconds and seconds, and
    what it costs the urgent ones is known.
    """

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self._passed = [0] * RANKS

    def join(self, rank: int) -> None:
        """Count in a rank that had nothing waiting before."""
        if self.waiting:
            insort(self.waiting, rank)
        else:
            self.waiting.append(rank)
        self._passed[rank] = 0

    def leave(self, rank: int) -> None:
        """Count out a rank that has nothing waiting any more."""
        self.waiting.remove(rank)

    def choose(self) -> int:
        """Return the rank whose turn it is.

        Raises:
            IndexError: none waits.
        """
        waiting = self.waiting
        if len(waiting) == 1:
            return waiting[0]
        passed = self._passed
        chosen = max(waiting, key=passed.__getitem__, default=None)
        if chosen is None or passed[chosen] < PATIENCE:
            chosen = waiting[0]
        for rank in waiting:
            passed[rank] += 1
        passed[chosen] = 0
        return chosen
