"""How one request reaches a replica and its answer comes back: the seam where carriers fit in."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np

from atriva_inference.binding import BoundInputs
from atriva_inference.executor import Outputs
from atriva_inference.profiling import Profile
from atriva_inference.shape_cache import ShapeCacheInfo
from atriva_ray.replica import Answer

__all__ = ["ActorCarrier", "Carrier", "own"]


class Carrier(Protocol):
    """A connection from this process to one replica."""

    def send(self, bound: BoundInputs) -> Future[Answer]:
        """Send a request without blocking; the future fails if the replica's process ends."""
        ...

    def profile(self, bound: BoundInputs | None, runs: int) -> Future[Profile]:
        """Have the replica profile its model."""
        ...

    def shape_cache_info(self) -> Future[ShapeCacheInfo]:
        """Ask for the state of the replica's shape cache."""
        ...


class ActorCarrier:
    """Carries requests as Ray actor calls: works from everywhere Ray works.

    Arrays above 100 kB go through the object store: copied once into it here, mapped by the
    replica, and never through the router.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def send(self, bound: BoundInputs) -> Future[Answer]:
        """Send a request as one actor call."""
        answer: Future[Answer] = self._actor.infer.remote(bound.arrays, bound.signature).future()
        return answer

    def profile(self, bound: BoundInputs | None, runs: int) -> Future[Profile]:
        """Have the replica profile its model."""
        arrays = None if bound is None else bound.arrays
        profile: Future[Profile] = self._actor.profile.remote(arrays, runs).future()
        return profile

    def shape_cache_info(self) -> Future[ShapeCacheInfo]:
        """Ask for the state of the replica's shape cache."""
        info: Future[ShapeCacheInfo] = self._actor.shape_cache_info.remote().future()
        return info


def own(outputs: Mapping[str, Any]) -> Outputs:
    """Copy arrays out of Ray's read-only memory, so that they are the caller's as in one process.

    Holding on to a mapped array would also keep its whole object in the store.
    """
    return {
        name: array if array.flags.writeable else np.array(array) for name, array in outputs.items()
    }
