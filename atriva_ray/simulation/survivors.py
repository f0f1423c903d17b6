"""`Survivors`: keeps any chooser from choosing replicas that are known to be dead."""

from __future__ import annotations

from atriva_ray.simulation.machinery import Answer, Chooser, Job

__all__ = ["Survivors"]


class Survivors:
    """Has a chooser choose again until its choice is one that is not known to be dead."""

    def __init__(self, chooser: Chooser, replica_count: int) -> None:
        self._chooser = chooser
        self._replica_count = replica_count
        self._gone: set[int] = set()

    def choose(self, job: Job) -> int | None:
        """Return the replica for the request that comes next; None: it is to wait."""
        if len(self._gone) == self._replica_count:
            return None
        while True:
            replica = self._chooser.choose(job)
            if replica not in self._gone:
                return replica

    def started(self, replica: int) -> None:
        """Take note that a request was sent."""
        self._chooser.started(replica)

    def finished(self, replica: int, answer: Answer) -> None:
        """Take note of an answer, and of what the replica says with it."""
        self._chooser.finished(replica, answer)

    def forget(self, replica: int) -> None:
        """Take note that a replica died."""
        self._gone.add(replica)
        self._chooser.forget(replica)

    def add(self, replica: int) -> None:
        """Take note that a replica that died is back."""
        self._gone.discard(replica)
        self._chooser.add(replica)
