"""What the project wants to reach, and whether it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import statistics
from benchmarks.results import Results

__all__ = ["GOALS", "Goal", "Verdict", "judge"]

Measure = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """One thing to reach.

    Attributes:
        text: what is measured.
        bound: the value to reach.
        measure: takes the value from the results; None where it was not measured.
        is_at_least: whether more is better.
        unit: of both values, empty for ratios.
        decimals: digits to show.
    """

    text: str
    bound: float
    measure: Measure
    is_at_least: bool = True
    unit: str = ""
    decimals: int = 2

    def shown(self, value: float) -> str:
        """Write a value with its unit."""
        return f"{value:,.{self.decimals}f} {self.unit}".rstrip()

    @property
    def wanted(self) -> str:
        """The goal in words."""
        return f"{'≥' if self.is_at_least else '≤'} {self.shown(self.bound)}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal, what was measured, and whether that meets it (None: it was not measured)."""

    goal: Goal
    value: float | None
    is_met: bool | None

    @property
    def measured(self) -> str:
        """The value in words."""
        return "–" if self.value is None else self.goal.shown(self.value)

    @property
    def word(self) -> str:
        """``met``, ``short`` or ``not measured``."""
        return "not measured" if self.is_met is None else "met" if self.is_met else "short"


def _ratio(scenario: str, row: str, to: str | None = None) -> Measure:
    def measure(results: Results) -> float | None:
        found = results.scenarios.get(scenario)
        return None if found is None else found.ratio(row, to)

    return measure


def _added(scenario: str) -> Measure:
    def measure(results: Results) -> float | None:
        found = results.scenarios.get(scenario)
        return None if found is None else found.added_ms("ours", "in_process")

    return measure


def _digits(results: Results) -> float | None:
    """Return the share of the goal that is reached: of 10,000 requests/s, or of half in-process."""
    found = results.scenarios.get("digits")
    row = None if found is None else found.row("ours")
    if found is None or row is None or not row.rates:
        return None
    rate = statistics.median(row.rates) or 0.0
    share = found.ratio("ours", "in_process") or 0.0
    return max(rate / 10_000, share / 0.5)


def _memory(results: Results) -> float | None:
    return None if results.memory is None else results.memory.extra_mb("uss")


GOALS = (
    Goal("SqueezeNet, one client, of AsyncInferQueue", 0.97, _ratio("squeezenet", "ours")),
    Goal("ResNet-50, one client, of AsyncInferQueue", 0.98, _ratio("resnet50", "ours")),
    Goal("SqueezeNet, four clients together", 0.95, _ratio("squeezenet", "ours_4")),
    Goal("SqueezeNet, TCP lane over loopback", 0.80, _ratio("squeezenet", "ours_tcp")),
    Goal("SqueezeNet, ours ÷ Ray Serve handle", 3.0, _ratio("squeezenet", "ours", "ray_serve")),
    Goal(
        "stream.run p50, added to one process, 602 kB",
        0.15,
        _added("latency"),
        is_at_least=False,
        unit="ms",
        decimals=3,
    ),
    Goal(
        "stream.run p50, added to one process, 1 kB",
        0.08,
        _added("latency_small"),
        is_at_least=False,
        unit="ms",
        decimals=3,
    ),
    Goal(
        "digits, one client: of 10,000 requests/s, or of half of one process (the better)",
        1.0,
        _digits,
    ),
    Goal(
        "extra memory of a replica over a bare actor (USS)",
        30.0,
        _memory,
        is_at_least=False,
        unit="MB",
        decimals=1,
    ),
)


def judge(results: Results) -> list[Verdict]:
    """Compare the results with every goal."""
    verdicts = []
    for goal in GOALS:
        value = goal.measure(results)
        is_met = None
        if value is not None:
            is_met = value >= goal.bound if goal.is_at_least else value <= goal.bound
        verdicts.append(Verdict(goal, value, is_met))
    return verdicts
