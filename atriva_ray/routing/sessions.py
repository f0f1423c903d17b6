"""Which replica a new session stays on, and which one that has sessions may go first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["SessionSeat", "drain_order", "session_order"]


@dataclass(frozen=True, slots=True)
class SessionSeat:
    """A replica that could take a session.

    Attributes:
        replica_id: which.
        rank: AUTO's preference of its device, lower is better.
        slot_count: requests it runs at once.
        service_time_s: time it takes for a request; None where nobody knows yet.
        session_count: sessions it has, of all programs; None if it did not say in time.
    """

    replica_id: str
    rank: int
    slot_count: int
    service_time_s: float | None
    session_count: int | None


def session_order(seats: Iterable[SessionSeat]) -> list[str]:
    """Return replicas, the best for one more session first.

    That is where a request would be answered soonest if all sessions sent one at once, for nobody
    knows which of them will: sessions stay, so the load of this moment says little. Where no
    service time is known, the shortest known one is assumed. Ties go to the device that AUTO
    prefers. A replica that did not say how many sessions it has comes last.
    """
    seats = list(seats)
    known_s = [seat.service_time_s for seat in seats if seat.service_time_s is not None]
    assumed_s = min(known_s, default=1.0)

    def merit(seat: SessionSeat) -> tuple[bool, float, int, str]:
        service_time_s = assumed_s if seat.service_time_s is None else seat.service_time_s
        rounds = max(1.0, ((seat.session_count or 0) + 1) / seat.slot_count)
        fill = (seat.session_count or 0) / seat.slot_count
        # Below one round all are as fast as alone; there the emptier one is better.
        return (
            seat.session_count is None,
            service_time_s * (rounds + fill),
            seat.rank,
            seat.replica_id,
        )

    return [seat.replica_id for seat in sorted(seats, key=merit)]


def drain_order(replica_ids: Iterable[str], session_counts: Mapping[str, int]) -> list[str]:
    """Return replicas in the order in which they may go: those with sessions last.

    Their order is kept otherwise. What a session remembers goes with its replica.
    """
    return sorted(replica_ids, key=lambda replica_id: session_counts.get(replica_id, 0))
