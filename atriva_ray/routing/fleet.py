"""Which replicas there are: started, replaced and stopped, and what they hold."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import count

from atriva_ray.routing import stand_ins
from atriva_ray.routing.messages import Instruction, StartReplica, StopReplica
from atriva_ray.routing.placement import Placement, Seat, assign
from atriva_ray.routing.state import ModelState, Phase, ReplicaState

__all__ = ["Fleet"]

_LAST_RESTART_DELAY_S = 30.0


class Fleet:
    """The replicas of all models; what `RouterCore` stands on."""

    def __init__(self) -> None:
        self.version = 0
        self._models: dict[str, ModelState] = {}
        self._now_s = 0.0
        self._numbers = count(1)

    def _start(
        self,
        state: ModelState,
        placement: Placement,
        delay_s: float = 0.0,
        *,
        reserves: bool = True,
    ) -> StartReplica:
        replica_id = f"{state.request.key}#{next(self._numbers)}"
        state.replicas[replica_id] = ReplicaState(placement, reserves=reserves)
        request = state.request if reserves else replace(state.request, reserve_cpus=False)
        return StartReplica(replica_id, request, placement, delay_s)

    def _start_stand_in(
        self, state: ModelState, placement: Placement, delay_s: float = 0.0
    ) -> StartReplica:
        """Start one that reserves no CPUs, as it goes soon; again and again, later and later."""
        started = self._start(state, placement, delay_s, reserves=False)
        if delay_s:
            state.restart_delay_s = min(_LAST_RESTART_DELAY_S, 2 * delay_s)
        replica = state.replicas[started.replica_id]
        replica.is_stand_in, replica.is_replacement = True, bool(delay_s)
        return started

    def _after(self, first: StartReplica, others: list[StartReplica]) -> list[StartReplica]:
        """Have a replica begin before others on its node."""
        node_id = first.placement.seat.node_id
        return [
            first,
            *(
                replace(each, after=first.replica_id)
                if each.placement.seat.node_id == node_id
                else each
                for each in others
            ),
        ]

    def _start_replacement(
        self, state: ModelState, placement: Placement, *, reserves: bool = True
    ) -> StartReplica:
        started = self._start(state, placement, state.restart_delay_s, reserves=reserves)
        state.restart_delay_s = min(_LAST_RESTART_DELAY_S, 2 * state.restart_delay_s)
        state.replicas[started.replica_id].is_replacement = True
        return started

    def _elsewhere(self, state: ModelState, placement: Placement) -> Placement:
        """Return the next seat of the model's group, or the same one if there is no other."""
        seats = state.seats
        if not seats:
            return placement
        place = seats.index(placement.seat) if placement.seat in seats else -1
        seat = seats[(place + 1) % len(seats)]
        asked = state.request.cpus_per_replica
        if not seat.takes_cpus:
            return Placement(seat, 0)
        if asked is not None:
            return Placement(seat, asked)
        totals = {node.node_id: node.cpu_count for node in state.nodes}
        free = math.floor(totals[seat.node_id] - self._granted_cpus().get(seat.node_id, 0))
        return Placement(seat, max(0, min(max(1, placement.cpu_count), free)))

    def _owner(self, replica_id: str) -> ModelState | None:
        for state in self._models.values():
            if replica_id in state.replicas:
                return state
        return None

    def _granted_cpus(self) -> dict[str, float]:
        granted: Counter[str] = Counter()
        for state in self._models.values():
            for replica in state.replicas.values():
                reserves = state.request.reserve_cpus and replica.reserves
                reserved = replica.placement.cpu_count if reserves else 0
                granted[replica.placement.seat.node_id] += reserved
        return dict(granted)

    def _placed(self, state: ModelState, seat: Seat) -> Placement:
        cpus = state.request.cpus_per_replica
        (placement,) = assign([seat], state.nodes, self._granted_cpus(), 1, cpus)
        return placement

    def _stop_stand_ins(self, state: ModelState) -> list[Instruction]:
        stopped = stand_ins.superfluous(state, self._now_s)
        for replica_id in stopped:
            self.version += state.replicas.pop(replica_id).phase is Phase.READY
        return [StopReplica(replica_id) for replica_id in stopped]

    def _recall(self, state: ModelState) -> None:
        self.version += stand_ins.recall(state, self._now_s)
