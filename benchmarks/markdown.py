"""The results as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.goals import judge
from benchmarks.results import Results, ScenarioResult
from benchmarks.tables import aligned, cells_of, header_of, memory_rows, settings_lines

__all__ = ["to_markdown"]


def to_markdown(results: Results, plot_name: str) -> str:
    """Write the page.

    Args:
        results: what was found.
        plot_name: file name of the plot, which lies beside the page.
    """
    parts = ["# Benchmarks"]
    if results.is_smoke_test:
        parts.append("**A smoke test: it ran too short for these figures to mean anything.**")
    parts += ["\n".join(f"- {line}" for line in settings_lines(results)), f"![Plot]({plot_name})"]
    goals = [
        [verdict.goal.text, verdict.goal.wanted, verdict.measured, verdict.word]
        for verdict in judge(results)
    ]
    parts += ["## Goals", _table(["", "goal", "measured", ""], goals)]
    for scenario in results.scenarios.values():
        table = _table(header_of(scenario), cells_of(scenario))
        parts += [f"## {scenario.title}", table, _quiet(scenario)]
    if results.memory is not None:
        rows = memory_rows(results.memory)
        table = _table(["", "USS", "PSS", "RSS"], rows)
        parts += ["## Memory of a process that holds SqueezeNet, MB", table]
    return "\n\n".join(parts) + "\n"


def _quiet(scenario: ScenarioResult) -> str:
    return (
        f"All programs together, idle: {scenario.idle_cores:.2f} cores. While the baseline ran, "
        f"everything else on the machine: {scenario.others_cores:.2f} cores."
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, aligned(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
