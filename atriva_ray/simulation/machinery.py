"""Replicas and clients of a simulated cluster: what takes time, and who waits for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from typing import Protocol

from atriva_ray.routing.activity import Activity
from atriva_ray.simulation.events import Events
from atriva_ray.simulation.record import Record
from atriva_ray.simulation.scenario import ReplicaGroup

__all__ = ["Answer", "Chooser", "Client", "Costs", "Job", "Replica"]


@dataclass(slots=True, eq=False)
class Job:
    """One request.

    Attributes:
        number: its place in the workload.
        size: see `Workload.sizes`.
        came_s: when its client had it.
        sent_s: when its client sent it to a replica, the last time.
    """

    number: int
    size: float
    came_s: float
    sent_s: float = 0.0


@dataclass(slots=True)
class Answer:
    """What comes back to a client.

    Attributes:
        job: to which request.
        service_time_s: how long it ran.
        queue_len: requests that were left at the replica.
        others: other clients that have used the replica of late.
    """

    job: Job
    service_time_s: float
    queue_len: int
    others: int


class Chooser(Protocol):
    """What one client knows of the replicas, and how it decides."""

    def choose(self, job: Job) -> int | None:
        """Return the replica for the request that comes next; None: it is to wait."""
        ...

    def started(self, replica: int) -> None:
        """Take note that a request was sent."""
        ...

    def finished(self, replica: int, answer: Answer) -> None:
        """Take note of an answer, and of what the replica says with it."""
        ...

    def forget(self, replica: int) -> None:
        """Take note that a replica died, with all that it had; perhaps not for the first time.

        Answers that it gave before may still come.
        """
        ...

    def add(self, replica: int) -> None:
        """Take note that a replica that died is back, empty."""
        ...


@dataclass(frozen=True, slots=True)
class Costs:
    """What requests and answers cost beside the service, and what their sizes mean.

    Attributes:
        request_transfer_s: how long the bytes of a request take.
        answer_transfer_s: how long the bytes of an answer take.
        sizes_are_told: whether sizes say how long a request takes, see `Replica.service_time_s`.
    """

    request_transfer_s: float = 0.0
    answer_transfer_s: float = 0.0
    sizes_are_told: bool = False


class Replica:
    """Runs requests first come, first served.

    Attributes:
        group: what it is like.
        number: its place among all replicas.
        load: requests that it runs, or that wait for it.
        answered: requests that it has answered.
        busy_s: time that its slots have worked, all together.
        speed: how many times as fast as usual it is now; 0.0: nothing goes on in it.
        is_dead: whether it is dead.
        hit_by: numbers of the faults that hit it; without any, it never changes.
    """

    speed = 1.0
    is_dead = False
    hit_by: tuple[int, ...] = ()

    def __init__(
        self, events: Events, group: ReplicaGroup, number: int, record: Record, costs: Costs
    ) -> None:
        """Make one that has nothing to do.

        Args:
            events: the clock.
            group: what it is like.
            number: its place among all replicas.
            record: takes note of what waits.
            costs: what requests and answers cost beside the service.
        """
        self.group = group
        self.number = number
        self.load = 0
        self.answered = 0
        self.busy_s = 0.0
        self._events = events
        self._record = record
        self._request_transfer_s = costs.request_transfer_s
        self._answer_transfer_s = costs.answer_transfer_s
        self._sigma = 1.0 if costs.sizes_are_told else group.sigma
        mean = 0.0 if costs.sizes_are_told else group.sigma * group.sigma / 2
        self._mu = log(group.service_time_s) - mean
        self._idle = group.slots
        self._idle_since_s = 0.0
        self._waiting: deque[tuple[Job, Client]] = deque()
        self._activity: Activity[Client] = Activity()

    def service_time_s(self, size: float) -> float:
        """Return how long a request takes here: lognormal, and `group.service_time_s` on average.

        The mean of a lognormal distribution is ``exp(mu + sigma² / 2)``, so mu is half of sigma²
        less than the logarithm of the mean that is wanted. Where the requests are of a file, the
        size is the logarithm of how many times the mean service time the request takes.
        """
        return exp(self._mu + self._sigma * size)

    def watch(self, watcher: Callable[[Replica, float], None]) -> None:
        """Have something called with this replica and its speed of before, when that changes."""

    def receive(self, job: Job, client: Client) -> None:
        """Have a request arrive, but for its bytes."""
        if self._request_transfer_s:
            arrives_s = self._events.now_s + self._request_transfer_s
            self._events.at(arrives_s, self._take, job, client)
        else:
            self._take(job, client)

    def _take(self, job: Job, client: Client) -> None:
        """Run a request, or let it wait."""
        self.load += 1
        self._record.arrived_s[job.number] = self._events.now_s
        self._activity.seen(client, self._events.now_s)
        if self._idle:
            self._idle -= 1
            if not self._idle:
                self._rest(self._events.now_s)
            self._run(job, client)
        else:
            self._waiting.append((job, client))

    def _run(self, job: Job, client: Client) -> None:
        now_s = self._events.now_s
        service_time_s = exp(self._mu + self._sigma * job.size)
        self._record.started_s[job.number] = now_s
        self.busy_s += service_time_s
        self._events.at(now_s + service_time_s, self._finish, job, client, service_time_s)

    def _finish(self, job: Job, client: Client, service_time_s: float) -> None:
        self.load -= 1
        self.answered += 1
        if self._waiting:
            self._run(*self._waiting.popleft())
        else:
            if not self._idle:
                self._idle_since_s = self._events.now_s
            self._idle += 1
        self._activity.seen(client, self._events.now_s)
        others = self._activity.others(client, self._events.now_s)
        answer = Answer(job, service_time_s, self.load, others)
        if self._answer_transfer_s:
            leaves_s = self._events.now_s + self._answer_transfer_s
            self._events.at(leaves_s, client.expect, self, answer)
        else:
            client.expect(self, answer)

    def cancel(self, job: Job, client: Client) -> None:
        """Drop a request that has not begun to run; one that has runs on."""
        if (job, client) in self._waiting:
            self._waiting.remove((job, client))
            self.load -= 1

    def close(self) -> None:
        """Take note of what has not ended."""
        if self._idle:
            self._rest(self._events.now_s)

    def _rest(self, now_s: float) -> None:
        """Take note of a time in which it could have run one more request."""
        if now_s > self._idle_since_s:
            self._record.spells.extend(
                (self.number, self._idle_since_s, now_s, self.group.service_time_s)
            )


class Client:
    """Keeps requests until its chooser has a replica for them."""

    def __init__(
        self,
        events: Events,
        replicas: list[Replica],
        chooser: Chooser,
        network_s: float,
        answered: Callable[[Job], None],
    ) -> None:
        """Make one that has nothing to ask yet.

        Args:
            events: the clock.
            replicas: what the chooser's numbers mean.
            chooser: decides.
            network_s: how long requests and answers travel.
            answered: called when an answer is there.
        """
        self._events = events
        self._replicas = replicas
        self._chooser = chooser
        self._network_s = network_s
        self._answered = answered
        self._waiting: deque[Job] = deque()

    def ask(self, job: Job) -> None:
        """Send a request as soon as there is a replica for it."""
        self._waiting.append(job)
        self._send()

    def expect(self, replica: Replica, answer: Answer) -> None:
        """Have an answer arrive after its journey."""
        self._events.at(self._events.now_s + self._network_s, self._receive, replica, answer)

    def _receive(self, replica: Replica, answer: Answer) -> None:
        self._chooser.finished(replica.number, answer)
        self._answered(answer.job)
        self._send()

    def _send(self) -> None:
        waiting = self._waiting
        while waiting and (number := self._chooser.choose(waiting[0])) is not None:
            job = waiting.popleft()
            self._chooser.started(number)
            self._send_to(number, job)

    def _send_to(self, number: int, job: Job) -> None:
        job.sent_s = self._events.now_s
        arrives_s = self._events.now_s + self._network_s
        self._events.at(arrives_s, self._replicas[number].receive, job, self)

    def lost(self, replica: int, job: Job) -> None:  # noqa: ARG002 - `gone` said it to the chooser
        """Send a request once more: the replica that had it died before it answered."""
        self._waiting.appendleft(job)
        self._send()

    def gone(self, replica: int) -> None:
        """Learn that a replica died; what it had is told by `lost`."""
        self._chooser.forget(replica)

    def back(self, replica: int) -> None:
        """Learn of a replica that takes the place of one that died."""
        self._chooser.add(replica)
        self._send()
