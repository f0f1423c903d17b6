"""`FaultyReplica`: a replica that something goes wrong with; `schedule` has that happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from atriva_ray.simulation.events import Events
from atriva_ray.simulation.faults import Fault
from atriva_ray.simulation.machinery import Client, Costs, Job, Replica
from atriva_ray.simulation.record import Record
from atriva_ray.simulation.scenario import ReplicaGroup, Scenario

__all__ = ["FaultyReplica", "draw_faulty", "schedule"]


@dataclass(slots=True, eq=False)
class _Run:
    """A request that runs.

    Attributes:
        left_s: how much longer it would take if nothing went wrong from now on.
        since_s: when that was so.
        plan: how often its end was planned; what was planned before the last time does not happen.
    """

    job: Job
    client: Client
    began_s: float
    left_s: float
    since_s: float
    plan: int = 0


class FaultyReplica(Replica):
    """Runs requests first come, first served, at a speed that changes."""

    def __init__(
        self,
        events: Events,
        group: ReplicaGroup,
        number: int,
        record: Record,
        costs: Costs,
        hit_by: tuple[int, ...],
    ) -> None:
        """Make one that has nothing to do, see `Replica`."""
        super().__init__(events, group, number, record, costs)
        self.hit_by = hit_by
        self._watchers: list[Callable[[Replica, float], None]] = []
        self._faults: list[Fault] = []
        self._running: dict[int, _Run] = {}

    def watch(self, watcher: Callable[[Replica, float], None]) -> None:
        """Have something called with this replica and its speed of before, when that changes."""
        self._watchers.append(watcher)

    def begin(self, fault: Fault, clients: Sequence[Client]) -> None:
        """Have something go wrong."""
        self._faults.append(fault)
        if fault.dies and not self.is_dead:
            self._die(fault.detection_s, clients)
        self._change()

    def end(self, fault: Fault, clients: Sequence[Client], network_s: float) -> None:
        """Have it go wrong no longer."""
        self._faults.remove(fault)
        was_dead, self.is_dead = self.is_dead, any(each.dies for each in self._faults)
        self._change()
        if was_dead and not self.is_dead:
            # Nobody learns that it is back before they learn that it was gone.
            told_s = max(network_s, fault.detection_s - (fault.for_s or 0.0))
            for client in clients:
                self._events.at(self._events.now_s + told_s, client.back, self.number)

    def close(self) -> None:
        """Take note of what has not ended."""
        super().close()
        for run in self._running.values():
            self._work(run)

    def _die(self, detection_s: float, clients: Sequence[Client]) -> None:
        learn_s = self._events.now_s + detection_s
        for client in clients:
            self._events.at(learn_s, client.gone, self.number)
        for run in self._running.values():
            self._work(run)
        lost = [(run.job, run.client) for run in self._running.values()]
        for job, client in (*lost, *self._waiting):
            self._lose(job, client, detection_s)
        self._running.clear()
        self._waiting.clear()
        self.load = 0
        if not self._idle:
            self._idle_since_s = self._events.now_s
        self._idle = self.group.slots
        self.is_dead = True

    def _lose(self, job: Job, client: Client, detection_s: float) -> None:
        now_s = self._events.now_s
        self._record.lost(job.number, now_s)
        self._events.at(now_s + detection_s, client.lost, self.number, job)

    def _change(self) -> None:
        """Go on at the speed that the faults of now leave."""
        before, speed = self.speed, 0.0 if self.is_dead else 1.0
        for fault in self._faults:
            speed = 0.0 if fault.stops else speed / (fault.slowdown or 1.0)
        for run in self._running.values():
            self._work(run)
        if self._idle:
            self._rest(self._events.now_s)
            self._idle_since_s = self._events.now_s
        self.speed = speed
        for run in self._running.values():
            self._plan(run)
        for watcher in self._watchers:
            watcher(self, before)

    def _work(self, run: _Run) -> None:
        """Take note of what was done since the last time."""
        now_s = self._events.now_s
        if self.speed:
            run.left_s -= (now_s - run.since_s) * self.speed
            self.busy_s += now_s - run.since_s
        else:
            self._record.waited(run.job.number, run.since_s, now_s)
        run.since_s = now_s

    def _plan(self, run: _Run) -> None:
        run.plan += 1
        if self.speed:
            end_s = run.since_s + max(0.0, run.left_s) / self.speed
            self._events.at(end_s, self._end, run, run.plan)

    def _take(self, job: Job, client: Client) -> None:
        if self.is_dead:
            self._record.arrived_s[job.number] = self._events.now_s
            self._lose(job, client, max(each.detection_s for each in self._faults if each.dies))
        else:
            super()._take(job, client)

    def _run(self, job: Job, client: Client) -> None:
        now_s = self._events.now_s
        self._record.started_s[job.number] = now_s
        run = _Run(job, client, now_s, self.service_time_s(job.size), now_s)
        self._running[job.number] = run
        self._plan(run)

    def _end(self, run: _Run, plan: int) -> None:
        if run.plan == plan and self._running.get(run.job.number) is run:
            del self._running[run.job.number]
            self._work(run)
            self._finish(run.job, run.client, run.since_s - run.began_s)

    def _rest(self, now_s: float) -> None:
        if self.speed and now_s > self._idle_since_s:
            self._record.spells.extend(
                (self.number, self._idle_since_s, now_s, self.group.service_time_s / self.speed)
            )


def draw_faulty(scenario: Scenario, random: Random) -> dict[int, tuple[int, ...]]:
    """Return by the number of a replica those of the faults that hit it."""
    groups: dict[str | None, list[int]] = {None: []}
    for group in scenario.replicas:
        first = len(groups[None])
        groups[group.name] = list(range(first, first + group.count))
        groups[None] += groups[group.name]
    hit: dict[int, tuple[int, ...]] = {}
    for number, fault in enumerate(scenario.faults):
        there = groups[fault.group]
        for replica in random.sample(there, fault.hit_count(len(there))):
            hit[replica] = (*hit.get(replica, ()), number)
    return hit


def schedule(
    events: Events, scenario: Scenario, replicas: Sequence[Replica], clients: Sequence[Client]
) -> None:
    """Have the faults of a scenario happen to the replicas that they hit."""
    for replica in replicas:
        for number in replica.hit_by:
            assert isinstance(replica, FaultyReplica), "nothing hits others"  # noqa: S101
            fault = scenario.faults[number]
            events.at(fault.at_s, replica.begin, fault, clients)
            if fault.for_s is not None:
                end_s = fault.at_s + fault.for_s
                events.at(end_s, replica.end, fault, clients, scenario.network_s)
