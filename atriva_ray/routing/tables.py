"""`Tables`: what each client is told of the replicas of its models, and when that has changed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from atriva_ray.routing.load import Route
from atriva_ray.routing.pool import Pool
from atriva_ray.routing.speeds import Speeds

__all__ = ["Table", "Tables"]


@dataclass(frozen=True, slots=True)
class Table:
    """The replicas of one model for one client.

    Attributes:
        routes: what it may use.
        news: ids of those of them that it has not been told of.
    """

    routes: tuple[Route, ...]
    news: frozenset[str]


@dataclass(slots=True)
class _Model:
    pool: Pool = field(default_factory=Pool)
    routes: dict[str, Route] = field(default_factory=dict)
    known: dict[str, dict[str, bool]] = field(default_factory=dict)
    since: dict[str, dict[str, int]] = field(default_factory=dict)
    remark: object = None


class Tables:
    """Tables of all models. A change concerns only the clients whose replicas it changes."""

    def __init__(self) -> None:
        self._speeds = Speeds()
        self._models: dict[str, _Model] = {}
        self._changed: dict[str, int] = {}

    def changed(self, client_id: str) -> int:
        """Return the version with which something changed for a client the last time."""
        return self._changed.get(client_id, 0)

    def measured(self, service_times_s: Mapping[str, float | None]) -> bool:
        """Take over what requests take all replicas; returns whether homes should be given anew."""
        self._speeds.keep(service_times_s.keys())
        return self._speeds.measured(service_times_s)

    def update(
        self, key: str, routes: Iterable[Route], clients: Iterable[str], version: int
    ) -> None:
        """Take over the replicas and the clients of a model.

        Args:
            key: which model.
            routes: all of its replicas that are ready.
            clients: all that use it.
            version: the number of this change.
        """
        model = self._models.setdefault(key, _Model())
        model.routes = {route.replica_id: route for route in routes}
        wanted = set(clients)
        changed = model.pool.update(self._kinds(model.routes), wanted)
        for client_id in set(model.known) - wanted:
            del model.known[client_id], model.since[client_id]
            self._changed[client_id] = version
        for client_id in changed:
            known = model.known[client_id] = model.pool.known_to(client_id)
            since = model.since.get(client_id, {})
            model.since[client_id] = {each: since.get(each, version) for each in known}
            self._changed[client_id] = version

    def remark(self, key: str, remark: object, version: int) -> None:
        """Note what else there is to tell of a model; a change of it concerns all its clients."""
        model = self._models[key]
        if model.remark != remark:
            model.remark = remark
            self._changed |= dict.fromkeys(model.known, version)

    def _kinds(self, routes: Mapping[str, Route]) -> dict[str, tuple[object, ...]]:
        """Return the kind of each replica; one that was not measured counts as a usual one."""
        speeds = {each: self._speeds.of(each) for each in routes}
        counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
        for each, speed in speeds.items():
            if speed is not None:
                counts[routes[each].rank][speed] += 1
        usual = {rank: found.most_common(1)[0][0] for rank, found in counts.items()}
        return {
            each: (route.rank, usual.get(route.rank) if speeds[each] is None else speeds[each])
            for each, route in routes.items()
        }

    def keep(self, keys: Collection[str], version: int) -> None:
        """Take note that all models but these are gone."""
        for key in [each for each in self._models if each not in keys]:
            for client_id in self._models.pop(key).known:
                self._changed[client_id] = version

    def keep_clients(self, clients: Collection[str]) -> None:
        """Forget all clients but these, for nobody will ask for the others any more."""
        self._changed = {each: at for each, at in self._changed.items() if each in clients}

    def table(self, key: str, client_id: str, version: int) -> Table:
        """Return the replicas of a model that a client may use.

        Args:
            key: which model.
            client_id: who asks.
            version: the version of what it knows already; 0: nothing.
        """
        model = self._models.get(key)
        if model is None or client_id not in model.known:
            return Table((), frozenset())
        since = model.since[client_id]
        routes = tuple(
            replace(model.routes[each], is_home=is_home)
            for each, is_home in model.known[client_id].items()
        )
        return Table(routes, frozenset(each for each in since if since[each] > version))
