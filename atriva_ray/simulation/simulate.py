"""One scenario, one policy: from requests to figures."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from random import Random

import numpy as np
import numpy.typing as npt

from atriva_ray.simulation.choosers import POLICIES
from atriva_ray.simulation.events import Events
from atriva_ray.simulation.faulty import FaultyReplica, draw_faulty, schedule
from atriva_ray.simulation.idleness import most_idle_while_waiting
from atriva_ray.simulation.machinery import Chooser, Client, Costs, Job, Replica
from atriva_ray.simulation.record import Record
from atriva_ray.simulation.scenario import Scenario
from atriva_ray.simulation.stealing import Stealer, StealingClient
from atriva_ray.simulation.workload import Workload

__all__ = ["GroupUse", "Outcome", "quantiles", "simulate"]


@dataclass(frozen=True, slots=True)
class GroupUse:
    """What became of the replicas of one group.

    Attributes:
        name: the group's.
        share: which part of all answers they gave.
        busy: which part of their slots' time they worked, up to the last answer.
    """

    name: str
    share: float
    busy: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a scenario's requests.

    Attributes:
        policy: who chose.
        came_s: float64 [requests that count], when a client had a request.
        latencies_s: float64 [requests that count], from then to its answer; infinite without one.
        in_time_per_s: requests that were answered before the clients stopped asking, per second.
        good_per_s: requests that were answered within the scenario's deadline, per second; None
            without a deadline.
        idle_while_waiting: how long at most one replica was idle while one request that counts
            waited, in the replica's mean service times.
        ended_s: when the last answer was there.
        groups: what the replicas did.
    """

    policy: str
    came_s: npt.NDArray[np.float64]
    latencies_s: npt.NDArray[np.float64]
    in_time_per_s: float
    good_per_s: float | None
    idle_while_waiting: float
    ended_s: float
    groups: tuple[GroupUse, ...]

    @property
    def unanswered(self) -> int:
        """How many of the requests that count nobody answered."""
        return int(np.count_nonzero(np.isinf(self.latencies_s)))

    def quantile_s(self, quantile: float) -> float:
        """Return what this part of all latencies does not exceed; NaN without requests.

        Infinite if so many are without an answer.
        """
        return float(quantiles(self.latencies_s, np.array([quantile]))[0])


def quantiles(
    values: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return what these parts of values, which may be infinite, do not exceed; NaN without any."""
    if not len(values):
        return np.full(len(wanted), np.nan)
    if np.isinf(values).any():  # there is nothing between a number and infinity
        return np.quantile(values, wanted, method="higher")
    return np.quantile(values, wanted)


def simulate(scenario: Scenario, workload: Workload, policy: str) -> Outcome:
    """Let a policy choose replicas for requests.

    The same arguments give the same outcome.

    Args:
        scenario: which cluster.
        workload: which requests; `make_workload` makes those of the scenario.
        policy: one of `POLICIES`.
    """
    events = Events()
    journey_s = scenario.network_s + scenario.request_transfer_s
    record = Record(workload, journey_s)
    replicas = _replicas(scenario, events, record)
    answered_s = [inf] * len(workload)

    def answered(job: Job) -> None:
        answered_s[job.number] = events.now_s

    random = Random(scenario.seed)  # noqa: S311 - nobody guards anything with it
    factory = POLICIES[policy](events, replicas, journey_s, random)
    clients = [
        _client(events, replicas, factory(), scenario.network_s, answered)
        for _ in range(scenario.clients)
    ]
    schedule(events, scenario, replicas, clients)
    with _without_collection():
        events.run(_requests(workload, clients))
    for replica in replicas:
        replica.close()
    return _outcome(policy, scenario, workload, np.array(answered_s), replicas, record)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep Python from looking for cycles: a simulation makes none, and looking took a tenth."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _requests(
    workload: Workload, clients: Sequence[Client]
) -> Iterator[tuple[float, Callable[[Job], None], Job]]:
    asks = [client.ask for client in clients]
    requests = zip(
        workload.times_s.tolist(), workload.clients.tolist(), workload.sizes.tolist(), strict=True
    )
    for number, (time_s, client, size) in enumerate(requests):
        yield time_s, asks[client], Job(number, size, time_s)


def _replicas(scenario: Scenario, events: Events, record: Record) -> list[Replica]:
    sizes_are_told = scenario.arrivals is not None and scenario.arrivals.sizes is not None
    costs = Costs(scenario.request_transfer_s, scenario.answer_transfer_s, sizes_are_told)
    # The same ones for every policy, so not of the randomness that policies use.
    hit = draw_faulty(scenario, Random(f"faults {scenario.seed}"))  # noqa: S311
    replicas: list[Replica] = []
    for group in scenario.replicas:
        for number in range(len(replicas), len(replicas) + group.count):
            made = (events, group, number, record, costs)
            faults = hit.get(number)
            replicas.append(FaultyReplica(*made, faults) if faults else Replica(*made))
    return replicas


def _client(
    events: Events,
    replicas: list[Replica],
    chooser: Chooser,
    network_s: float,
    answered: Callable[[Job], None],
) -> Client:
    if isinstance(chooser, Stealer):
        return StealingClient(events, replicas, chooser, network_s, answered)
    return Client(events, replicas, chooser, network_s, answered)


def _outcome(
    policy: str,
    scenario: Scenario,
    workload: Workload,
    answered_s: npt.NDArray[np.float64],
    replicas: list[Replica],
    record: Record,
) -> Outcome:
    counts = workload.times_s >= scenario.warm_up_s
    counting_s = scenario.duration_s - scenario.warm_up_s
    in_time = (answered_s <= scenario.duration_s) & counts
    latencies_s = (answered_s - workload.times_s)[counts]
    ended_s = float(np.max(answered_s, initial=0.0, where=np.isfinite(answered_s)))
    good_per_s = None
    if scenario.deadline_s is not None:
        good_per_s = float(np.count_nonzero(latencies_s <= scenario.deadline_s)) / counting_s
    waits = record.waits(counts, max(ended_s, scenario.duration_s))
    # More than there were requests, where some ran twice: see `StealingClient`.
    total = max(1, sum(replica.answered for replica in replicas))
    groups = []
    for group in scenario.replicas:
        mine = [replica for replica in replicas if replica.group is group]
        busy_s = sum(replica.busy_s for replica in mine)
        slots = group.count * group.slots
        share = sum(replica.answered for replica in mine) / total
        groups.append(GroupUse(group.name, share, busy_s / slots / ended_s if ended_s else 0.0))
    return Outcome(
        policy,
        workload.times_s[counts],
        latencies_s,
        float(np.count_nonzero(in_time)) / counting_s,
        good_per_s,
        most_idle_while_waiting(waits, record.idle_spells()),
        ended_s,
        tuple(groups),
    )
