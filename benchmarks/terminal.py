"""The results in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.goals import judge
from benchmarks.results import MemoryResult, Results, ScenarioResult
from benchmarks.tables import cells_of, header_of, memory_rows

__all__ = ["show_goals", "show_memory", "show_scenario"]

_COLOURS = {"met": "green", "short": "red", "not measured": "dim"}


def show_scenario(console: Console, scenario: ScenarioResult) -> None:
    """Print a scenario's table."""
    table = _table(scenario.title, header_of(scenario))
    for cells in cells_of(scenario):
        table.add_row(*cells)
    console.print(table, highlight=False)


def show_memory(console: Console, memory: MemoryResult) -> None:
    """Print the table of memory."""
    table = _table("Memory of a process that holds SqueezeNet, MB", ["", "USS", "PSS", "RSS"])
    for cells in memory_rows(memory):
        table.add_row(*cells)
    console.print(table, highlight=False)


def show_goals(console: Console, results: Results) -> None:
    """Print what was to be reached and what was."""
    table = _table("Goals", ["", "goal", "measured", ""])
    for verdict in judge(results):
        word = f"[{_COLOURS[verdict.word]}]{verdict.word}[/]"
        table.add_row(verdict.goal.text, verdict.goal.wanted, verdict.measured, word)
    console.print(table, highlight=False)


def _table(title: str, header: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(header[0])
    for heading in header[1:]:
        table.add_column(heading, justify="right")
    return table
