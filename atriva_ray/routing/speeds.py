"""`Speeds`: which replicas are about equally fast, as far as was measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

__all__ = ["Speeds"]

_STAYS = 0.75
"""A replica stays in its class until it is so many octaves from the middle: one between two classes
would change all the time, and clients' homes with it."""


class Speeds:
    """Classes of speed, an octave each, that replicas leave only when they have really changed."""

    def __init__(self) -> None:
        self._classes: dict[str, int] = {}

    def of(self, replica_id: str) -> int | None:
        """Return the class of a replica; None: it has not been measured."""
        return self._classes.get(replica_id)

    def measured(self, service_times_s: Mapping[str, float | None]) -> bool:
        """Take over what requests take replicas; returns whether any is in another class now."""
        has_changed = False
        for replica_id, service_time_s in service_times_s.items():
            if not service_time_s:
                continue
            octaves = math.log2(service_time_s)
            before = self._classes.get(replica_id)
            if before is None or abs(octaves - before) > _STAYS:
                self._classes[replica_id] = round(octaves)
                has_changed = True
        return has_changed

    def keep(self, replica_ids: Collection[str]) -> None:
        """Forget all replicas but these."""
        self._classes = {each: at for each, at in self._classes.items() if each in replica_ids}
