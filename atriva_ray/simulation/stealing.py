"""`StealingClient`: takes back what has not begun to run when another replica falls idle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from atriva_ray.simulation.events import Events
from atriva_ray.simulation.machinery import Answer, Chooser, Client, Job, Replica

__all__ = ["Stealer", "StealingClient"]


@runtime_checkable
class Stealer(Chooser, Protocol):
    """A chooser that changes its mind."""

    def steal(self) -> tuple[int, int] | None:
        """Return from where to where the last request sent is to be moved; None: none is."""
        ...

    def moved(self, old: int, new: int) -> None:
        """Take note that it was."""
        ...


class StealingClient(Client):
    """Asks its chooser, whenever it has nothing to send, whether a request is to be moved.

    The replica that had it hears of that after a journey. If the request has begun by then, it runs
    twice, and the first answer is for nothing.
    """

    def __init__(
        self,
        events: Events,
        replicas: list[Replica],
        chooser: Stealer,
        network_s: float,
        answered: Callable[[Job], None],
    ) -> None:
        """Make one that has nothing to ask yet, see `Client`."""
        super().__init__(events, replicas, chooser, network_s, answered)
        self._stealer = chooser
        self._under_way: defaultdict[int, list[Job]] = defaultdict(list)

    def _receive(self, replica: Replica, answer: Answer) -> None:
        jobs = self._under_way[replica.number]
        if answer.job in jobs:
            jobs.remove(answer.job)
            super()._receive(replica, answer)

    def _send_to(self, number: int, job: Job) -> None:
        self._under_way[number].append(job)
        super()._send_to(number, job)

    def _send(self) -> None:
        super()._send()
        while not self._waiting and (move := self._stealer.steal()) is not None:
            old, new = move
            job = self._under_way[old].pop()
            self._stealer.moved(old, new)
            arrives_s = self._events.now_s + self._network_s
            self._events.at(arrives_s, self._replicas[old].cancel, job, self)
            self._send_to(new, job)

    def lost(self, replica: int, job: Job) -> None:
        """Send a request once more, if it was not moved before."""
        if job in self._under_way[replica]:
            self._under_way[replica].remove(job)
            super().lost(replica, job)
