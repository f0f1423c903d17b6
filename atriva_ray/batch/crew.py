"""The feeders of a job: started, given work, replaced when they are lost, ended with the job."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import ray

from atriva_ray.batch.feeder import Feeder, FeederProgress
from atriva_ray.batch.fragment_run import FragmentWork, Quarantined
from atriva_ray.batch.fragments import Fragment
from atriva_ray.batch.manifest import FragmentDone
from atriva_ray.batch.schedule import FRAGMENTS_AT_ONCE, Schedule
from atriva_ray.model import ModelOrigin
from atriva_ray.ray_errors import LOST, translated

__all__ = ["Crew", "Failed", "Finished", "Lost"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """A fragment is whole.

    Attributes:
        done: its counts.
        bad: its rows that could not be used.
    """

    done: FragmentDone
    bad: Sequence[Quarantined]


@dataclass(frozen=True, slots=True)
class Failed:
    """A fragment could not be done, and no row of it is to blame.

    Attributes:
        index: which one.
        error: why.
    """

    index: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class Lost:
    """A feeder's process ended.

    Attributes:
        feeder_id: which one; another one with another id takes its place.
        reason: what is known of its end.
    """

    feeder_id: str
    reason: str


@dataclass(slots=True, eq=False)
class _Member:
    feeder_id: str
    node_id: str
    actor: Any
    progress: FeederProgress = field(default_factory=FeederProgress)
    asked: Any = None


class Crew:
    """Feeders on some nodes, for one thread. Close it; that ends their processes."""

    def __init__(self, node_ids: Sequence[str]) -> None:
        """Start one feeder per entry; returns before they run.

        Args:
            node_ids: Ray's ids of the nodes, one entry per feeder.
        """
        self._actor_class: Any = ray.remote(Feeder)
        self._numbers = count(1)
        self._members: dict[str, _Member] = {}
        self._running: dict[Any, tuple[str, int]] = {}
        self._past: Counter[str] = Counter()
        self._opening: tuple[Any, ...] = ()
        for node_id in node_ids:
            self._hire(node_id)

    def open(
        self, origin: ModelOrigin, work: FragmentWork, input_url: str, output_url: str
    ) -> None:
        """Connect the feeders to a model; see `Feeder.open`. Blocks until all are.

        Raises:
            InferenceRuntimeError: one could not.
        """
        self._opening = (origin, work, input_url, output_url)
        try:
            ray.get([each.actor.open.remote(*self._opening) for each in self._members.values()])
        except ray.exceptions.RayError as error:
            raise translated(error, origin.request.name) from None

    def give(self, schedule: Schedule[tuple[Fragment, Any]]) -> None:
        """Hand out fragments until every feeder has enough."""
        for _ in range(FRAGMENTS_AT_ONCE):  # one each before anybody gets a second
            for member in self._members.values():
                taken = schedule.take(member.feeder_id)
                if taken is None:
                    continue
                index, (fragment, table) = taken
                answer = member.actor.run.remote(fragment, table)
                self._running[answer] = (member.feeder_id, index)

    def wait(self, timeout_s: float) -> list[Finished | Failed | Lost]:
        """Return what happened; waits at most `timeout_s` for the first event."""
        for member in self._members.values():
            if member.asked is None:
                member.asked = member.actor.progress.remote()
        asked = {member.asked: member for member in self._members.values()}
        ready: list[Any] = []
        if self._running:
            ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout_s)
        more, _ = ray.wait([*self._running, *asked], num_returns=len(asked) or 1, timeout=0)
        events: list[Finished | Failed | Lost] = []
        for reply in dict.fromkeys([*ready, *more]):
            if reply in asked:
                self._take_progress(asked[reply])
            elif reply in self._running:
                event = self._take(reply)
                if event is not None:
                    events.append(event)
        return events

    def progress(self) -> FeederProgress:
        """Return what the feeders have last said, added up."""
        rows: Counter[int] = Counter()
        requests = Counter(self._past)
        waiting = 0
        for member in self._members.values():
            rows.update(member.progress.rows)
            requests.update(member.progress.requests)
            waiting += member.progress.waiting
        return FeederProgress(dict(rows), dict(requests), waiting)

    def restart(self) -> None:
        """End all feeders and start new ones, as after the model was lost; `open` comes next."""
        node_ids = [member.node_id for member in self._members.values()]
        self.close()
        for node_id in node_ids:
            self._hire(node_id)

    def close(self) -> None:
        """End the feeders at once; what they had begun is not done."""
        for member in list(self._members.values()):
            self._dismiss(member)
        self._running.clear()

    @property
    def feeder_ids(self) -> list[str]:
        """The feeders there are now."""
        return list(self._members)

    def _take(self, reply: Any) -> Finished | Failed | Lost | None:
        feeder_id, index = self._running.pop(reply)
        try:
            done, bad = ray.get(reply)
        except LOST as error:
            return self._replace(feeder_id, str(error))
        except ray.exceptions.RayError as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else None
            failure = cause if isinstance(cause, OSError) else translated(error, "batch")
            return Failed(index, failure)
        return Finished(done, bad)

    def _take_progress(self, member: _Member) -> None:
        reply, member.asked = member.asked, None
        try:
            member.progress = ray.get(reply)
        except ray.exceptions.RayError as error:  # its fragments will tell
            _logger.debug("feeder %s says nothing: %s", member.feeder_id, error)

    def _replace(self, feeder_id: str, reason: str) -> Lost | None:
        member = self._members.get(feeder_id)
        if member is None:  # another of its fragments has told already
            return None
        _logger.warning("a feeder ended: %s", reason)
        self._dismiss(member)
        self._running = {
            reply: (owner, index)
            for reply, (owner, index) in self._running.items()
            if owner != feeder_id
        }
        fresh = self._hire(member.node_id)
        if self._opening:
            fresh.actor.open.remote(*self._opening)  # what it raises, run() raises as well
        return Lost(feeder_id, reason)

    def _hire(self, node_id: str) -> _Member:
        feeder_id = f"feeder-{next(self._numbers)}"
        actor = self._actor_class.options(
            num_cpus=0,
            max_concurrency=FRAGMENTS_AT_ONCE + 2,  # one for progress(), one for open()
            max_restarts=0,
            scheduling_strategy=ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                node_id, soft=True
            ),
        ).remote()
        member = self._members[feeder_id] = _Member(feeder_id, node_id, actor)
        return member

    def _dismiss(self, member: _Member) -> None:
        del self._members[member.feeder_id]
        self._past.update(member.progress.requests)
        if ray.is_initialized():
            ray.kill(member.actor)
