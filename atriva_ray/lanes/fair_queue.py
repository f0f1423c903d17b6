"""Whose request is next: one of each lane in turn, however many a lane has waiting."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["FairQueue"]

Owner = TypeVar("Owner", bound=Hashable)
Item = TypeVar("Item")


class FairQueue(Generic[Owner, Item]):
    """Waiting items of several owners; each owner's come in order. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[Owner, deque[Item]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

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

    def take_alike(self, limit: int, is_alike: Callable[[Item, Item], bool]) -> list[Item]:
        """Remove and return the next item and, in turn, those that may go with it.

        Args:
            limit: how many at most.
            is_alike: whether an item (second) may go with the first one.
        """
        first = self.take()
        taken = [first]
        while len(taken) < limit:
            owner = next(
                (owner for owner, items in self._waiting.items() if is_alike(first, items[0])),
                None,
            )
            if owner is None:
                break
            items = self._waiting.pop(owner)
            taken.append(items.popleft())
            if items:
                self._waiting[owner] = items
            self._count -= 1
        return taken

    def drop(self, owner: Owner) -> list[Item]:
        """Remove and return everything of an owner."""
        items = self._waiting.pop(owner, deque())
        self._count -= len(items)
        return list(items)
