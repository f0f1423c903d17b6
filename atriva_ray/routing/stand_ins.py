"""When replicas of less preferred devices answer for others, and when one is set aside."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from atriva_inference.device import Selection
from atriva_inference.errors import CompileError, InferenceRuntimeError
from atriva_ray.routing.aside import DOUBT_S
from atriva_ray.routing.fallback import opinion_seat, stand_in_seat
from atriva_ray.routing.messages import ModelRequest
from atriva_ray.routing.placement import Seat
from atriva_ray.routing.state import ModelState, Phase

__all__ = [
    "left_out",
    "promote",
    "reason_of",
    "recall",
    "second_opinion",
    "set_aside",
    "startup_seat",
    "superfluous",
    "try_again",
]

_FIRST_OPINION_DELAY_S = 60.0
_LAST_OPINION_DELAY_S = 3600.0


def reason_of(error: InferenceRuntimeError) -> str:
    """Return why a device does not run a model."""
    if isinstance(error, CompileError):
        return "; ".join(error.reasons.values())
    return str(error)


def left_out(
    found: Sequence[Sequence[Seat]], kept: Sequence[Sequence[Seat]], cpus_per_replica: int | None
) -> list[Seat]:
    """Return seats that have too few free CPUs for a replica that stays, but not for a stand-in."""
    if cpus_per_replica is not None:
        return []
    there = {seat for group in kept for seat in group}
    return [seat for group in found for seat in group if seat not in there]


def startup_seat(state: ModelState) -> Seat | None:
    """Return who is to answer while the replicas of the preferred group compile, if anybody."""
    request = state.request
    if not _may_choose(request) or not request.auto.startup_fallback:
        return None
    if state.stand_ins or state.has_ready or not state.is_starting:
        return None
    return stand_in_seat(state.seats, [*state.groups, state.spare], state.reasons)


def superfluous(state: ModelState, now_s: float) -> list[str]:
    """Return the stand-ins that may go: a better replica answers, and nobody doubts it."""
    if not state.has_regular_ready or now_s < state.doubted_until_s:
        return []
    return list(state.stand_ins)


def promote(state: ModelState, seats: Collection[Seat] | None) -> list[Seat]:
    """Make stand-ins on these seats, or all of them, replicas that stay; return their seats."""
    promoted = []
    for replica in state.stand_ins.values():
        if seats is None or replica.placement.seat in seats:
            replica.is_stand_in = False
            promoted.append(replica.placement.seat)
    if seats is None and promoted:
        state.seats = promoted
    return promoted


def set_aside(state: ModelState, replica_id: str, now_s: float) -> bool:
    """Give a replica no requests for a while, unless it is the last one that answers."""
    others = [key for key, each in state.replicas.items() if each.phase is Phase.READY]
    if others == [replica_id]:
        return False
    replica = state.replicas[replica_id]
    replica.trouble.happened(now_s)
    replica.phase = Phase.ASIDE
    state.opinion_delay_s = 0.0
    state.doubted_until_s = max(state.doubted_until_s, replica.trouble.until_s + DOUBT_S)
    return True


def try_again(state: ModelState, now_s: float) -> bool:
    """Use replicas again that were set aside for long enough; return whether there are any."""
    due = [
        replica
        for replica in state.replicas.values()
        if replica.phase is Phase.ASIDE and now_s >= replica.trouble.until_s
    ]
    for replica in due:
        replica.phase = Phase.READY
    return bool(due)


def recall(state: ModelState, now_s: float) -> bool:
    """Where nobody is left who answers, use at once what was set aside: it may answer some."""
    if state.has_ready:
        return False
    for replica in state.replicas.values():
        if replica.phase is Phase.ASIDE:
            replica.trouble.until_s = now_s
    return try_again(state, now_s)


def second_opinion(state: ModelState, now_s: float) -> Seat | None:
    """Return where to try what fails on the only replica there is; None if that cannot be known.

    A model that gets bad inputs asks for opinions that agree. Each one is put off for twice as long
    as the one before.
    """
    ready = [each for each in state.replicas.values() if each.phase is Phase.READY]
    if len(ready) > 1 or state.stand_ins or now_s < state.next_opinion_s:
        return None
    if not _may_choose(state.request):
        return None
    used = [replica.placement.seat for replica in state.replicas.values()]
    seat = opinion_seat(state.seats, [*state.groups, state.spare], used, state.reasons)
    if seat is not None:
        delay_s = 2 * state.opinion_delay_s or _FIRST_OPINION_DELAY_S
        state.opinion_delay_s = min(_LAST_OPINION_DELAY_S, delay_s)
        state.next_opinion_s = now_s + state.opinion_delay_s
        state.doubted_until_s = now_s + DOUBT_S
    return seat


def _may_choose(request: ModelRequest) -> bool:
    """Whether other devices may be used; where numbers follow the load, that counts replicas."""
    return request.device.selection is Selection.AUTO and request.max_count is None
