"""Figures of a benchmark: collected round by round, judged, shown, written and drawn."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from benchmarks.machine import about_machine

mpl.use("Agg")  # no screen is needed

from matplotlib import pyplot as plt

__all__ = ["Figure", "Figures", "show", "write"]

_out = Console()


@dataclass(slots=True)
class Figure:
    """One quantity over all rounds.

    Attributes:
        name: what it is.
        goal: what it should at least be, or at most; None if it is only told.
        is_limit: whether the goal is what it should at most be.
        rounds: one value per round.
    """

    name: str
    goal: float | None
    is_limit: bool = False
    rounds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def goal_text(self) -> str:
        """The goal as people write it."""
        return "" if self.goal is None else f"{'≤' if self.is_limit else '≥'} {self.goal:.2f}"


class Figures:
    """Figures by name, in the order in which they were first told."""

    def __init__(self) -> None:
        self.found: dict[str, Figure] = {}

    def add(
        self, name: str, value: float, goal: float | None = None, *, is_limit: bool = False
    ) -> None:
        """Note one round's value, and show it."""
        self.found.setdefault(name, Figure(name, goal, is_limit)).rounds.append(value)
        _out.print(f"  {name}: {value:.3f}", highlight=False)


def show(figures: Sequence[Figure]) -> None:
    """Print a table of them."""
    table = Table("", "goal", "median", "rounds")
    for each in figures:
        spread = f"{min(each.rounds):.2f} to {max(each.rounds):.2f}"
        table.add_row(each.name, each.goal_text, f"{each.median:.3f}", spread)
    _out.print(table)


def write(
    figures: Sequence[Figure],
    folder: Path,
    name: str,
    title: str,
    is_drawn: Callable[[Figure], bool] = lambda _figure: True,
) -> None:
    """Write JSON, Markdown and a plot.

    Args:
        figures: all of them.
        folder: where to.
        name: the files' first word.
        title: of the page and the plot.
        is_drawn: which of them belong on one axis.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / time.strftime(f"{name}-%Y-%m-%d-%H%M")
    content = {"machine": about_machine(), "figures": [asdict(each) for each in figures]}
    stem.with_suffix(".json").write_text(json.dumps(content, indent=2, default=str))
    lines = ["| | goal | median | rounds |", "| --- | ---: | ---: | ---: |"]
    for each in figures:
        spread = f"{min(each.rounds):.2f} to {max(each.rounds):.2f}"
        lines.append(f"| {each.name} | {each.goal_text} | {each.median:.3f} | {spread} |")
    stem.with_suffix(".md").write_text("\n".join([f"# {title}", "", *lines, ""]))
    _draw([each for each in figures if is_drawn(each)], title, stem.with_suffix(".png"))
    _out.print(f"wrote {stem}.json, .md and .png")


def _draw(shown: Sequence[Figure], title: str, path: Path) -> None:
    figure, axis = plt.subplots(figsize=(8, 0.4 * len(shown) + 1), layout="constrained")
    names = [each.name for each in shown]
    colours = ["#1f6feb" if "ours" in name else "#9aa4af" for name in names]
    axis.barh(names, [each.median for each in shown], color=colours)
    for index, each in enumerate(shown):
        axis.text(0.02, index, f"{each.median:.2f}", va="center", color="white", weight="bold")
        if each.goal is not None:
            axis.plot([each.goal] * 2, [index - 0.4, index + 0.4], color="#cf222e")
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(f"{title} (red: goal)", loc="left", fontweight="bold")
    figure.savefig(path, dpi=130)
    plt.close(figure)
