"""The router's mind: events go in, instructions come out, and nothing else happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import count

from atriva_inference.errors import CompileError, InferenceRuntimeError
from atriva_ray.errors import ModelNameConflictError, ModelNotLoadedError, ReplicaLostError
from atriva_ray.routing import stand_ins
from atriva_ray.routing.balance import Route
from atriva_ray.routing.fleet import Fleet
from atriva_ray.routing.messages import (
    Grant,
    Instruction,
    ModelRequest,
    Refuse,
    StopReplica,
)
from atriva_ray.routing.placement import Node, assign, find_seats, seat_rank, with_cpus
from atriva_ray.routing.priority import higher, taken_seats, yielding
from atriva_ray.routing.state import FIRST_RESTART_DELAY_S, ModelState, Phase

__all__ = ["CLIENT_LEASE_S", "RouterCore"]

CLIENT_LEASE_S = 15.0
"""A client that was not heard of for this long has died."""

_MAX_DEATHS_BEFORE_READY = 3
"""A model that kills every process that compiles it is given up after so many."""

_MAX_FAILED_REPLACEMENTS = 6
"""A model without any replica is given up after so many replacements in a row failed to start."""

_STABLE_S = 30.0
"""A replica that was ready for this long is no part of a row of deaths."""


class RouterCore(Fleet):
    """All models of one cluster: who uses them, where they run, what to do next.

    Every method that takes an event returns instructions for the shell around it. `version` grows
    with every change that clients should hear of.
    """

    def __init__(self, first_generation: int = 1) -> None:
        """Start with no models.

        Args:
            first_generation: number of the first load, above those of any router before this one.
        """
        super().__init__()
        self._clients: dict[str, float] = {}
        self._generations = count(first_generation)

    # -- events --------------------------------------------------------------------------------

    def client_seen(self, client_id: str, now_s: float) -> None:
        """Note a sign of life."""
        self._now_s = now_s
        self._clients[client_id] = now_s

    def clock_ticked(self, now_s: float) -> list[Instruction]:
        """Take away models of clients that were silent for their lease; try what was set aside."""
        self._now_s = now_s
        instructions: list[Instruction] = []
        for client_id, seen_s in list(self._clients.items()):
            if now_s - seen_s > CLIENT_LEASE_S:
                instructions += self.client_left(client_id)
        for state in list(self._models.values()):
            self.version += stand_ins.try_again(state, now_s)
            instructions += self._settle(state)
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
            found = find_seats(nodes, request.device, request.options.hint)
            groups = with_cpus(found, nodes, request.cpus_per_replica)
            groups = yielding(groups, request, taken_seats(self._models.values()))
        except InferenceRuntimeError as error:
            return [Refuse(ticket, error)]
        state = self._models[request.key] = ModelState(
            request, next(self._generations), nodes, groups, priority=request.auto.model_priority
        )
        state.spare = stand_ins.left_out(found, groups, request.cpus_per_replica)
        state.waiting.append(ticket)
        state.users[client_id] += 1
        return self._try_next_group(state)

    def replica_ready(self, replica_id: str, slot_count: int) -> list[Instruction]:
        """Use a replica that compiled its model."""
        state = self._owner(replica_id)
        if state is None:
            return [StopReplica(replica_id)]
        replica = state.replicas[replica_id]
        replica.phase = Phase.READY
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
        is_refusal = isinstance(error, CompileError)
        if is_refusal or replica.is_stand_in or state.is_falling_back:
            state.reasons[replica.placement.seat.label] = stand_ins.reason_of(error)
            self.version += 1  # clients are told why
        if replica.is_stand_in:
            return self._lose_stand_in(state)
        if is_refusal:
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
        was_ready = replica.phase is not Phase.STARTING
        label = replica.placement.seat.label
        if replica.is_stand_in:
            if was_ready:
                self._recall(state)
                return [self._start_stand_in(state, replica.placement, state.restart_delay_s)]
            state.reasons[label] = "its process ended while it compiled"
            return self._lose_stand_in(state)
        is_first_start = not was_ready and not replica.is_replacement
        if is_first_start and (not state.has_served or state.stand_ins):
            state.deaths_before_ready += 1
            if state.deaths_before_ready >= _MAX_DEATHS_BEFORE_READY:
                lost = ReplicaLostError(state.request.name, state.deaths_before_ready, label)
                if not state.stand_ins:
                    return self._give_up(state, lost)
                state.reasons[label] = str(lost)
                return self._settle(state)
        if was_ready and self._now_s - replica.ready_s >= _STABLE_S:
            state.restart_delay_s = FIRST_RESTART_DELAY_S
        started = self._start_replacement(state, replica.placement, reserves=replica.reserves)
        state.replicas[started.replica_id].is_replacement = was_ready or replica.is_replacement
        self._recall(state)
        return [started]

    def replica_failing(
        self, replica_id: str, now_s: float, *, is_proven: bool
    ) -> list[Instruction]:
        """Note that a device failed while it ran a request.

        Args:
            replica_id: where.
            now_s: when.
            is_proven: whether another replica has answered the same request, so that it was not the
                request's fault. Such a replica is set aside and tried again later; without proof,
                and where there is no other replica, one is started for a second opinion.
        """
        self._now_s = now_s
        state = self._owner(replica_id)
        if state is None or state.replicas[replica_id].phase is not Phase.READY:
            return []
        if is_proven:
            self.version += stand_ins.set_aside(state, replica_id, now_s)
            return []
        seat = stand_ins.second_opinion(state, now_s)
        if seat is None:
            return []
        self.version += 1
        return [self._start_stand_in(state, self._placed(state, seat))]

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
                seat_rank(replica.placement.seat, state.request.device),
            )
            for replica_id, replica in state.replicas.items()
            if replica.phase is Phase.READY
        )

    def refusals(self, key: str) -> Mapping[str, str]:
        """Return why devices, as ``node/device``, do not run the model."""
        return dict(self._models[key].reasons)

    def expects_stand_in(self, key: str) -> bool:
        """Whether one more replica will be there soon, for requests that failed on all others."""
        state = self._models.get(key)
        replicas = [] if state is None else state.stand_ins.values()
        return any(replica.phase is Phase.STARTING for replica in replicas)

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
        state: ModelState,
        request: ModelRequest,
        nodes: Sequence[Node],
    ) -> list[Instruction]:
        difference = state.request.difference(request)
        if difference is not None:
            return [Refuse(ticket, ModelNameConflictError(request.name, difference))]
        state.users[client_id] += 1
        state.waiting.append(ticket)
        state.priority = higher(state.priority, request.auto.model_priority)
        wanted = request.replica_count or 0
        state.replica_count = max(state.replica_count, wanted)
        alive = {node.node_id for node in nodes}
        used = Counter(replica.placement.seat for replica in state.regulars.values())
        seats = sorted(
            (
                seat
                for seat in state.seats
                if seat.node_id in alive and (seat in used or seat.label not in state.reasons)
            ),
            key=lambda seat: used[seat],
        )
        missing = wanted - len(state.regulars)
        if missing <= 0 or not seats:
            return self._settle(state)
        return [
            self._start(state, placement)
            for placement in assign(
                seats, nodes, self._granted_cpus(), missing, request.cpus_per_replica
            )
        ]

    def _try_next_group(self, state: ModelState) -> list[Instruction]:
        if not state.groups:
            if stand_ins.promote(state, None):
                return self._settle(state)
            request = state.request
            return self._give_up(
                state, CompileError(request.path, request.device.text, state.reasons)
            )
        state.seats = state.groups.pop(0)
        state.deaths_before_ready = 0
        promoted = stand_ins.promote(state, state.seats)
        placements = assign(
            sorted(state.seats, key=promoted.__contains__),
            state.nodes,
            self._granted_cpus(),
            max(state.request.replica_count or len(state.seats), state.replica_count)
            - len(promoted),
            state.request.cpus_per_replica,
        )
        started = [self._start(state, placement) for placement in placements]
        seat = None if promoted else stand_ins.startup_seat(state)
        if seat is not None:
            state.is_falling_back = True
            started = self._after(self._start_stand_in(state, self._placed(state, seat)), started)
        return started + (self._settle(state) if promoted else [])

    def _settle(self, state: ModelState) -> list[Instruction]:
        """Answer whoever waits, once every replica that was started has said how it went.

        Where a stand-in was started, once the first of them can answer.
        """
        stopped = self._stop_stand_ins(state)
        if not state.regulars:
            return stopped + self._try_next_group(state)
        if state.is_starting and not (state.is_falling_back and state.has_ready):
            return stopped
        if not state.has_ready:
            return stopped
        state.is_falling_back = state.is_starting or not state.has_regular_ready
        if state.waiting:
            self.version += 1  # an older answer about this client's models lacks this one
        granted: list[Instruction] = [Grant(ticket, state.request.key) for ticket in state.waiting]
        state.waiting.clear()
        return stopped + granted

    def _give_up(self, state: ModelState, error: InferenceRuntimeError) -> list[Instruction]:
        refused: list[Instruction] = [Refuse(ticket, error) for ticket in state.waiting]
        state.waiting.clear()
        return refused + self._drop(state)

    def _drop(self, state: ModelState) -> list[Instruction]:
        key = state.request.key
        del self._models[key]
        self.version += 1
        gone = ModelNotLoadedError(state.request.name, sorted(self._models))
        refused: list[Instruction] = [Refuse(ticket, gone) for ticket in state.waiting]
        return refused + [StopReplica(replica_id) for replica_id in state.replicas]

    def _lose_stand_in(self, state: ModelState) -> list[Instruction]:
        """Have another one stand in for replicas that still compile, if there is one."""
        self.version += 1  # requests may wait for it
        self._recall(state)
        seat = stand_ins.startup_seat(state)
        if seat is None:
            return self._settle(state)
        return [self._start_stand_in(state, self._placed(state, seat))]
