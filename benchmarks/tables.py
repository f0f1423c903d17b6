"""Rows of text that the terminal and the Markdown page both show."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import statistics
from benchmarks.results import MemoryResult, Results, RowResult, ScenarioResult

__all__ = ["aligned", "cells_of", "header_of", "memory_rows", "settings_lines", "size_text"]

_NONE = "–"


def header_of(scenario: ScenarioResult) -> list[str]:
    """Return the headings of a scenario's table."""
    if scenario.kind == "flow":
        return ["", "requests/s", "of bare", "rounds"]
    if _is_sweep(scenario):
        return ["", "input", "p50 ms", "p99 ms", "MB/s"]
    return ["", "p50 ms", "p99 ms", "added to one process, ms", "rounds"]


def cells_of(scenario: ScenarioResult) -> list[list[str]]:
    """Return the texts of a scenario's table, one list per row."""
    if scenario.kind == "flow":
        return [_flow_cells(scenario, row) for row in scenario.rows]
    if _is_sweep(scenario):
        return [_sweep_cells(row) for row in scenario.rows]
    return [_trip_cells(scenario, row) for row in scenario.rows]


def memory_rows(memory: MemoryResult) -> list[list[str]]:
    """Return texts: process, USS, PSS and RSS in MB, medians over the rounds; difference last."""
    kinds = ("uss", "pss", "rss")
    rows = [
        [
            label,
            *(
                _number(statistics.median([each[kind] / 1e6 for each in found]), 1)
                for kind in kinds
            ),
        ]
        for label, found in (
            ("replica of atriva_ray", memory.replica),
            ("plain Ray actor", memory.actor),
        )
    ]
    return [*rows, ["difference", *(_number(memory.extra_mb(kind), 1) for kind in kinds)]]


def settings_lines(results: Results) -> list[str]:
    """Return where, with what and how it was measured, in words."""
    about = results.about
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    plan = about["plan"]
    return [
        f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB",
        f"{about['system']}; {versions}; commit {about['commit']}",
        (
            f"{plan['rounds']} rounds of {plan['seconds']:g} s per row in {plan['turns']} turns, "
            f"{plan['threads']} inference threads for every peer, at most {about['in_flight']} "
            "requests under way"
        ),
    ]


def size_text(size_bytes: int) -> str:
    """Write a size: ``1 kB``, ``10 MB``."""
    if size_bytes >= 1_000_000:
        return f"{size_bytes / 1e6:g} MB"
    return f"{size_bytes / 1e3:g} kB"


def _is_sweep(scenario: ScenarioResult) -> bool:
    return len({row.size_bytes for row in scenario.rows}) > 1


def _flow_cells(scenario: ScenarioResult, row: RowResult) -> list[str]:
    base = scenario.row(scenario.baseline)
    of_base = statistics.ratios(row.rates, base.rates) if base is not None else []
    spread = f"{min(of_base):.2f} to {max(of_base):.2f}" if of_base else _NONE
    rate = _number(statistics.median(row.rates), 0)
    return [row.label, rate, _number(statistics.median(of_base), 3), spread]


def _trip_cells(scenario: ScenarioResult, row: RowResult) -> list[str]:
    base = scenario.row(scenario.baseline)
    added = statistics.differences(row.p50_ms, base.p50_ms) if base is not None else []
    spread = f"{min(added):.3f} to {max(added):.3f}" if added else _NONE
    return [
        row.label,
        _number(statistics.median(row.p50_ms), 3),
        _number(statistics.median(row.p99_ms), 3),
        _number(statistics.median(added), 3),
        spread,
    ]


def _sweep_cells(row: RowResult) -> list[str]:
    p50_ms = statistics.median(row.p50_ms)
    speed = None
    if p50_ms and not row.name.startswith("in_process"):  # there, nothing moves
        speed = row.size_bytes / 1e3 / p50_ms
    return [
        row.label,
        size_text(row.size_bytes),
        _number(p50_ms, 3),
        _number(statistics.median(row.p99_ms), 3),
        _number(speed, 1),
    ]


def _number(value: float | None, decimals: int) -> str:
    return _NONE if value is None else f"{value:,.{decimals}f}"


def aligned(cells: Sequence[str]) -> list[str]:
    """Return Markdown's marks for columns: the first to the left, the others to the right."""
    return ["---", *("---:" for _ in cells[1:])]
