"""Pictures of what became of simulated requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from atriva_ray.simulation.plan import Try, fewest
from atriva_ray.simulation.scenario import Scenario
from atriva_ray.simulation.simulate import Outcome, quantiles

mpl.use("Agg")  # no screen is needed

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

__all__ = ["draw", "draw_plan"]

_ABOVE = np.geomspace(1, 1e-4, 400)
_PERCENTILES = {"p50": 0.5, "p90": 0.1, "p99": 0.01, "p99.9": 0.001}
_OURS = "#1f6feb"
_COLOURS = ("#d9822b", "#2a9d6f", "#b0413e", "#8e6fc1", "#7a5c45", "#5f6b76")
_LINES = ("--", "-.", ":")
_GREY = "#9aa4af"
_TEXT = "#5f6b76"
_MAX_WINDOWS = 80
_WINDOW_REQUESTS = 300
"""With fewer, one request more or less would be another percentile of 99."""

_Styles = Mapping[str, Mapping[str, Any]]


def draw(scenario: Scenario, outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a PNG: latencies per policy and how busy replicas were; with faults, also over time."""
    rows = 2 if scenario.faults else 1
    figure = plt.figure(figsize=(11, 4.6 * rows), layout="constrained")
    grid = figure.add_gridspec(rows, 2, width_ratios=(3, 2))
    styles = _styles([outcome.policy for outcome in outcomes])
    _draw_latencies(figure.add_subplot(grid[0, 0]), outcomes, styles)
    _draw_use(figure.add_subplot(grid[0, 1]), outcomes, styles)
    if scenario.faults:
        _draw_time(figure.add_subplot(grid[1, :]), scenario, outcomes, styles)
    _save(figure, path)


def draw_plan(tries: Mapping[str, Sequence[Try]], goal_s: float, path: Path) -> None:
    """Write a PNG: p99 by number of nodes, one line per policy, and the goal."""
    figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for policy, style in _styles(list(tries)).items():
        by_nodes = sorted(tries[policy], key=lambda each: each.nodes)
        nodes = [each.nodes for each in by_nodes]
        axis.plot(nodes, [each.p99_s * 1e3 for each in by_nodes], marker="o", ms=4, **style)
        best = fewest(by_nodes)
        place = (best.nodes, best.p99_s * 1e3)
        axis.plot(*place, marker="o", ms=11, mew=2, fillstyle="none", color=style["color"])
        text = {"color": style["color"], "weight": "bold"}
        axis.annotate(f"{best.nodes:,}", place, (8, 6), textcoords="offset points", **text)
    axis.axhline(goal_s * 1e3, color=_GREY)
    _note(axis, f"goal: {goal_s * 1e3:g} ms", goal_s * 1e3)
    axis.set(xlabel="nodes", ylabel="p99, ms", title="How many nodes it takes")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _log_scale(axis, "y")
    axis.legend(frameon=False)
    _save(figure, path)


def _styles(policies: Sequence[str]) -> _Styles:
    """What each policy looks like, in all parts of a picture."""
    others = zip(cycle(_COLOURS), cycle(_LINES), strict=False)
    styles = {}
    for policy in policies:
        color, line, width = (_OURS, "-", 2.6) if policy == "ours" else (*next(others), 1.6)
        styles[policy] = {"color": color, "linestyle": line, "linewidth": width, "label": policy}
    return styles


def _draw_latencies(axis: Axes, outcomes: Sequence[Outcome], styles: _Styles) -> None:
    for outcome in outcomes:
        if len(outcome.latencies_s):
            latencies_ms = quantiles(outcome.latencies_s, 1 - _ABOVE) * 1e3
            axis.plot(latencies_ms, _ABOVE, **styles[outcome.policy])
    for name, above in _PERCENTILES.items():
        axis.axhline(above, color=_GREY, linewidth=0.6, zorder=0)
        _note(axis, name, above)
    axis.set(ylim=(_ABOVE[-1], 1.3), xlabel="latency, ms", ylabel="part of requests above it")
    axis.set_title("How long requests take")
    _log_scale(axis, "x")
    _log_scale(axis, "y")
    if outcomes:
        axis.legend(frameon=False, loc="lower left")


def _draw_use(axis: Axes, outcomes: Sequence[Outcome], styles: _Styles) -> None:
    names = [group.name for group in outcomes[0].groups] if outcomes else []
    thickness = 0.8 / max(1, len(outcomes))
    text: dict[str, Any] = {"textcoords": "offset points", "va": "center", "color": _TEXT}
    for number, outcome in enumerate(outcomes):
        places = np.arange(len(names)) + (number - (len(outcomes) - 1) / 2) * thickness
        busy = [100 * group.busy for group in outcome.groups]
        axis.barh(places, busy, 0.9 * thickness, color=styles[outcome.policy]["color"])
        for place, each in zip(places, busy, strict=True):
            axis.annotate(f"{each:.0f}", (each, place), xytext=(3, 0), size="x-small", **text)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set(xlim=(0, 108), xlabel="busy, % of the time of all slots", title="What replicas do")


def _draw_time(
    axis: Axes, scenario: Scenario, outcomes: Sequence[Outcome], styles: _Styles
) -> None:
    begin_s, end_s = scenario.warm_up_s, scenario.duration_s
    for outcome in outcomes:
        count = int(np.clip(len(outcome.came_s) // _WINDOW_REQUESTS, 1, _MAX_WINDOWS))
        edges_s = np.linspace(begin_s, end_s, count + 1)
        parts = np.split(outcome.latencies_s, np.searchsorted(outcome.came_s, edges_s[1:-1]))
        p99_s = np.array([quantiles(part, np.array([0.99]))[0] for part in parts])
        p99_s[np.isinf(p99_s)] = np.nan  # a gap
        axis.plot((edges_s[1:] + edges_s[:-1]) / 2, p99_s * 1e3, **styles[outcome.policy])
    for fault in scenario.faults:
        until_s = end_s if fault.for_s is None else fault.at_s + fault.for_s
        axis.axvspan(fault.at_s, until_s, color="#d9822b", alpha=0.12, linewidth=0, zorder=0)
        place = (max(fault.at_s, begin_s), 0.99)
        text: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "top"}
        over: dict[str, Any] = {"xycoords": axis.get_xaxis_transform(), "annotation_clip": True}
        axis.annotate(str(fault), place, size="small", color=_TEXT, **over, **text)
    axis.set(xlim=(begin_s, end_s), xlabel="when requests came, s", ylabel="p99, ms")
    axis.set_title("How that changes, and what went wrong when")
    _log_scale(axis, "y")


def _note(axis: Axes, text: str, value: float) -> None:
    """Say what a horizontal line is, at its right end."""
    place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom"}
    axis.annotate(text, (0.995, value), size="small", color=_TEXT, **place)


def _log_scale(axis: Axes, name: str) -> None:
    """Have an axis logarithmic, with numbers as people write them."""
    axis.set(**{f"{name}scale": "log"})
    plain = FuncFormatter(lambda value, _: f"{value:,.6g}")
    (axis.xaxis if name == "x" else axis.yaxis).set_major_formatter(plain)


def _save(figure: Figure, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
