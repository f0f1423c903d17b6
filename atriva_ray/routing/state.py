"""What the router's mind remembers of one model and of each of its replicas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from atriva_ray.routing.aside import Trouble
from atriva_ray.routing.auto import ModelPriority
from atriva_ray.routing.messages import ModelRequest
from atriva_ray.routing.placement import Node, Placement, Seat

__all__ = ["FIRST_RESTART_DELAY_S", "ModelState", "Phase", "ReplicaState"]

FIRST_RESTART_DELAY_S = 0.1


class Phase(Enum):
    """Where a replica is in its life."""

    STARTING = "starting"
    READY = "ready"
    ASIDE = "aside"  # its device failed: it lives, and gets no requests for a while


@dataclass(slots=True)
class ReplicaState:
    """One replica.

    Attributes:
        placement: where it runs.
        phase: whether it may be used.
        slot_count: requests it runs at once, once it is ready.
        ready_s: since when it is ready.
        is_replacement: whether it was started for one that died.
        is_stand_in: whether it goes when a device that is preferred to its own can answer.
        reserves: whether its CPUs are kept from others; a stand-in's are not.
        trouble: how often its device failed.
    """

    placement: Placement
    phase: Phase = Phase.STARTING
    slot_count: int = 0
    ready_s: float = 0.0
    is_replacement: bool = False
    is_stand_in: bool = False
    reserves: bool = True
    trouble: Trouble = field(default_factory=Trouble)


@dataclass(slots=True)
class ModelState:
    """One loaded model.

    Attributes:
        request: what was asked for first.
        generation: number of this load.
        nodes: the cluster as it was then.
        groups: seats that were not tried yet, the most preferred group first.
        spare: seats on processors of which no CPU is free; what stands in needs none of its own.
        seats: the group in use.
        replica_count: the most replicas that anybody asked for.
        replicas: by id.
        waiting: tickets of those who wait for it.
        users: how often each client uses it.
        reasons: why seats refused it, by label.
        priority: the highest that anybody asked for.
        is_falling_back: whether the first replica that is ready is enough to answer who waits.
        doubted_until_s: until when stand-ins stay beside replicas that are ready.
        next_opinion_s: from when on a failure may start another second opinion.
        opinion_delay_s: how long the next second opinion is put off.
    """

    request: ModelRequest
    generation: int
    nodes: Sequence[Node]
    groups: list[list[Seat]]
    spare: list[Seat] = field(default_factory=list)
    seats: list[Seat] = field(default_factory=list)
    replica_count: int = 0
    replicas: dict[str, ReplicaState] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)
    users: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)
    restart_delay_s: float = FIRST_RESTART_DELAY_S
    deaths_before_ready: int = 0
    failed_replacements: int = 0
    priority: ModelPriority = ModelPriority.MEDIUM
    is_falling_back: bool = False
    doubted_until_s: float = 0.0
    next_opinion_s: float = 0.0
    opinion_delay_s: float = 0.0

    @property
    def regulars(self) -> dict[str, ReplicaState]:
        """The replicas that are there to stay."""
        return {key: each for key, each in self.replicas.items() if not each.is_stand_in}

    @property
    def stand_ins(self) -> dict[str, ReplicaState]:
        """The others."""
        return {key: each for key, each in self.replicas.items() if each.is_stand_in}

    @property
    def is_starting(self) -> bool:
        """Whether a replica that was asked for has not said yet how it went."""
        return any(
            replica.phase is Phase.STARTING and not replica.is_replacement
            for replica in self.regulars.values()
        )

    @property
    def has_ready(self) -> bool:
        """Whether some replica can answer."""
        return any(replica.phase is Phase.READY for replica in self.replicas.values())

    @property
    def has_regular_ready(self) -> bool:
        """Whether one can answer that is no stand-in."""
        return any(replica.phase is Phase.READY for replica in self.regulars.values())

    @property
    def has_served(self) -> bool:
        """Whether some replica is ready, or stands in for one that was."""
        return self.has_ready or any(replica.is_replacement for replica in self.replicas.values())
