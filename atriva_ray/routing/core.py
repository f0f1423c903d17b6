"""The router's mind: events go in, instructions come out, and nothing else happens."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count

from atriva_inference.device import device_rank
from atriva_inference.errors import CompileError, InferenceRuntimeError
from atriva_ray.errors import ModelNameConflictError, ModelNotLoadedError, ReplicaLostError
from atriva_ray.routing.balance import Route
from atriva_ray.routing.messages import (
    Grant,
    Instruction,
    ModelRequest,
    Refuse,
    StartReplica,
    StopReplica,
)
from atriva_ray.routing.placement import Node, Placement, Seat, assign, find_seats, with_cpus

__all__ = ["CLIENT_LEASE_S", "RouterCore"]

CLIENT_LEASE_S = 15.0
"""A client that was not heard of for this long has died."""

_MAX_DEATHS_BEFORE_READY = 3
"""A model that kills every process that compiles it is given up after so many."""

_MAX_FAILED_REPLACEMENTS = 6
"""A model without any replica is given up after so many replacements in a row failed to start."""

_FIRST_RESTART_DELAY_S = 0.1
_LAST_RESTART_DELAY_S = 30.0
_STABLE_S = 30.0
"""A replica that was ready for this long is no part of a row of deaths."""


class _Phase(Enum):
    STARTING = "starting"
    READY = "ready"


@dataclass(slots=True)
class _Replica:
    placement: Placement
    phase: _Phase = _Phase.STARTING
    slot_count: int = 0
    ready_s: float = 0.0
    is_replacement: bool = False


@dataclass(slots=True)
class _ModelState:
    request: ModelRequest
    generation: int
    nodes: Sequence[Node]
    groups: list[list[Seat]]
    seats: list[Seat] = field(default_factory=list)
    replica_count: int = 0
    replicas: dict[str, _Replica] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    users: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    restart_delay_s: float = _FIRST_RESTART_DELAY_S
    deaths_before_ready: int = 0
    failed_replacements: int = 0

    @property
    def is_starting(self) -> bool:
        return any(
            replica.phase is _Phase.STARTING and not replica.is_replacement
            for replica in self.replicas.values()
        )

    @property
    def has_ready(self) -> bool:
        return any(replica.phase is _Phase.READY for replica in self.replicas.values())

    @property
    def has_served(self) -> bool:
        """Whether some replica is ready, or stands in for one that was."""
        return self.has_ready or any(replica.is_replacement for replica in self.replicas.values())


class RouterCore:
    """All models of one cluster: who uses them, where they run, what to do next.

    Every method that takes an event returns instructions for the shell around it. `version` grows
    with every change that clients should hear of.
    """

    def __init__(self, first_generation: int = 1) -> None:
        """Start with no models.

        Args:
            first_generation: number of the first load, above those of any router before this one.
        """
        self.version = 0
        self._models: dict[str, _ModelState] = {}
        self._clients: dict[str, float] = {}
        self._now_s = 0.0
        self._numbers = count(1)
        self._generations = count(first_generation)

    # -- events --------------------------------------------------------------------------------

    def client_seen(self, client_id: str, now_s: float) -> None:
        """Note a sign of life."""
        self._now_s = now_s
        self._clients[client_id] = now_s

    def clock_ticked(self, now_s: float) -> list[Instruction]:
        """Take away the models of clients that were silent for longer than their lease."""
        self._now_s = now_s
        instructions: list[Instruction] = []
        for client_id, seen_s in list(self._clients.items()):
            if now_s - seen_s > CLIENT_LEASE_S:
                instructions += self.client_left(client_id)
        return instructions

    def client_left(self, client_id: str) -> list[Instruction]:
        """Release everything a client used."""
        self._clients.pop(client_id, None)
        instructions: list[Instruction] = []
        for key in list(self._models):
            users = self._models[key].users
            if client_id in users:
                users[client_id] = 1
                instructions += self.model_released(client_id, key, self.generation(key))
        return instructions

    def model_requested(
        self, ticket: int, client_id: str, request: ModelRequest, nodes: Sequence[Node]
    ) -> list[Instruction]:
        """Share a loaded model, or start replicas on the most preferred devices."""
        self._clients.setdefault(client_id, self._now_s)  # it may have left while it asked
        state = self._models.get(request.key)
        if state is not None:
            return self._share(ticket, client_id, state, request, nodes)
        try:
            groups = find_seats(nodes, request.device, request.options.hint)
            groups = with_cpus(groups, nodes, request.cpus_per_replica)
        except InferenceRuntimeError as error:
            return [Refuse(ticket, error)]
        state = self._models[request.key] = _ModelState(
            request, next(self._generations), nodes, groups
        )
        state.waiting.append(ticket)
        state.users[client_id] += 1
        return self._try_next_group(state)

    def replica_ready(self, replica_id: str, slot_count: int) -> list[Instruction]:
        """Use a replica that compiled its model."""
        state = self._owner(replica_id)
        if state is None:
            return [StopReplica(replica_id)]
        replica = state.replicas[replica_id]
        replica.phase = _Phase.READY
        replica.slot_count = slot_count
        replica.ready_s = self._now_s
        state.failed_replacements = 0
        self.version += 1
        return self._settle(state)

    def replica_failed(self, replica_id: str, error: InferenceRuntimeError) -> list[Instruction]:
        """Try elsewhere when a device refused the model; give up when no other could take it."""
        state = self._owner(replica_id)
        if state is None:
            return []
        replica = state.replicas.pop(replica_id)
        if isinstance(error, CompileError):
            reasons = "; ".join(error.reasons.values())
            state.reasons[replica.placement.seat.label] = reasons
            return self._settle(state)
        state.failed_replacements += replica.is_replacement
        is_hopeless = state.failed_replacements >= _MAX_FAILED_REPLACEMENTS and not state.has_ready
        if replica.is_replacement and not is_hopeless:  # its node may be gone: start elsewhere
            return [self._start_replacement(state, self._elsewhere(state, replica.placement))]
        if state.has_served and not is_hopeless:
            return self._settle(state)
        return self._give_up(state, error)

    def replica_died(self, replica_id: str) -> list[Instruction]:
        """Replace a replica whose process ended without being told to, later and later."""
        state = self._owner(replica_id)
        if state is None:
            return []
        replica = state.replicas.pop(replica_id)
        self.version += 1
        was_ready = replica.phase is _Phase.READY
        if not state.has_served and not was_ready and not replica.is_replacement:
            state.deaths_before_ready += 1
            if state.deaths_before_ready >= _MAX_DEATHS_BEFORE_READY:
                label = replica.placement.seat.label
                return self._give_up(
                    state, ReplicaLostError(state.request.name, state.deaths_before_ready, label)
                )
        if was_ready and self._now_s - replica.ready_s >= _STABLE_S:
            state.restart_delay_s = _FIRST_RESTART_DELAY_S
        started = self._start_replacement(state, replica.placement)
        state.replicas[started.replica_id].is_replacement = was_ready or replica.is_replacement
        return [started]

    def model_released(self, client_id: str, key: str, generation: int) -> list[Instruction]:
        """One `close` of one client; the model goes when nobody uses it any more.

        Closing what was unloaded meanwhile does nothing, also if the key was loaded again since.
        """
        state = self._models.get(key)
        if state is None or state.generation != generation or client_id not in state.users:
            return []
        state.users[client_id] -= 1
        if state.users[client_id] <= 0:
            del state.users[client_id]
            self.version += 1
        return [] if state.users else self._drop(state)

    def model_unloaded(self, name: str) -> list[Instruction]:
        """Take a model away from everybody.

        Raises:
            ModelNotLoadedError: there is none of this name.
        """
        return self._drop(self._models[self.resolve(name)])

    # -- what there is -------------------------------------------------------------------------

    def resolve(self, name: str) -> str:
        """Return the key of a model by its key, or by its name where only one has it.

        Raises:
            ModelNotLoadedError: no model, or more than one, has this name.
        """
        if name in self._models:
            return name
        keys = [key for key, state in self._models.items() if state.request.name == name]
        if len(keys) != 1:
            raise ModelNotLoadedError(name, sorted(keys or self._models))
        return keys[0]

    def routes(self, key: str) -> tuple[Route, ...] | None:
        """Return the replicas of a model that are ready; None if it is not loaded."""
        state = self._models.get(key)
        if state is None:
            return None
        return tuple(
            Route(
                replica_id,
                replica.placement.seat.label,
                replica.slot_count,
                device_rank(replica.placement.seat.device),
            )
            for replica_id, replica in state.replicas.items()
            if replica.phase is _Phase.READY
        )

    def generation(self, key: str) -> int:
        """Return the number of this load of the model; a later load has a higher one."""
        return self._models[key].generation

    def granted_cpus(self, node_id: str) -> float:
        """Return the CPUs that replicas on a node hold."""
        return self._granted_cpus().get(node_id, 0)

    def keys_of(self, client_id: str) -> list[str]:
        """Return the models that a client uses."""
        return [key for key, state in self._models.items() if client_id in state.users]

    @property
    def clients(self) -> Collection[str]:
        """The clients that were heard of of late."""
        return self._clients.keys()

    def users(self, key: str) -> list[str]:
        """Return the clients that use a model."""
        return list(self._models[key].users)

    def requests(self) -> Mapping[str, ModelRequest]:
        """Return what is loaded, by key."""
        return {key: state.request for key, state in self._models.items()}

    # -- how -----------------------------------------------------------------------------------

    def _share(
        self,
        ticket: int,
        client_id: str,
        state: _ModelState,
        request: ModelRequest,
        nodes: Sequence[Node],
    ) -> list[Instruction]:
        difference = state.request.difference(request)
        if difference is not None:
            return [Refuse(ticket, ModelNameConflictError(request.name, difference))]
        state.users[client_id] += 1
        state.waiting.append(ticket)
        wanted = request.replica_count or 0
        state.replica_count = max(state.replica_count, wanted)
        alive = {node.node_id for node in nodes}
        used = Counter(replica.placement.seat for replica in state.replicas.values())
        seats = sorted(
            (
                seat
                for seat in state.seats
                if seat.node_id in alive and (seat in used or seat.label not in state.reasons)
            ),
            key=lambda seat: used[seat],
        )
        missing = wanted - len(state.replicas)
        if missing <= 0 or not seats:
            return self._settle(state)
        return [
            self._start(state, placement)
            for placement in assign(
                seats, nodes, self._granted_cpus(), missing, request.cpus_per_replica
            )
        ]

    def _try_next_group(self, state: _ModelState) -> list[Instruction]:
        if not state.groups:
            request = state.request
            return self._give_up(
                state, CompileError(request.path, request.device.text, state.reasons)
            )
        state.seats = state.groups.pop(0)
        placements = assign(
            state.seats,
            state.nodes,
            self._granted_cpus(),
            max(state.request.replica_count or len(state.seats), state.replica_count),
            state.request.cpus_per_replica,
        )
        return [self._start(state, placement) for placement in placements]

    def _settle(self, state: _ModelState) -> list[Instruction]:
        """Answer whoever waits, once every replica that was started has said how it went."""
        if state.is_starting:
            return []
        if not state.has_ready and not state.replicas:
            return self._try_next_group(state)
        if not state.has_ready:
            return []
        if state.waiting:
            self.version += 1  # an older answer about this client's models lacks this one
        granted: list[Instruction] = [Grant(ticket, state.request.key) for ticket in state.waiting]
        state.waiting.clear()
        return granted

    def _give_up(self, state: _ModelState, error: InferenceRuntimeError) -> list[Instruction]:
        refused: list[Instruction] = [Refuse(ticket, error) for ticket in state.waiting]
        state.waiting.clear()
        return refused + self._drop(state)

    def _drop(self, state: _ModelState) -> list[Instruction]:
        key = state.request.key
        del self._models[key]
        self.version += 1
        gone = ModelNotLoadedError(state.request.name, sorted(self._models))
        refused: list[Instruction] = [Refuse(ticket, gone) for ticket in state.waiting]
        return refused + [StopReplica(replica_id) for replica_id in state.replicas]

    def _start(
        self, state: _ModelState, placement: Placement, delay_s: float = 0.0
    ) -> StartReplica:
        replica_id = f"{state.request.key}#{next(self._numbers)}"
        state.replicas[replica_id] = _Replica(placement)
        return StartReplica(replica_id, state.request, placement, delay_s)

    def _start_replacement(self, state: _ModelState, placement: Placement) -> StartReplica:
        started = self._start(state, placement, state.restart_delay_s)
        state.restart_delay_s = min(_LAST_RESTART_DELAY_S, 2 * state.restart_delay_s)
        state.replicas[started.replica_id].is_replacement = True
        return started

    def _elsewhere(self, state: _ModelState, placement: Placement) -> Placement:
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
        free = math.floor(totals[seat.node_id] - self.granted_cpus(seat.node_id))
        return Placement(seat, max(0, min(max(1, placement.cpu_count), free)))

    def _owner(self, replica_id: str) -> _ModelState | None:
        for state in self._models.values():
            if replica_id in state.replicas:
                return state
        return None

    def _granted_cpus(self) -> dict[str, float]:
        granted: Counter[str] = Counter()
        for state in self._models.values():
            for replica in state.replicas.values():
                reserved = replica.placement.cpu_count if state.request.reserve_cpus else 0
                granted[replica.placement.seat.node_id] += reserved
        return dict(granted)
