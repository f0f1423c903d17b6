"""`Record`: what is noted while a simulation runs, for figures to be made of afterwards."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from atriva_ray.simulation.idleness import IdleSpells, Waits
from atriva_ray.simulation.workload import Workload

__all__ = ["Record"]

_NOISE_S = 1e-9
"""Waits that are shorter come of rounding: what came and went at once."""


class Record:
    """When requests and replicas waited.

    Attributes:
        journey_s: how long a request travels to a replica.
        arrived_s: by request, when it came to the replica that has it; NaN: it has not.
        started_s: by request, when that replica began to run it; NaN: it has not.
        spells: four numbers for each spell in which a replica could have run one more request:
            the replica, begin, end, and its mean service time; times in seconds.
    """

    def __init__(self, workload: Workload, journey_s: float) -> None:
        self.journey_s = journey_s
        self.arrived_s = [np.nan] * len(workload)
        self.started_s = [np.nan] * len(workload)
        self.spells = array("d")
        self._came_s = workload.times_s
        self._lost_s: dict[int, float] = {}
        self._waits = array("d")

    def waited(self, request: int, begin_s: float, end_s: float) -> None:
        """Note a wait that is none for a replica, nor in the queue of one."""
        self._waits.extend((request, begin_s, end_s))

    def lost(self, request: int, now_s: float) -> None:
        """Note that a replica lost a request: it waits again, as if it came now."""
        came_s = self._lost_s.get(request, self._came_s[request])
        arrived_s, started_s = self.arrived_s[request], self.started_s[request]
        self.waited(request, came_s, arrived_s - self.journey_s)
        self.waited(request, arrived_s, now_s if np.isnan(started_s) else started_s)
        self.arrived_s[request] = self.started_s[request] = np.nan
        self._lost_s[request] = now_s

    def waits(self, counts: npt.NDArray[np.bool_], ended_s: float) -> Waits:
        """Return the waits of some requests; those that did not end ended at the end."""
        came_s = self._came_s.copy()
        came_s[list(self._lost_s)] = list(self._lost_s.values())
        arrived_s = np.array(self.arrived_s)
        started_s = np.array(self.started_s)
        sent_s = np.where(np.isnan(arrived_s), ended_s, arrived_s - self.journey_s)
        started_s[np.isnan(started_s)] = ended_s
        more = np.array(self._waits).reshape(-1, 3).T
        numbers = np.arange(len(came_s))
        queued = ~np.isnan(arrived_s)
        requests = np.concatenate((numbers, numbers[queued], more[0].astype(np.int64)))
        begin_s = np.concatenate((came_s, arrived_s[queued], more[1]))
        end_s = np.concatenate((sent_s, started_s[queued], more[2]))
        chosen = counts[requests] & (end_s - begin_s > _NOISE_S)
        return Waits(requests[chosen], begin_s[chosen], end_s[chosen])

    def idle_spells(self) -> IdleSpells:
        """Return the spells."""
        replicas, begin_s, end_s, service_time_s = np.array(self.spells).reshape(-1, 4).T
        return IdleSpells(replicas.astype(np.int64), begin_s, end_s, service_time_s)
