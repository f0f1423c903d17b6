"""`Homes`: which replicas of a pool each client is to use first."""

from __future__ import annotations

import math
from collections import defaultdict

__all__ = ["Homes"]

_LEAST = 4
"""Replicas that a client needs to be served well: of so many, one is nearly always free; with many
more, every client sees the whole pool, and all of them rush to who was idle a moment ago."""

_SPARE = 1.25
_TOO_MANY = 2.0
"""The number of homes changes only when replicas would be left over, or with twice as many as are
needed, and then a little further, so that one replica more or less does not move everybody."""


class Homes:
    """Gives each client of a pool a few of its replicas, evenly, and changes little of it.

    Every client has the same number of homes, every replica is a home of as many clients as any
    other, or of one more, and what comes or goes moves few of the others. Not thread-safe.
    """

    def __init__(self, least: int = _LEAST) -> None:
        """Know of nobody.

        Args:
            least: homes that each client is to have, where there are as many replicas.
        """
        self._least = least
        self._wanted = 0
        self._homes: dict[str, dict[str, None]] = {}
        self._users: dict[str, dict[str, None]] = {}
        # Replicas by the number of their users; a dict for a set that keeps its order.
        self._by_count: defaultdict[int, dict[str, None]] = defaultdict(dict)

    def of(self, client_id: str) -> frozenset[str]:
        """Return the homes of a client; none if nobody has told of it."""
        return frozenset(self._homes.get(client_id, ()))

    def users(self, replica_id: str) -> frozenset[str]:
        """Return the clients that have a replica for a home."""
        return frozenset(self._users.get(replica_id, ()))

    def add_client(self, client_id: str) -> set[str]:
        """Give a client homes; return the clients whose homes have changed."""
        if client_id in self._homes:
            return set()
        self._homes[client_id] = {}
        return self._settle({client_id})

    def remove_client(self, client_id: str) -> set[str]:
        """Forget a client; return the clients whose homes have changed."""
        for replica_id in list(self._homes.get(client_id, ())):
            self._unlink(client_id, replica_id)
        self._homes.pop(client_id, None)
        return self._settle(set())

    def add_replica(self, replica_id: str) -> set[str]:
        """Let a replica be a home; return the clients whose homes have changed."""
        if replica_id in self._users:
            return set()
        self._users[replica_id] = {}
        self._by_count[0][replica_id] = None
        return self._settle(set())

    def remove_replica(self, replica_id: str) -> set[str]:
        """Forget a replica; return the clients whose homes have changed."""
        left = list(self._users.get(replica_id, ()))
        for client_id in left:
            self._unlink(client_id, replica_id)
        if self._users.pop(replica_id, None) is not None:
            del self._by_count[0][replica_id]
            if not self._by_count[0]:
                del self._by_count[0]
        return self._settle(set(left)) | set(left)

    # -- how -----------------------------------------------------------------------------------

    def _settle(self, short: set[str]) -> set[str]:
        """Give to those that have too few, take from those that have too many, and even out."""
        before = self._wanted
        self._wanted = self._number()
        changed: set[str] = set()
        for client_id in short if self._wanted == before else list(self._homes):
            homes = self._homes[client_id]
            while len(homes) < self._wanted:
                self._link(client_id, self._least_used(homes))
                changed.add(client_id)
            while len(homes) > self._wanted:
                self._unlink(client_id, max(homes, key=lambda each: len(self._users[each])))
                changed.add(client_id)
        return changed | self._even_out()

    def _number(self) -> int:
        replicas, clients = len(self._users), len(self._homes)
        if not clients:
            return 0
        needed = math.ceil(replicas / clients)
        if needed <= self._least:
            return min(self._least, replicas)
        wanted = self._wanted
        if not needed <= wanted <= _TOO_MANY * needed:
            wanted = math.ceil(_SPARE * replicas / clients)
        return min(wanted, replicas)

    def _least_used(self, but: dict[str, None]) -> str:
        """Return the replica with the fewest users that is none of these."""
        for number in sorted(self._by_count):
            for replica_id in self._by_count[number]:
                if replica_id not in but:
                    return replica_id
        raise AssertionError("a client never wants more homes than there are replicas")

    def _even_out(self) -> set[str]:
        """Move homes from the replicas with the most users to those with the fewest."""
        changed: set[str] = set()
        while True:
            numbers = list(self._by_count)
            if not numbers or max(numbers) - min(numbers) <= 1:
                return changed
            fullest = next(iter(self._by_count[max(numbers)]))
            emptiest = next(iter(self._by_count[min(numbers)]))
            # It has more users than the other, so one of them is not the other's.
            client_id = next(
                each for each in self._users[fullest] if each not in self._users[emptiest]
            )
            self._unlink(client_id, fullest)
            self._link(client_id, emptiest)
            changed.add(client_id)

    def _link(self, client_id: str, replica_id: str) -> None:
        self._homes[client_id][replica_id] = None
        self._move(replica_id, client_id, is_new=True)

    def _unlink(self, client_id: str, replica_id: str) -> None:
        del self._homes[client_id][replica_id]
        self._move(replica_id, client_id, is_new=False)

    def _move(self, replica_id: str, client_id: str, *, is_new: bool) -> None:
        users = self._users[replica_id]
        number = len(users)
        del self._by_count[number][replica_id]
        if not self._by_count[number]:
            del self._by_count[number]
        if is_new:
            users[client_id] = None
        else:
            del users[client_id]
        self._by_count[len(users)][replica_id] = None
