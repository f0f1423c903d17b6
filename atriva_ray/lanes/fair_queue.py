"""Whose request is next: the most urgent; among equals one of each lane in turn."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Generic, TypeVar

from atriva_inference.terms import RANKS, USUAL, Terms
from atriva_inference.turns import Turns

__all__ = ["FairQueue", "fill_from"]

_LOOK_AHEAD = 16
"""Items of an owner that are looked at, so that a long queue costs no more than a short one."""

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

    def __iter__(self) -> Iterator[Item]:
        """Yield everything that waits, the most urgent first."""
        for rank in self._turns.waiting:
            for _, _, _, item in reversed(self._timed[rank]):
                yield item
            for items in self._plain[rank].values():
                yield from items

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

    def fill(self, room: int, weigh: Callable[[Item], int]) -> list[Item]:
        """Remove and return items that fit into some room, of every owner in turn.

        Those of an owner that do not fit are passed over, and lose nothing by it: an owner's turn
        passes only when the item goes that has waited longest.

        Args:
            room: how much they may weigh together.
            weigh: what an item weighs, at least 1; 0 for one that is not to be taken.
        """
        filled: list[Item] = []
        for rank in list(self._turns.waiting):
            some = self._fill_timed(rank, room, weigh)
            room -= sum(map(weigh, some))
            others = fill_from(self._plain[rank], room, weigh)
            room -= sum(map(weigh, others))
            self._left(rank, len(others))
            filled += some + others
        return filled

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

    def _fill_timed(self, rank: int, room: int, weigh: Callable[[Item], int]) -> list[Item]:
        timed = self._timed[rank]
        taken: list[Item] = []
        for index in range(len(timed) - 1, max(-1, len(timed) - 1 - _LOOK_AHEAD), -1):
            item = timed[index][3]
            weight = weigh(item)
            if 0 < weight <= room:
                taken.append(item)
                del timed[index]
                room -= weight
        if taken:
            self._left(rank, len(taken))
        return taken

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

    def _left(self, rank: int, count: int = 1) -> None:
        """Count so many items less of a rank."""
        self._count -= count
        is_empty = not self._plain[rank] and not self._timed[rank]
        if is_empty and rank in self._turns.waiting:
            self._turns.leave(rank)


def _any(_item: object) -> bool:
    return True


def fill_from(
    waiting: OrderedDict[Owner, deque[Item]], room: int, weigh: Callable[[Item], int]
) -> list[Item]:
    """Take items that fit out of queues, one of each in turn, as often as there is room."""
    taken: list[Item] = []
    owners = list(waiting)
    while room and owners:
        fitting = []
        for owner in owners:
            items = waiting[owner]
            weights = map(weigh, islice(items, _LOOK_AHEAD))
            found = next(
                ((n, weight) for n, weight in enumerate(weights) if 0 < weight <= room), None
            )
            if found is None:  # nor will any fit later, for there will be less room
                continue
            index, weight = found
            taken.append(items[index])
            del items[index]
            room -= weight
            if not items:
                del waiting[owner]
            else:
                fitting.append(owner)
                if index == 0:
                    waiting.move_to_end(owner)
            if not room:
                break
        owners = fitting
    return taken
