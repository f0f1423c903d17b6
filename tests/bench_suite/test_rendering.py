"""That results of every kind can be shown and drawn; what they say is not looked at."""

from __future__ import annotations

import io
import itertools

import pytest
from PIL import Image
from rich.console import Console

from benchmarks.machine import about_machine
from benchmarks.markdown import to_markdown
from benchmarks.plot import draw
from benchmarks.results import MemoryResult, Results, RowResult, ScenarioResult
from benchmarks.scenarios import make_scenarios
from benchmarks.terminal import show_goals, show_memory, show_scenario


@pytest.fixture
def results(tmp_path):
    """Results of all scenarios, with made-up figures."""
    plan = {"rounds": 2, "turns": 1, "seconds": 3.0, "threads": 2}
    found = Results(about_machine() | {"plan": plan, "in_flight": 16})
    figures = itertools.count(1)
    for scenario in make_scenarios(tmp_path):
        rows = [RowResult(row.name, row.label, scenario.size_bytes(row)) for row in scenario.rows]
        for row in rows:
            if scenario.kind == "flow":
                row.rates = [float(next(figures)), float(next(figures))]
            else:
                row.p50_ms = [next(figures) / 10, next(figures) / 10]
                row.p99_ms = [value * 2 for value in row.p50_ms]
        found.scenarios[scenario.name] = ScenarioResult(
            scenario.name, scenario.title, scenario.kind, rows[0].name, rows
        )
    held = {"uss": 90_000_000, "pss": 95_000_000, "rss": 99_000_000}
    found.memory = MemoryResult([held, held], [held, held])
    return found


def test_markdown_has_every_scenario_and_goal(results):
    page = to_markdown(results, "plot.png")
    assert page.startswith("# Benchmarks\n")
    assert "![Plot](plot.png)" in page
    for scenario in results.scenarios.values():
        assert f"## {scenario.title}" in page
        for row in scenario.rows:
            assert f"| {row.label} |" in page
    assert page.count("| met |") + page.count("| short |") == 9
    widths = {line.count("|") for line in page.splitlines() if line.startswith("| atriva_ray,")}
    assert widths == {5}


def test_a_smoke_test_says_so(results):
    results.is_smoke_test = True
    assert "smoke test" in to_markdown(results, "plot.png")


def test_the_terminal_shows_everything(results):
    console = Console(file=io.StringIO(), width=140)
    for scenario in results.scenarios.values():
        show_scenario(console, scenario)
    show_memory(console, results.memory)
    show_goals(console, results)
    shown = console.file.getvalue()
    for words in ("of bare", "added to one process", "MB/s", "USS", "Ray Serve handle", "≥ 0.97"):
        assert words in shown


@pytest.mark.parametrize("names", [None, ("payload",), ("squeezenet", "latency"), ()])
def test_the_plot_of_some_scenarios(results, names, tmp_path):
    if names is not None:
        results.scenarios = {name: results.scenarios[name] for name in names}
    path = tmp_path / "plot.png"
    draw(results, path)
    assert path.exists() == bool(results.scenarios)
    if path.exists():
        with Image.open(path) as picture:
            assert picture.width > 500
