"""One scenario, one policy: from requests to figures."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from atriva_ray.simulation.choosers import POLICIES
from atriva_ray.simulation.events import Events
from atriva_ray.simulation.machinery import Client, Job, Replica
from atriva_ray.simulation.scenario import Scenario
from atriva_ray.simulation.workload import Workload

__all__ = ["GroupUse", "Outcome", "simulate"]


@dataclass(frozen=True, slots=True)
class GroupUse:
    """What became of the replicas of one group.

    Attributes:
        name: the group's.
        share: which part of all requests they answered.
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
        latencies_s: float64 [requests that count], from when a client had a request to its answer.
        in_time_per_s: requests that were answered before the clients stopped asking, per second.
        ended_s: when the last answer was there.
        groups: what the replicas did.
    """

    policy: str
    latencies_s: npt.NDArray[np.float64]
    in_time_per_s: float
    ended_s: float
    groups: tuple[GroupUse, ...]

    def quantile_s(self, quantile: float) -> float:
        """Return what this part of all latencies does not exceed; NaN without requests."""
        return float(np.quantile(self.latencies_s, quantile)) if len(self.latencies_s) else np.nan


def simulate(scenario: Scenario, workload: Workload, policy: str) -> Outcome:
    """Let a policy choose replicas for requests.

    The same arguments give the same outcome.

    Args:
        scenario: which cluster.
        workload: which requests; `make_workload` makes those of the scenario.
        policy: one of `POLICIES`.
    """
    events = Events()
    replicas: list[Replica] = []
    for group in scenario.replicas:
        replicas += [Replica(events, group, len(replicas) + i) for i in range(group.count)]
    answered_s = np.full(len(workload), np.nan)

    def answered(job: Job) -> None:
        answered_s[job.number] = events.now_s

    random = Random(scenario.seed)  # noqa: S311 - nobody guards anything with it
    factory = POLICIES[policy](events, replicas, scenario.network_s, random)
    clients = [
        Client(events, replicas, factory(), scenario.network_s, answered)
        for _ in range(scenario.clients)
    ]
    requests = zip(
        workload.times_s.tolist(), workload.clients.tolist(), workload.sizes.tolist(), strict=True
    )
    # One at a time: a heap of all of them would make every other event slower.
    pending = enumerate(requests)

    def ask_next() -> None:
        following = next(pending, None)
        if following is not None:
            number, (time_s, client, size) = following
            events.at(time_s, ask, client, Job(number, size, time_s))

    def ask(client: int, job: Job) -> None:
        clients[client].ask(job)
        ask_next()

    ask_next()
    events.run()
    return _outcome(policy, scenario, workload, answered_s, replicas)


def _outcome(
    policy: str,
    scenario: Scenario,
    workload: Workload,
    answered_s: npt.NDArray[np.float64],
    replicas: list[Replica],
) -> Outcome:
    counts = workload.times_s >= scenario.warm_up_s
    in_time = (answered_s <= scenario.duration_s) & counts
    ended_s = float(np.max(answered_s, initial=0.0))
    total = max(1, len(workload))
    groups = []
    for group in scenario.replicas:
        mine = [replica for replica in replicas if replica.group is group]
        busy_s = sum(replica.busy_s for replica in mine)
        slots = group.count * group.slots
        share = sum(replica.answered for replica in mine) / total
        groups.append(GroupUse(group.name, share, busy_s / slots / ended_s if ended_s else 0.0))
    return Outcome(
        policy,
        (answered_s - workload.times_s)[counts],
        float(np.count_nonzero(in_time)) / (scenario.duration_s - scenario.warm_up_s),
        ended_s,
        tuple(groups),
    )
