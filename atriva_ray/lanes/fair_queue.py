"""Whose request is next: one of each lane in turn, however many a lane has waiting."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from typing import Generic, TypeVar

__all__ = ["FairQueue", "fill_from"]

_LOOK_AHEAD = 16
"""Items of an owner that are looked at, so that a long queue costs no more than a short one."""

Owner = TypeVar("Owner", bound=Hashable)
Item = TypeVar("Item")


class FairQueue(Generic[Owner, Item]):
    """Waiting items of several owners; each owner's come in order. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Owner, deque[Item]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        """Yield everything that waits, beginning with what is next."""
        for items in self._waiting.values():
            yield from items

    def count_of(self, owner: Owner) -> int:
        """Return how many items of an owner wait."""
        return len(self._waiting.get(owner, ()))

    def put(self, owner: Owner, item: Item) -> None:
        """Add an item behind the others of its owner."""
        self._waiting.setdefault(owner, deque()).append(item)
        self._count += 1

    def take(self) -> Item:
        """Remove and return the next item; its owner's turn comes again after all others.

        Raises:
            KeyError: nothing waits.
        """
        owner, items = self._waiting.popitem(last=False)
        item = items.popleft()
        if items:
            self._waiting[owner] = items
        self._count -= 1
        return item

    def fill(self, room: int, weigh: Callable[[Item], int]) -> list[Item]:
        """Remove and return items that fit into some room, of every owner in turn.

        Those of an owner that do not fit are passed over, and lose nothing by it: an owner's turn
        passes only when the item goes that has waited longest.

        Args:
            room: how much they may weigh together.
            weigh: what an item weighs, at least 1; 0 for one that is not to be taken.
        """
        filled = fill_from(self._waiting, room, weigh)
        self._count -= len(filled)
        return filled

    def drop(self, owner: Owner) -> list[Item]:
        """Remove and return everything of an owner."""
        items = self._waiting.pop(owner, deque())
        self._count -= len(items)
        return list(items)


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
