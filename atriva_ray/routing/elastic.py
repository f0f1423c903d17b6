"""The router's mind where numbers of replicas follow the load, and idle models give way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from atriva_inference.errors import InferenceRuntimeError
from atriva_ray.routing.core import RouterCore
from atriva_ray.routing.messages import Instruction, ModelRequest, StartReplica, StopReplica
from atriva_ray.routing.placement import Node, Placement, Seat, assign, find_seats, with_cpus
from atriva_ray.routing.reports import LoadBook
from atriva_ray.routing.scaling import Scaler
from atriva_ray.routing.shares import Crew, Member, share_out
from atriva_ray.routing.state import ModelState, Phase

__all__ = ["ElasticCore", "Shortage"]

_BARRED_S = 60.0
"""A node where a replica could not be added is left alone for so long."""


@dataclass(frozen=True, slots=True)
class Shortage:
    """CPUs that a model wants and no node has free.

    Attributes:
        replica_count: replicas that find no place.
        cpus_each: CPUs of each.
    """

    replica_count: int
    cpus_each: int


@dataclass(slots=True)
class _Limits:
    """What the programs that share a model ask for together, and where it stands.

    The most of what each of them asked for holds: the larger number, the longer time.
    """

    max_count: int
    idle_s: float | None
    scaler: Scaler
    cpus_each: int = 1
    is_asleep: bool = False
    lacking: int = 0
    promised: int = 0
    seat_count: int = 0
    starts_s: float = 0.0
    barred: dict[str, tuple[float, str]] = field(default_factory=dict)


class ElasticCore(RouterCore):
    """All models of one cluster, in the number that their load asks for.

    A replica that is added for load keeps nobody waiting: if it cannot be started, the model goes
    on without it, and its node is left alone for a while.

    Attributes:
        loads: the newest reports.
        leaving: what replicas that were stopped hold, until whoever carries that out removes them.
    """

    def __init__(self, first_generation: int = 1) -> None:
        """Start with no models; see `RouterCore`."""
        super().__init__(first_generation)
        self.loads = LoadBook()
        self._limits: dict[int, _Limits] = {}
        self.leaving: dict[str, Placement] = {}
        self._extras: dict[str, float] = {}

    # -- events --------------------------------------------------------------------------------

    def judge(self, now_s: float) -> tuple[list[Instruction], set[str]]:
        """Look at every model's load: send idle ones to sleep, and say what the others want.

        Returns:
            Instructions, and the backends whose nodes `allot` has to know.
        """
        self._now_s = max(self._now_s, now_s)
        there = {state.generation for state in self._models.values()}
        self._limits = {key: value for key, value in self._limits.items() if key in there}
        ids = {each for state in self._models.values() for each in state.replicas}
        self._extras = {each: self._extras[each] for each in ids & self._extras.keys()}
        self.loads.keep(ids, now_s)
        instructions: list[Instruction] = []
        backends = set()
        for state in list(self._models.values()):
            limits = self._limits_of(state)
            ready = [each for each, there in state.replicas.items() if there.phase is Phase.READY]
            if limits.is_asleep or not ready:
                continue
            load = self.loads.load_of(state.request.key, ready, now_s)
            minimum = self._minimum(state)
            wanted = limits.scaler.decide(
                now_s, load, len(ready), (minimum, max(minimum, limits.max_count)), limits.starts_s
            )
            is_busy = state.waiting or state.is_starting
            if not is_busy and limits.scaler.is_idle(now_s, limits.idle_s):
                instructions += self._rest(state, limits)
            elif limits.max_count > minimum and (
                wanted > len(state.replicas) or self._is_overbooked(state)
            ):
                backends.add(state.request.backend)
        return instructions, backends

    def allot(self, nodes: Mapping[str, Sequence[Node]]) -> list[Instruction]:
        """Start and stop replicas so that every model has what it wants, or its share.

        Args:
            nodes: the living nodes, for each backend that `judge` named; nothing is started where
                they are not known.
        """
        granted = self._granted_cpus()
        free = {
            node.node_id: node.cpu_count - granted.get(node.node_id, 0)
            for some in nodes.values()
            for node in some
        }
        for state in self._models.values():
            if state.request.backend in nodes:
                self._notice(state, nodes[state.request.backend])
        shares = share_out(self._crews(), free)
        for key, state in self._models.items():
            limits = self._limits_of(state)
            limits.lacking = shares.lacking.get(key, 0)
            limits.promised = shares.promised.get(key, 0)
        started: list[Instruction] = [
            self._start_extra(self._models[key], placement)
            for key, placements in shares.added.items()
            for placement in placements
        ]
        return started + [self._spare(replica_id) for replica_id in shares.spared]

    def is_asleep(self, key: str) -> bool:
        """Whether a model is loaded, and has no replicas because nobody asked for long."""
        state = self._models.get(key)
        return state is not None and self._limits_of(state).is_asleep

    def model_wanted(self, key: str, nodes: Sequence[Node]) -> list[Instruction]:
        """Start the replicas of a model again that was sent to sleep; else do nothing."""
        state = self._models.get(key)
        if state is None or not self._limits_of(state).is_asleep:
            return []
        return self._wake(state, nodes)

    def replica_ready(self, replica_id: str, slot_count: int) -> list[Instruction]:
        """See `RouterCore.replica_ready`."""
        began_s = self._extras.pop(replica_id, None)
        state = self._owner(replica_id)
        if state is not None and began_s is not None:
            self._limits_of(state).starts_s = max(0.0, self._now_s - began_s)
        return super().replica_ready(replica_id, slot_count)

    def replica_failed(self, replica_id: str, error: InferenceRuntimeError) -> list[Instruction]:
        """See `RouterCore.replica_failed`; one that was added for load is let go."""
        return self._without_extra(replica_id, str(error)) or super().replica_failed(
            replica_id, error
        )

    def replica_died(self, replica_id: str) -> list[Instruction]:
        """See `RouterCore.replica_died`; one that was added for load and never ready is let go."""
        return self._without_extra(replica_id, "its process ended") or super().replica_died(
            replica_id
        )

    # -- what there is -------------------------------------------------------------------------

    def shortages(self) -> dict[str, Shortage]:
        """Return, by key, for which models Ray should look for more CPUs, on new nodes maybe."""
        found = {}
        for key, state in self._models.items():
            limits = self._limits_of(state)
            on_processor = any(seat.takes_cpus for seat in state.seats)
            is_free_to_move = state.request.device.node is None and state.request.reserve_cpus
            if limits.lacking and on_processor and is_free_to_move:
                found[key] = Shortage(limits.lacking, limits.cpus_each)
        return found

    def scale_of(self, key: str) -> dict[str, Any]:
        """Return how many replicas a model has and wants, and why, as plain data."""
        state = self._models[key]
        limits = self._limits_of(state)
        minimum = self._minimum(state)
        ready_count = sum(each.phase is Phase.READY for each in state.replicas.values())
        return {
            "ready": ready_count,
            "starting": len(state.replicas) - ready_count,
            "wanted": 0 if limits.is_asleep else max(minimum, limits.scaler.wanted),
            "minimum": minimum,
            "maximum": max(minimum, limits.max_count),
            "asleep": limits.is_asleep,
            "why": self._why(limits),
        }

    # -- how -----------------------------------------------------------------------------------

    def _share(
        self,
        ticket: int,
        client_id: str,
        state: ModelState,
        request: ModelRequest,
        nodes: Sequence[Node],
    ) -> list[Instruction]:
        limits = self._limits_of(state)
        if state.request.difference(request) is None:
            limits.max_count = max(limits.max_count, request.max_count or 0)
            limits.idle_s = _longer(limits.idle_s, request.idle_s)
            limits.scaler.asked(self._now_s)
        if not limits.is_asleep or state.request.difference(request) is not None:
            instructions = super()._share(ticket, client_id, state, request, nodes)
            return self._sized(state, limits, instructions)
        state.users[client_id] += 1
        state.waiting.append(ticket)
        state.replica_count = max(state.replica_count, request.replica_count or 0)
        return self._wake(state, nodes)

    def _try_next_group(self, state: ModelState) -> list[Instruction]:
        """Start the minimum; each replica takes no more than it would have if all were there."""
        granted = self._granted_cpus()
        instructions = super()._try_next_group(state)
        limits = self._limits_of(state)
        limits.seat_count = len(state.seats)
        asked = state.request.cpus_per_replica
        all_of_them = assign(state.seats, state.nodes, granted, limits.max_count, asked)
        limits.cpus_each = max(1, min((p.cpu_count for p in all_of_them if p.cpu_count), default=1))
        return self._sized(state, limits, instructions)

    def _sized(
        self, state: ModelState, limits: _Limits, instructions: list[Instruction]
    ) -> list[Instruction]:
        """Leave room for the replicas that load may ask for."""
        if limits.max_count <= self._minimum(state):
            return instructions
        sized: list[Instruction] = []
        for each in instructions:
            if isinstance(each, StartReplica) and each.placement.cpu_count > limits.cpus_each:
                placement = replace(each.placement, cpu_count=limits.cpus_each)
                state.replicas[each.replica_id].placement = placement
                sized.append(replace(each, placement=placement))
            else:
                sized.append(each)
        return sized

    def _settle(self, state: ModelState) -> list[Instruction]:
        """See `RouterCore._settle`; a model that sleeps needs no replicas."""
        return [] if self._limits_of(state).is_asleep else super()._settle(state)

    def _minimum(self, state: ModelState) -> int:
        asked = state.request.replica_count or self._limits_of(state).seat_count
        return max(asked, state.replica_count)

    def _limits_of(self, state: ModelState) -> _Limits:
        limits = self._limits.get(state.generation)
        if limits is None:
            request = state.request
            limits = self._limits[state.generation] = _Limits(
                request.max_count or 0, request.idle_s, Scaler(1, self._now_s)
            )
        return limits

    def _crews(self) -> list[Crew]:
        """Return the models whose number of replicas may change now."""
        return [
            self._crew(state, limits)
            for state in self._models.values()
            for limits in (self._limits_of(state),)
            if limits.max_count > self._minimum(state) and not limits.is_asleep and state.has_ready
        ]

    def _session_count(self, replica_id: str) -> int:
        report = self.loads.report_of(replica_id)
        return 0 if report is None else report.session_count

    def _crew(self, state: ModelState, limits: _Limits) -> Crew:
        barred = {node for node, (end_s, _) in limits.barred.items() if end_s > self._now_s}
        return Crew(
            state.request.key,
            tuple(
                Member(
                    replica_id,
                    there.placement,
                    there.phase is Phase.READY,
                    self._session_count(replica_id),
                )
                for replica_id, there in state.replicas.items()
            ),
            tuple(
                seat
                for seat in state.seats
                if seat.node_id not in barred and seat.label not in state.reasons
            ),
            self._minimum(state),
            limits.scaler.wanted,
            limits.cpus_each,
            state.request.reserve_cpus,
        )

    def _spare(self, replica_id: str) -> Instruction:
        state = self._owner(replica_id)
        assert state is not None, "only replicas that there are can be spared"  # noqa: S101
        self.leaving[replica_id] = state.replicas.pop(replica_id).placement
        self.version += 1
        return StopReplica(replica_id)

    def _start_extra(self, state: ModelState, placement: Placement) -> Instruction:
        started = self._start(state, placement)
        state.replicas[started.replica_id].is_replacement = True  # no `load` waits for it
        self._extras[started.replica_id] = self._now_s
        return started

    def _without_extra(self, replica_id: str, reason: str) -> list[Instruction] | None:
        state = self._owner(replica_id)
        if state is None or self._extras.pop(replica_id, None) is None:
            return None
        replica = state.replicas.pop(replica_id)
        seat = replica.placement.seat
        note = f"none could be added on {seat.label}: {reason}"
        self._limits_of(state).barred[seat.node_id] = self._now_s + _BARRED_S, note
        return self._settle(state)

    def _rest(self, state: ModelState, limits: _Limits) -> list[Instruction]:
        limits.is_asleep = True
        limits.lacking = limits.promised = 0
        stopped: list[Instruction] = [StopReplica(each) for each in state.replicas]
        self.leaving |= {each: there.placement for each, there in state.replicas.items()}
        state.replicas.clear()
        self.version += 1
        return stopped

    def _wake(self, state: ModelState, nodes: Sequence[Node]) -> list[Instruction]:
        """Start the minimum again, where it was or where it is possible now."""
        limits = self._limits_of(state)
        self._notice(state, nodes)
        limits.is_asleep = False
        limits.seat_count = len(state.seats)
        minimum = self._minimum(state)
        limits.scaler = Scaler(minimum, self._now_s)
        cpus_each = state.request.cpus_per_replica
        if limits.max_count > minimum:
            cpus_each = limits.cpus_each
        instructions: list[Instruction] = []
        for placement in assign(state.seats, state.nodes, self._granted_cpus(), minimum, cpus_each):
            started = self._start(state, placement)
            state.replicas[started.replica_id].is_replacement = True  # if it fails, try elsewhere
            instructions.append(started)
        return instructions

    def _notice(self, state: ModelState, nodes: Sequence[Node]) -> None:
        """Learn of nodes that joined since, or left: seats of the kind that the model is on."""
        request = state.request
        try:
            groups = find_seats(nodes, request.device, request.options.hint)
            groups = with_cpus(groups, nodes, request.cpus_per_replica)
        except InferenceRuntimeError:  # no node has such a device now; those that had may be back
            return
        kinds = {seat.device for seat in state.seats}
        seats: list[Seat] = next(
            (group for group in groups if kinds & {seat.device for seat in group}), []
        )
        if seats:
            state.nodes, state.seats = nodes, seats

    def _is_overbooked(self, state: ModelState) -> bool:
        granted = self._granted_cpus()
        return any(node.cpu_count < granted.get(node.node_id, 0) for node in state.nodes)

    def _why(self, limits: _Limits) -> str:
        if limits.is_asleep:
            return f"no request came for {limits.idle_s:g} s; the next one loads it again"
        parts = [limits.scaler.why]
        if limits.promised:
            parts.append(f"{limits.promised} more when other models have given way")
        if limits.lacking:
            parts.append(
                f"{limits.lacking} more find no free place ({limits.cpus_each} CPUs each); "
                "add nodes, or let Ray's autoscaler add them"
            )
        parts += [note for end_s, note in limits.barred.values() if end_s > self._now_s]
        return "; ".join(parts)


def _longer(one: float | None, other: float | None) -> float | None:
    """Return the longer of two times, where None means for ever."""
    return None if one is None or other is None else max(one, other)
