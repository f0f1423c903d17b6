"""`Pool`: the replicas of one model, and which of them each client gets to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from zlib import crc32

from atriva_ray.routing.homes import Homes

__all__ = ["Pool"]

_ALL_KNOWN = 64
"""Up to so many replicas are known to every client; of larger pools each knows a few."""

_Kind = tuple[object, ...]


class Pool:
    """Hands out replicas to clients. Not thread-safe.

    Each client gets homes among the replicas of each kind, which it uses first, and spares, which
    it uses when its homes are full. Replicas of one kind are about equally fast: were they counted
    together, some clients would get most of the fast ones.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._homes: dict[_Kind, Homes] = {}
        self._spares: dict[_Kind, Homes] = {}
        self._clients: dict[str, None] = {}

    def update(self, kinds: Mapping[str, _Kind], clients: Iterable[str]) -> set[str]:
        """Take over who there is.

        Args:
            kinds: the kind of each replica, by its id.
            clients: all clients.

        Returns:
            The clients whose replicas have changed, apart from those that are gone.
        """
        was_small = len(self._kinds) <= _ALL_KNOWN
        wanted = dict.fromkeys(clients)
        changed = self._remove(
            [each for each, kind in self._kinds.items() if kinds.get(each) != kind],
            [each for each in self._clients if each not in wanted],
        )
        changed |= self._add(
            {each: kind for each, kind in kinds.items() if each not in self._kinds},
            [each for each in wanted if each not in self._clients],
        )
        if was_small or len(self._kinds) <= _ALL_KNOWN:
            changed |= set(self._clients)
        return changed & set(self._clients)

    def known_to(self, client_id: str) -> dict[str, bool]:
        """Return what a client may use, by id: whether it is a home of the client.

        Every client gets them in another order, so that not all of them begin with the same one.
        """
        homes = {each for pool in self._homes.values() for each in pool.of(client_id)}
        if len(self._kinds) <= _ALL_KNOWN:
            known = set(self._kinds)
        else:
            known = homes.union(*(pool.of(client_id) for pool in self._spares.values()))
        seed = crc32(client_id.encode())
        return {
            each: each in homes for each in sorted(known, key=lambda id_: crc32(id_.encode(), seed))
        }

    def _remove(self, replicas: Iterable[str], clients: Iterable[str]) -> set[str]:
        changed: set[str] = set()
        for replica_id in replicas:
            kind = self._kinds.pop(replica_id)
            for pools in (self._homes, self._spares):
                changed |= pools[kind].remove_replica(replica_id)
        for client_id in clients:
            del self._clients[client_id]
            for pool in (*self._homes.values(), *self._spares.values()):
                changed |= pool.remove_client(client_id)
        return changed

    def _add(self, kinds: Mapping[str, _Kind], clients: Iterable[str]) -> set[str]:
        changed: set[str] = set()
        for replica_id, kind in kinds.items():
            self._kinds[replica_id] = kind
            for pools in (self._homes, self._spares):
                changed |= self._of_kind(pools, kind).add_replica(replica_id)
        for client_id in clients:
            self._clients[client_id] = None
            changed.add(client_id)
            for pool in (*self._homes.values(), *self._spares.values()):
                changed |= pool.add_client(client_id)
        return changed

    def _of_kind(self, pools: dict[_Kind, Homes], kind: _Kind) -> Homes:
        pool = pools.get(kind)
        if pool is None:
            pool = pools[kind] = Homes()
            for client_id in self._clients:
                pool.add_client(client_id)
        return pool
