"""Whose request is next: the most urgent; among equals one of each lane in turn."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from atriva_inference.terms import RANKS, USUAL, Terms
from atriva_inference.turns import Turns

__all__ = ["FairQueue"]

Owner = TypeVar("Owner", bound=Hashable)
Item = TypeVar("Item")

_USUAL_RANK = USUAL.rank


class FairQueue(Generic[Owner, Item]):
    """Waiting items of several owners. Not thread-safe; knows no clock.

    The higher priority goes first. Within one, the earliest deadline of all owners goes first; then
    those without one, an owner's in the order they came, and of the owners one after the other,
    however many items each has. Nothing waits for ever: see `Turns`.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._plain: tuple[OrderedDict[Owner, deque[Item]], ...] = tuple(
            OrderedDict() for _ in range(RANKS)
        )
        # (-deadline, -number, owner, item), so that the next one is the last.
        self._timed: tuple[list[tuple[float, int, Owner, Item]], ...] = tuple(
            [] for _ in range(RANKS)
        )
        self._number = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def count_of(self, owner: Owner) -> int:
        """Return how many items of an owner wait."""
        plain = sum(len(owners.get(owner, ())) for owners in self._plain)
        return plain + sum(each[2] == owner for timed in self._timed for each in timed)

    def put(self, owner: Owner, item: Item, terms: Terms = USUAL) -> None:
        """Add an item behind the others of its owner that are on the same terms."""
        rank = _USUAL_RANK if terms is USUAL else terms.rank
        self._count += 1
        if terms.deadline_s is None:
            owners = self._plain[rank]
            if not owners:
                self._turns.join(rank)
            items = owners.get(owner)
            if items is None:
                items = owners[owner] = deque()
            items.append(item)
        else:
            if not self._timed[rank]:
                self._turns.join(rank)
            self._number += 1
            insort(self._timed[rank], (-terms.deadline_s, -self._number, owner, item))

    def take(self) -> Item:
        """Remove and return the next item; its owner's turn comes again after all its equals.

        Raises:
            IndexError: nothing waits.
        """
        waiting = self._turns.waiting
        rank = waiting[0] if len(waiting) == 1 else self._turns.choose()
        if self._timed[rank]:
            return self._take_timed(rank)
        return self._take_plain(rank, next(iter(self._plain[rank])))

    def take_alike(self, limit: int, is_alike: Callable[[Item, Item], bool]) -> list[Item]:
        """Remove and return the next item and, in turn, those that may go with it.

        Args:
            limit: how many at most.
            is_alike: whether an item (second) may go with the first one.
        """
        first = self.take()
        taken = [first]
        for rank in list(self._turns.waiting):
            while len(taken) < limit and self._timed[rank]:
                if not is_alike(first, self._timed[rank][-1][3]):
                    break
                taken.append(self._take_timed(rank))
            while len(taken) < limit:
                owners = self._plain[rank]
                owner = next(
                    (owner for owner, items in owners.items() if is_alike(first, items[0])), None
                )
                if owner is None:
                    break
                taken.append(self._take_plain(rank, owner))
        return taken

    def remove(self, owner: Owner, is_wanted: Callable[[Item], bool]) -> Item | None:
        """Remove and return the first item of an owner that is wanted; None if there is none."""
        for rank, timed in enumerate(self._timed):
            for index, (_, _, whose, item) in enumerate(timed):
                if whose == owner and is_wanted(item):
                    del timed[index]
                    self._left(rank)
                    return item
        for rank, owners in enumerate(self._plain):
            items = owners.get(owner, ())
            for index, item in enumerate(items):
                if is_wanted(item):
                    del owners[owner][index]
                    if not owners[owner]:
                        del owners[owner]
                    self._left(rank)
                    return item
        return None

    def drop(self, owner: Owner) -> list[Item]:
        """Remove and return everything of an owner, the most urgent first."""
        dropped: list[Item] = []
        while (item := self.remove(owner, _any)) is not None:
            dropped.append(item)
        return dropped

    def _take_timed(self, rank: int) -> Item:
        item = self._timed[rank].pop()[3]
        self._left(rank)
        return item

    def _take_plain(self, rank: int, owner: Owner) -> Item:
        owners = self._plain[rank]
        items = owners[owner]
        item = items.popleft()
        self._count -= 1
        if items:
            owners.move_to_end(owner)
            return item
        del owners[owner]
        if not owners:
            self._turns.leave(rank)
        return item

    def _left(self, rank: int) -> None:
        """Count one item less of a rank."""
        self._count -= 1
        if not self._plain[rank] and not self._timed[rank]:
            self._turns.leave(rank)


def _any(_item: object) -> bool:
    return True
