"""How busy a model is: what its replicas and its clients say of it, put together."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

__all__ = ["LoadBook", "LoadReport", "ModelLoad"]

_CLIENT_REPORT_LASTS_S = 15.0
"""What a client said longer ago than that says nothing; it has died, or its link is down."""

_REPLICA_REPORT_LASTS_S = 15.0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a replica says of its load.

    Attributes:
        busy_s: seconds that its slots have run requests since it began, all slots together.
        answered: requests that it has answered since it began.
        queue_len: requests that run or wait there now.
        client_count: programs that are connected.
        slot_count: requests it runs at once.
        service_time_s: moving average of what one request takes the device; None before the first.
    """

    busy_s: float
    answered: int
    queue_len: int
    client_count: int
    slot_count: int
    service_time_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """How busy the replicas of one model are, all together.

    Attributes:
        busy_slots: how many slots ran a request, on average since the report before.
        slots_each: slots of one replica, on average.
        outstanding: requests that have no answer yet, wherever they are.
        service_time_s: what one request takes a device.
        was_asked: whether there was any request since the report before.
        is_known: whether every replica has reported lately; if not, the rest says too little.
    """

    busy_slots: float = 0.0
    slots_each: float = 1.0
    outstanding: int = 0
    service_time_s: float = 0.0
    was_asked: bool = False
    is_known: bool = True


@dataclass(frozen=True, slots=True)
class _Seen:
    report: LoadReport
    at_s: float
    busy_slots: float
    was_asked: bool


class LoadBook:
    """The newest reports. Its size is that of the cluster: replicas, and clients with requests."""

    def __init__(self) -> None:
        self._replicas: dict[str, _Seen] = {}
        self._clients: dict[str, tuple[float, Mapping[str, int]]] = {}

    def replica_reported(self, replica_id: str, report: LoadReport, now_s: float) -> None:
        """Take in what a replica says; rates are those since its report before."""
        before = self._replicas.get(replica_id)
        if before is None or now_s <= before.at_s:
            busy_slots = float(report.queue_len)
            answered = report.answered
        else:
            busy_slots = (report.busy_s - before.report.busy_s) / (now_s - before.at_s)
            answered = report.answered - before.report.answered
        self._replicas[replica_id] = _Seen(
            report,
            now_s,
            min(max(0.0, busy_slots), float(report.slot_count)),
            answered > 0 or report.queue_len > 0,
        )

    def client_reported(self, client_id: str, outstanding: Mapping[str, int], now_s: float) -> None:
        """Take in how many requests of each model, by key, a client has no answer to."""
        counts = {key: count for key, count in outstanding.items() if count > 0}
        if counts:
            self._clients[client_id] = now_s, counts
        else:
            self._clients.pop(client_id, None)

    def keep(self, replica_ids: AbstractSet[str], now_s: float) -> None:
        """Forget all other replicas, and clients that were silent for long."""
        kept = replica_ids & self._replicas.keys()
        self._replicas = {each: self._replicas[each] for each in kept}
        self._clients = {
            client_id: (at_s, counts)
            for client_id, (at_s, counts) in self._clients.items()
            if now_s - at_s <= _CLIENT_REPORT_LASTS_S
        }

    def report_of(self, replica_id: str) -> LoadReport | None:
        """Return a replica's newest report; None if it has not reported yet."""
        seen = self._replicas.get(replica_id)
        return None if seen is None else seen.report

    def outstanding(self, key: str, now_s: float) -> int:
        """Return how many requests of a model its clients wait for."""
        return sum(
            counts.get(key, 0)
            for at_s, counts in self._clients.values()
            if now_s - at_s <= _CLIENT_REPORT_LASTS_S
        )

    def load_of(self, key: str, replica_ids: Collection[str], now_s: float) -> ModelLoad:
        """Put together what is known of a model whose ready replicas are these."""
        outstanding = self.outstanding(key, now_s)
        seen = [self._replicas[each] for each in replica_ids if each in self._replicas]
        fresh = [each for each in seen if now_s - each.at_s <= _REPLICA_REPORT_LASTS_S]
        if not fresh:
            return ModelLoad(outstanding=outstanding, is_known=not replica_ids)
        times_s = [
            each.report.service_time_s for each in fresh if each.report.service_time_s is not None
        ]
        return ModelLoad(
            busy_slots=sum(each.busy_slots for each in fresh),
            slots_each=sum(each.report.slot_count for each in fresh) / len(fresh),
            outstanding=max(outstanding, sum(each.report.queue_len for each in fresh)),
            service_time_s=sum(times_s) / len(times_s) if times_s else 0.0,
            was_asked=any(each.was_asked for each in fresh),
            is_known=len(fresh) == len(replica_ids),
        )
