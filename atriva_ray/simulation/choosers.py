"""Policies: how clients choose replicas. Ours is the very code that runs on a real cluster."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from random import Random

from atriva_inference.errors import OptionError
from atriva_ray.routing.balance import Balancer, Route
from atriva_ray.routing.pool import Pool
from atriva_ray.simulation.events import Events
from atriva_ray.simulation.machinery import Answer, Chooser, Job, Replica
from atriva_ray.simulation.survivors import Survivors

__all__ = ["POLICIES", "ChooserFactory", "find_policies"]

_LONG_S = 1e12
"""What a replica that hangs would take: it is chosen only if all do."""

_NEVER = 1 << 60
"""So many requests under way that a replica is not the least loaded one."""

ChooserFactory = Callable[[], Chooser]
"""Returns the chooser of one more client."""


class _Router:
    """Which replicas each client gets to know."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._replicas = replicas
        self._pool = Pool()
        self._there = {str(replica.number): (replica.group.name,) for replica in replicas}
        self._clients: list[str] = []
        self._is_told = False

    def join(self) -> str:
        """Return the name of one more client."""
        self._clients.append(str(len(self._clients)))
        return self._clients[-1]

    def leave(self, replica: int) -> None:
        """Take note that a replica died, perhaps not for the first time."""
        self._is_told &= self._there.pop(str(replica), None) is None

    def come(self, replica: int) -> None:
        """Take note that a replica is back, perhaps not for the first time."""
        self._is_told &= str(replica) in self._there
        self._there[str(replica)] = (self._replicas[replica].group.name,)

    def table(self, client: str) -> Iterator[Route]:
        """Give what a client may use."""
        if not self._is_told:
            self._pool.update(self._there, self._clients)
            self._is_told = True  # the first who asks finds all clients there
        for replica_id, is_home in self._pool.known_to(client).items():
            group = self._replicas[int(replica_id)].group
            yield Route(replica_id, group.name, group.slots, 0, is_home)


class _Ours:
    """The balancer of `atriva_ray.routing`."""

    def __init__(self, events: Events, router: _Router) -> None:
        self._events = events
        self._router = router
        self._name = router.join()
        self._balancer: Balancer | None = None

    def choose(self, job: Job) -> int | None:  # noqa: ARG002 - nobody knows what it takes
        if self._balancer is None:
            self._balancer = Balancer()
            for route in self._router.table(self._name):
                self._balancer.add(route)
        name = self._balancer.choose(self._events.now_s)
        return None if name is None else int(name)

    def started(self, replica: int) -> None:
        assert self._balancer is not None, "it has chosen the replica"  # noqa: S101
        self._balancer.started(str(replica), self._events.now_s)

    def finished(self, replica: int, answer: Answer) -> None:
        assert self._balancer is not None, "it has chosen the replica"  # noqa: S101
        now_s = self._events.now_s
        self._balancer.finished(
            str(replica),
            now_s,
            answer.service_time_s,
            answer.queue_len,
            answer.others,
            now_s - answer.job.sent_s,
        )

    def steal(self) -> tuple[int, int] | None:
        move = None if self._balancer is None else self._balancer.steal(self._events.now_s)
        return None if move is None else (int(move[0]), int(move[1]))

    def moved(self, old: int, new: int) -> None:
        assert self._balancer is not None, "it has chosen the replica"  # noqa: S101
        self._balancer.moved(str(old), str(new), self._events.now_s)

    def forget(self, replica: int) -> None:
        self._router.leave(replica)
        if self._balancer is not None:
            self._balancer.forget(str(replica))
            self._balancer.set_routes(self._router.table(self._name))

    def add(self, replica: int) -> None:
        self._router.come(replica)
        if self._balancer is not None:
            self._balancer.set_routes(self._router.table(self._name))


class _Uninformed:
    """Base of choosers that take note of nothing."""

    def started(self, replica: int) -> None:
        pass

    def finished(self, replica: int, answer: Answer) -> None:
        pass

    def forget(self, replica: int) -> None:
        pass

    def add(self, replica: int) -> None:
        pass


class _RoundRobin(_Uninformed):
    def __init__(self, replicas: Sequence[Replica], random: Random) -> None:
        self._count = len(replicas)
        self._next = random.randrange(self._count)

    def choose(self, job: Job) -> int:  # noqa: ARG002
        self._next = (self._next + 1) % self._count
        return self._next


class _Random(_Uninformed):
    def __init__(self, replicas: Sequence[Replica], random: Random) -> None:
        self._count = len(replicas)
        self._random = random

    def choose(self, job: Job) -> int:  # noqa: ARG002
        return self._random.randrange(self._count)


class _LeastLoaded:
    """Knows only what this client has under way."""

    def __init__(self, replicas: Sequence[Replica], random: Random) -> None:
        # A heap of (under way, a number drawn anew each time, replica); entries of before are left
        # in it, and passed over when they come up.
        self._under_way = [0] * len(replicas)
        self._random = random
        self._heap = [(0, random.random(), replica.number) for replica in replicas]
        heapq.heapify(self._heap)

    def choose(self, job: Job) -> int:  # noqa: ARG002
        while self._heap[0][0] != self._under_way[self._heap[0][2]]:
            heapq.heappop(self._heap)
        return self._heap[0][2]

    def started(self, replica: int) -> None:
        self._change(replica, 1)

    def finished(self, replica: int, answer: Answer) -> None:  # noqa: ARG002
        self._change(replica, -1)

    def _change(self, replica: int, change: int) -> None:
        self._under_way[replica] += change
        entry = (self._under_way[replica], self._random.random(), replica)
        heapq.heappush(self._heap, entry)

    def forget(self, replica: int) -> None:
        self._change(replica, _NEVER - self._under_way[replica])

    def add(self, replica: int) -> None:
        self._change(replica, -self._under_way[replica])


class _TwoChoices(_Uninformed):
    """The power of two choices: the less loaded one, as they are at this moment, of any two."""

    def __init__(self, replicas: Sequence[Replica], random: Random) -> None:
        self._replicas = replicas
        self._random = random

    def choose(self, job: Job) -> int:  # noqa: ARG002
        first, second = self._random.choices(self._replicas, k=2)
        return min(first, second, key=lambda replica: replica.load / replica.group.slots).number


class _WeighedChoices(_Uninformed):
    """Two choices for replicas that differ, by somebody who knows how fast each one is.

    A faster one is drawn more often, in proportion, and of two the one is taken that is expected to
    answer first.
    """

    def __init__(self, replicas: Sequence[Replica], random: Random) -> None:
        self._replicas = replicas
        self._random = random
        rates = (replica.group.slots / replica.group.service_time_s for replica in replicas)
        self._up_to = list(accumulate(rates))

    def choose(self, job: Job) -> int:  # noqa: ARG002
        first, second = self._random.choices(self._replicas, cum_weights=self._up_to, k=2)
        return min(first, second, key=_expected_s).number


def _expected_s(replica: Replica) -> float:
    group = replica.group
    ahead = max(0, replica.load + 1 - group.slots)
    return group.service_time_s * (1 + ahead / group.slots)


class _Oracle(_Uninformed):
    """Knows when every slot will be free; one for all clients together.

    That is exact, for nobody else sends anything. The slots of replicas that are alike are kept in
    the order in which they become free: only the first of each kind can be the best one.
    """

    def __init__(
        self, events: Events, replicas: Sequence[Replica], network_s: float, *, knows_sizes: bool
    ) -> None:
        self._events = events
        self._replicas = replicas
        self._network_s = network_s
        self._knows_sizes = knows_sizes
        kinds: dict[object, list[tuple[float, int]]] = {}
        for replica in replicas:
            slots = [(0.0, replica.number)] * replica.group.slots
            kind = kinds.setdefault((replica.group.name, replica.hit_by), [])
            if not kind:
                replica.watch(partial(self._changed, kind))
            kind.extend(slots)
        self._kinds = list(kinds.values())
        self._stopped: dict[int, tuple[float, float]] = {}

    def choose(self, job: Job) -> int | None:
        arrives_s = self._events.now_s + self._network_s
        best: tuple[float, list[tuple[float, int]]] | None = None
        for kind in self._kinds:
            free_s, number = kind[0]
            replica = self._replicas[number]
            takes_s = (
                replica.service_time_s(job.size)
                if self._knows_sizes
                else replica.group.service_time_s
            )
            if replica.speed != 1.0:
                if replica.is_dead:
                    continue
                takes_s = takes_s / replica.speed if replica.speed else _LONG_S
            done_s = max(free_s, arrives_s) + takes_s
            if best is None or done_s < best[0]:
                best = done_s, kind
        if best is None:
            return None  # all are dead
        kind = best[1]
        free_s, number = kind[0]
        replica = self._replicas[number]
        takes_s = replica.service_time_s(job.size) / (replica.speed or 1.0)
        heapq.heapreplace(kind, (max(free_s, arrives_s) + takes_s, number))
        return number

    def _changed(self, kind: list[tuple[float, int]], replica: Replica, before: float) -> None:
        """Take note of another speed of replicas that are alike: slots become free at other times.

        None overtakes another by that, so they stay in order.
        """
        now_s, speed = self._events.now_s, replica.speed
        if replica.is_dead:
            kind[:] = sorted((0.0, number) for _, number in kind)
        elif not speed:
            self._stopped.setdefault(id(kind), (now_s, before))
        else:
            since_s, before = self._stopped.pop(id(kind), (now_s, before))
            ratio = (before or 1.0) / speed
            kind[:] = [(now_s + max(0.0, free_s - since_s) * ratio, n) for free_s, n in kind]


def _each(
    kind: Callable[[Sequence[Replica], Random], Chooser],
) -> Callable[[Events, Sequence[Replica], float, Random], ChooserFactory]:
    def make(
        _events: Events, replicas: Sequence[Replica], _network_s: float, random: Random
    ) -> ChooserFactory:
        if any(replica.hit_by for replica in replicas):
            return lambda: Survivors(kind(replicas, random), len(replicas))
        return lambda: kind(replicas, random)

    return make


def _shared(*, knows_sizes: bool) -> Callable[..., ChooserFactory]:
    def make(
        events: Events, replicas: Sequence[Replica], network_s: float, _random: Random
    ) -> ChooserFactory:
        oracle = _Oracle(events, replicas, network_s, knows_sizes=knows_sizes)
        return lambda: oracle

    return make


def _ours(
    events: Events, replicas: Sequence[Replica], _network_s: float, _random: Random
) -> ChooserFactory:
    router = _Router(replicas)
    return lambda: _Ours(events, router)


POLICIES: Mapping[str, Callable[[Events, Sequence[Replica], float, Random], ChooserFactory]] = {
    "ours": _ours,
    "round-robin": _each(_RoundRobin),
    "random": _each(_Random),
    "least-loaded": _each(_LeastLoaded),
    "two-choices": _each(_TwoChoices),
    "two-weighed": _each(_WeighedChoices),
    "all-queues": _shared(knows_sizes=False),
    "oracle": _shared(knows_sizes=True),
}
"""By name: what makes the choosers of a simulation.

It is called with the clock, the replicas, how long a request travels, and randomness. The policy
``all-queues`` knows every queue of the cluster at every moment but not what is in it, the most that
anybody could know; ``oracle`` knows what each request will take.
"""


def find_policies(names: Sequence[str]) -> tuple[str, ...]:
    """Return the policies of these names; without names, all of them.

    Raises:
        OptionError: there is no such policy.
    """
    for name in names:
        if name not in POLICIES:
            raise OptionError("policy", name, f"one of {', '.join(POLICIES)}")
    return tuple(dict.fromkeys(names)) or tuple(POLICIES)
