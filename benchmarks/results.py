"""What a run of the suite found, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks import statistics

__all__ = ["MemoryResult", "Results", "RowResult", "ScenarioResult"]


@dataclass(slots=True)
class RowResult:
    """One row over all rounds.

    Attributes:
        name: unique within the scenario.
        label: for people.
        size_bytes: size of each input.
        rates: requests per second of each round, where throughput was measured.
        p50_ms: median round trip of each round, where round trips were measured.
        p99_ms: the same for the 99th percentile.
    """

    name: str
    label: str
    size_bytes: int
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


@dataclass(slots=True)
class ScenarioResult:
    """One scenario.

    Attributes:
        name: as for ``--only``.
        title: for people.
        kind: ``flow`` (requests per second) or ``trips`` (milliseconds).
        baseline: name of the row that the others are compared with.
        rows: in the order of the table.
        programs: how each program's model was compiled, and what else it says of itself.
        idle_cores: processor cores that all programs together used while none was measured.
        others_cores: cores that the rest of the machine, idle programs included, used while the
            baseline ran: median over the turns.
    """

    name: str
    title: str
    kind: str
    baseline: str
    rows: list[RowResult]
    programs: dict[str, Any] = field(default_factory=dict)
    idle_cores: float = 0.0
    others_cores: float = 0.0

    def row(self, name: str) -> RowResult | None:
        """Return the row of this name."""
        return next((row for row in self.rows if row.name == name), None)

    def ratio(self, name: str, to: str | None = None) -> float | None:
        """Return the median over the rounds of one row's rate divided by another's."""
        row, base = self.row(name), self.row(to or self.baseline)
        if row is None or base is None:
            return None
        return statistics.median(statistics.ratios(row.rates, base.rates))

    def added_ms(self, name: str, to: str | None = None) -> float | None:
        """Return the median over the rounds of one row's p50 minus another's."""
        row, base = self.row(name), self.row(to or self.baseline)
        if row is None or base is None:
            return None
        return statistics.median(statistics.differences(row.p50_ms, base.p50_ms))


@dataclass(slots=True)
class MemoryResult:
    """Memory of processes that hold the same model, in bytes, one entry per round.

    Attributes:
        replica: ``uss``, ``pss`` and ``rss`` of this project's replica.
        actor: the same of a plain Ray actor.
    """

    replica: list[dict[str, int]] = field(default_factory=list)
    actor: list[dict[str, int]] = field(default_factory=list)

    def extra_mb(self, kind: str) -> float | None:
        """Return the median over the rounds of what the replica needs more, in MB."""
        return statistics.median(
            [
                (mine[kind] - theirs[kind]) / 1e6
                for mine, theirs in zip(self.replica, self.actor, strict=True)
            ]
        )


@dataclass(slots=True)
class Results:
    """Everything.

    Attributes:
        about: machine, versions, settings, commit.
        scenarios: by name, in the order measured.
        memory: None if it was not measured.
        is_smoke_test: whether it ran too short to mean anything.
    """

    about: dict[str, Any]
    scenarios: dict[str, ScenarioResult] = field(default_factory=dict)
    memory: MemoryResult | None = None
    is_smoke_test: bool = False
