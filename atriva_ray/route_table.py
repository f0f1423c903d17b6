"""What the router tells a client of its replicas, and what the client makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atriva_ray.replica import ReplicaInfo
from atriva_ray.routing.load import Route

__all__ = ["KnownReplicas", "ModelRoutes", "RouteTable"]


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The replicas of one model that a client may use, as they travel to it.

    Attributes:
        key: what the router knows the model by.
        generation: which load of that key this is.
        version: the router's version that this is true of.
        routes: the replicas.
        news: self-description and actor handle of those that the client was not told of before.
        refusals: why devices that were tried do not run the model, by ``node/device``.
        expects_more: whether another device compiles the model to answer for those in use.
    """

    key: str
    generation: int
    version: int
    routes: tuple[Route, ...]
    news: Mapping[str, tuple[ReplicaInfo, Any]]
    refusals: Mapping[str, str] = field(default_factory=dict)
    expects_more: bool = False


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """The replicas of one model that a client may use.

    Attributes:
        key: what the router knows the model by.
        generation: which load of that key this is.
        version: the router's version that this is true of.
        replicas: route, self-description and actor handle of each; empty while all restart.
        refusals: as in the table.
        expects_more: as in the table.
    """

    key: str
    generation: int
    version: int
    replicas: tuple[tuple[Route, ReplicaInfo, Any], ...]
    refusals: Mapping[str, str] = field(default_factory=dict)
    expects_more: bool = False


class KnownReplicas:
    """What a client was told of replicas, which the router does not say again. Not thread-safe."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[ReplicaInfo, Any]] = {}

    def complete(self, table: RouteTable) -> ModelRoutes:
        """Return a table with what was told before.

        Raises:
            KeyError: that was forgotten; the router is to tell everything again.
        """
        self._known |= table.news
        replicas = tuple((route, *self._known[route.replica_id]) for route in table.routes)
        return ModelRoutes(
            table.key,
            table.generation,
            table.version,
            replicas,
            table.refusals,
            table.expects_more,
        )

    def keep(self, models: Iterable[ModelRoutes]) -> None:
        """Forget all replicas but those of these models."""
        kept = {route.replica_id for model in models for route, _, _ in model.replicas}
        self._known = {each: told for each, told in self._known.items() if each in kept}
