"""The results as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # no screen is needed

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks import statistics
from benchmarks.results import Results, RowResult, ScenarioResult
from benchmarks.tables import size_text

__all__ = ["draw"]

_OURS, _PEERS, _BASE = "#1f6feb", "#9aa4af", "#444c56"
_LINES = {
    "in_process": ("one process", _BASE, "o"),
    "ours": ("atriva_ray", _OURS, "o"),
    "ours_tcp": ("atriva_ray, TCP", "#54aeff", "s"),
    "ours_off": ("atriva_ray, actor calls", "#bf8700", "^"),
    "ray_actor": ("plain Ray actor", _PEERS, "D"),
}
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(results: Results, path: Path) -> None:
    """Write the picture: bars for each scenario, lines for the sizes."""
    scenarios = list(results.scenarios.values())
    if not scenarios:
        return
    heights = [max(2.0, 0.29 * _bars(scenario) + 1.0) for scenario in scenarios]
    left, right = _columns(list(zip(scenarios, heights, strict=True)))
    columns = [column for column in (left, right) if column]
    height = max(sum(height for _, height in column) for column in columns)
    with plt.rc_context(_STYLE):
        figure = plt.figure(figsize=(6.8 * len(columns), height), layout="constrained")
        parts: Any = figure.subfigures(1, len(columns), squeeze=False)[0]
        for part, column in zip(parts, columns, strict=True):
            axes = part.subplots(
                len(column), 1, squeeze=False, height_ratios=[height for _, height in column]
            )[:, 0]
            for axis, (scenario, _) in zip(axes, column, strict=True):
                _draw_scenario(axis, scenario)
        engine: Any = figure.get_layout_engine()
        engine.set(h_pad=0.12, w_pad=0.12)
        if results.is_smoke_test:
            figure.suptitle("smoke test: figures mean nothing", color="#cf222e")
        figure.supxlabel(
            "Medians of rounds; thin lines from the lowest to the highest.", fontsize=8
        )
        figure.savefig(path, dpi=130)
        plt.close(figure)


def _columns(panels: list[tuple[ScenarioResult, float]]) -> tuple[list[Any], list[Any]]:
    """Share the panels out over two columns of about the same height, throughput first."""
    flows = [panel for panel in panels if panel[0].kind == "flow"]
    others = [panel for panel in panels if panel[0].kind != "flow"]
    return flows, others


def _bars(scenario: ScenarioResult) -> int:
    return 10 if _is_sweep(scenario) else len(scenario.rows)


def _is_sweep(scenario: ScenarioResult) -> bool:
    return len({row.size_bytes for row in scenario.rows}) > 1


def _draw_scenario(axis: Axes, scenario: ScenarioResult) -> None:
    axis.set_title(scenario.title)
    if _is_sweep(scenario):
        _draw_sweep(axis, scenario)
    elif scenario.kind == "flow":
        _draw_flow(axis, scenario)
    else:
        _draw_trips(axis, scenario)


def _draw_flow(axis: Axes, scenario: ScenarioResult) -> None:
    base = scenario.row(scenario.baseline)
    rounds = [statistics.ratios(row.rates, base.rates if base else []) for row in scenario.rows]
    values = [statistics.median(each) or 0.0 for each in rounds]
    texts = [
        f"{value:.2f}   {statistics.median(row.rates) or 0:,.0f}/s"
        for value, row in zip(values, scenario.rows, strict=True)
    ]
    _draw_bars(axis, scenario, values, rounds, texts)
    axis.axvline(1.0, color=_BASE, linewidth=0.8, linestyle=":")
    axis.set_xlabel("throughput, bare AsyncInferQueue = 1")


def _draw_trips(axis: Axes, scenario: ScenarioResult) -> None:
    rounds = [row.p50_ms for row in scenario.rows]
    values = [statistics.median(each) or 0.0 for each in rounds]
    texts = []
    for row, value in zip(scenario.rows, values, strict=True):
        added = scenario.added_ms(row.name) or 0.0
        plus = "" if row.name == scenario.baseline else f"   {added:+.3f}"
        texts.append(f"{value:.3f}{plus}")
    _draw_bars(axis, scenario, values, rounds, texts)
    axis.set_xlabel("p50 in ms, + what is added to one process")


def _draw_bars(
    axis: Axes,
    scenario: ScenarioResult,
    values: list[float],
    rounds: list[list[float]],
    texts: list[str],
) -> None:
    places = list(range(len(values)))
    colours = [_colour(row, scenario.baseline) for row in scenario.rows]
    axis.barh(places, values, color=colours, height=0.66)
    longest = max((max(each, default=0.0) for each in rounds), default=0.0) or 1.0
    for place, each, text in zip(places, rounds, texts, strict=True):
        if each:
            axis.plot([min(each), max(each)], [place, place], color="black", linewidth=0.8)
        end = max(each, default=0.0)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axis.text(end + 0.02 * longest, place, text, va="center", fontsize=8, bbox=box)
    axis.set_yticks(places, [row.label for row in scenario.rows])
    axis.invert_yaxis()
    axis.set_xlim(0, longest * 1.36)
    axis.tick_params(axis="y", length=0)


def _draw_sweep(axis: Axes, scenario: ScenarioResult) -> None:
    for name, (label, colour, marker) in _LINES.items():
        rows = [row for row in scenario.rows if row.name.partition("@")[0] == name]
        if rows:
            axis.plot(
                [row.size_bytes for row in rows],
                [statistics.median(row.p50_ms) or float("nan") for row in rows],
                label=label,
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1.4,
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    sizes = sorted({row.size_bytes for row in scenario.rows})
    axis.set_xticks(sizes, [size_text(size) for size in sizes])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_ylabel("p50, ms")
    axis.grid(visible=True, which="major", color="#d8dee4", linewidth=0.6)
    axis.legend(frameon=False, fontsize=8)


def _colour(row: RowResult, baseline: str) -> str:
    if row.name == baseline:
        return _BASE
    return _OURS if row.name.startswith("ours") else _PEERS
