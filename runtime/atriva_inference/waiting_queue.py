"""Requests that wait for room, the most urgent first."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from atriva_inference.terms import RANKS, USUAL, Terms
from atriva_inference.turns import Turns

__all__ = ["WaitingQueue"]

Item = TypeVar("Item", bound=Hashable)

_USUAL_RANK = USUAL.rank


class WaitingQueue(Generic[Item]):
    """Items on their terms. Not thread-safe; knows no clock.

    The higher priority goes first; within one, the earliest deadline first and then those without
    one, in the order they came. Nothing waits for ever: see `Turns`. Any item can be removed.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        # Those without a deadline by rank, in order; a dict, since they may leave from anywhere.
        self._plain: tuple[OrderedDict[Item, None], ...] = tuple(
            OrderedDict() for _ in range(RANKS)
        )
        self._usual = self._plain[_USUAL_RANK]
        # Those with one: (-deadline, -number, item), so that the next one is the last.
        self._timed: tuple[list[tuple[float, int, Item]], ...] = tuple([] for _ in range(RANKS))
        self._numbers: dict[Item, int] = {}
        self._number = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, item: Item, terms: Terms = USUAL) -> None:
        """Add an item, behind those on the same terms."""
        if terms is USUAL:  # nearly always, and tens of thousands of times a second
            usual = self._usual
            if not usual:
                self._turns.join(_USUAL_RANK)
            usual[item] = None
            self._count += 1
            return
        self._number += 1
        self._add(item, terms, self._number)

    def put_back(self, item: Item, terms: Terms = USUAL) -> None:
        """Add an item that was taken before, in front of those on the same terms."""
        self._number += 1
        self._add(item, terms, -self._number)

    def _add(self, item: Item, terms: Terms, number: int) -> None:
        rank = terms.rank
        if terms.deadline_s is None:
            plain = self._plain[rank]
            if not plain:
                self._turns.join(rank)
            plain[item] = None
            if number < 0:
                plain.move_to_end(item, last=False)
        else:
            timed = self._timed[rank]
            if not timed:
                self._turns.join(rank)
            self._numbers[item] = number
            insort(timed, (-terms.deadline_s, -number, item))
        self._count += 1

    def take(self) -> Item:
        """Remove and return the next item.

        Raises:
            IndexError: nothing waits.
        """
        waiting = self._turns.waiting
        rank = waiting[0] if len(waiting) == 1 else self._turns.choose()
        plain = self._plain[rank]
        if plain:
            item, _ = plain.popitem(last=False)
            if not plain:
                self._turns.leave(rank)
        else:
            timed = self._timed[rank]
            item = timed.pop()[2]
            del self._numbers[item]
            if not timed:
                self._turns.leave(rank)
        self._count -= 1
        return item

    def remove(self, item: Item, terms: Terms = USUAL) -> bool:
        """Remove an item that was put on these terms, and return whether it was there."""
        rank = terms.rank
        if terms.deadline_s is None:
            plain = self._plain[rank]
            if item not in plain:
                return False
            del plain[item]
            is_empty = not plain
        else:
            number = self._numbers.pop(item, None)
            if number is None:
                return False
            timed = self._timed[rank]
            del timed[bisect_left(timed, (-terms.deadline_s, -number), key=_place)]
            is_empty = not timed
        self._count -= 1
        if is_empty:
            self._turns.leave(rank)
        return True

    def ahead_of(self, terms: Terms) -> int:
        """Return how many items would go before one that is put now.

        Those of less urgent ranks that go before it for their patience are not counted.
        """
        rank = terms.rank
        count = sum(self._count_of(each) for each in self._turns.waiting if each <= rank)
        if terms.deadline_s is not None:  # those with a later deadline come first in the list
            count -= bisect_left(self._timed[rank], -terms.deadline_s, key=_minus_deadline)
        return count

    def clear(self) -> list[Item]:
        """Remove and return everything, in turn."""
        return [self.take() for _ in range(self._count)]

    def _count_of(self, rank: int) -> int:
        return len(self._plain[rank]) or len(self._timed[rank])


def _place(entry: tuple[float, int, object]) -> tuple[float, int]:
    return entry[:2]


def _minus_deadline(entry: tuple[float, int, object]) -> float:
    return entry[0]
