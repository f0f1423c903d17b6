"""`ModelRoutes`: the router's answer to which replicas a program may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atriva_ray.replica import ReplicaInfo
from atriva_ray.routing.balance import Route

__all__ = ["ModelRoutes"]


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """The replicas of one model that a client may use.

    Attributes:
        key: what the router knows the model by.
        generation: which load of that key this is.
        version: the router's version that this is true of.
        replicas: route, self-description and actor handle of each; empty while all restart.
        refusals: why devices that were tried do not run the model, by ``node/device``.
        expects_more: whether another device compiles the model to answer for those in use.
    """

    key: str
    generation: int
    version: int
    replicas: tuple[tuple[Route, ReplicaInfo, Any], ...]
    refusals: Mapping[str, str] = field(default_factory=dict)
    expects_more: bool = False
