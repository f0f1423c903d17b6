"""What goes into the router's mind and what comes out of it, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field

from atriva_inference.device import DeviceSpec
from atriva_inference.errors import InferenceRuntimeError
from atriva_inference.options import CompileOptions
from atriva_ray.routing.auto import AutoOptions
from atriva_ray.routing.placement import Placement

__all__ = ["Grant", "Instruction", "ModelRequest", "Refuse", "StartReplica", "StopReplica"]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What a client asks for; two equal requests share their replicas.

    Attributes:
        key: what the router knows the model by.
        name: what people call it.
        path: where the client read it.
        fingerprint: content hash of its files.
        backend: inference library.
        device: parsed device expression.
        options: hint, backend properties, preprocessing and batching.
        replica_count: replicas wanted; None for one on every chosen device.
        cpus_per_replica: CPUs of each replica; None shares out what is free.
        reserve_cpus: whether Ray keeps those CPUs from other tasks.
        max_count: replicas that load may make of them; None for no more than `replica_count`.
        idle_s: after so long without a request the replicas end until the next one; None: never.
        auto: fallbacks, schedule and priority.
    """

    key: str
    name: str
    path: str
    fingerprint: str
    backend: str
    device: DeviceSpec
    options: CompileOptions
    replica_count: int | None = None
    cpus_per_replica: int | None = None
    reserve_cpus: bool = True
    max_count: int | None = None
    idle_s: float | None = None
    auto: AutoOptions = field(default_factory=AutoOptions)

    def difference(self, other: ModelRequest) -> str | None:
        """Say what keeps `other` from sharing this model's replicas; None if nothing does."""
        if self.fingerprint != other.fingerprint:
            return f"read from {self.path!r}, and {other.path!r} has other content"
        for what, mine, theirs in (
            ("backend", self.backend, other.backend),
            ("device", self.device.text.upper(), other.device.text.upper()),
            ("performance_hint", self.options.hint, other.options.hint),
            ("config", dict(self.options.config), dict(other.options.config)),
            ("preprocessing", self.options.preprocessing, other.options.preprocessing),
            ("batching", self.options.batching, other.options.batching),
        ):
            if mine != theirs:
                return f"with {what}={mine!s}, asked for {theirs!s}"
        return None


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Create a replica after `delay_s` seconds and report how that went.

    `after` is one on the same node whose process goes first: two that start at once take twice as
    long, and somebody waits for that one.
    """

    replica_id: str
    request: ModelRequest
    placement: Placement
    delay_s: float = 0.0
    after: str | None = None


@dataclass(frozen=True, slots=True)
class StopReplica:
    """Let a replica finish what it runs, then end its process."""

    replica_id: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Tell the client behind `ticket` that its model is ready."""

    ticket: int
    key: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Tell the client behind `ticket` why its model is not loaded."""

    ticket: int
    error: InferenceRuntimeError


Instruction = StartReplica | StopReplica | Grant | Refuse
