"""Which seats stand in for others, while those compile and when they fail."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from atriva_inference.device import device_kind
from atriva_ray.routing.placement import Seat

__all__ = ["elsewhere", "opinion_seat", "stand_in_seat"]

_PROCESSOR = "CPU"


def stand_in_seat(
    preferred: Sequence[Seat], others: Sequence[Sequence[Seat]], refused: Collection[str]
) -> Seat | None:
    """Return who answers while the preferred group compiles.

    A processor, as in OpenVINO: it compiles soonest. Where none is among the candidates, the last
    one. Nobody stands in for a processor.

    Args:
        preferred: the group that is about to compile.
        others: the groups after it, in order.
        refused: labels of seats that are known not to take the model.
    """
    if any(device_kind(seat.device) == _PROCESSOR for seat in preferred):
        return None
    free = [seat for group in reversed(others) for seat in group if seat.label not in refused]
    processors = (seat for seat in free if device_kind(seat.device) == _PROCESSOR)
    return next(processors, free[0] if free else None)


def opinion_seat(
    seats: Sequence[Seat],
    others: Sequence[Sequence[Seat]],
    used: Collection[Seat],
    refused: Collection[str],
) -> Seat | None:
    """Return where a request may be tried that fails wherever the model is: the next best seat."""
    return next(
        (
            seat
            for group in (seats, *others)
            for seat in group
            if seat not in used and seat.label not in refused
        ),
        None,
    )


def elsewhere(in_flight: Mapping[str, int], failed_on: Collection[str]) -> str | None:
    """Return the replica with least under way on which a request has not failed yet."""
    fresh = [replica_id for replica_id in in_flight if replica_id not in failed_on]
    return min(fresh, key=lambda replica_id: in_flight[replica_id], default=None)
