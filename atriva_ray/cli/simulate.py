"""``atriva simulate``: how a cluster that nobody has yet would answer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from atriva_ray.cli.yaml_file import read_yaml
from atriva_ray.errors import ExtraNotInstalledError, InputFileError
from atriva_ray.simulation.choosers import POLICIES, find_policies
from atriva_ray.simulation.plan import Try, fewest
from atriva_ray.simulation.plan import plan as nodes_for
from atriva_ray.simulation.scenario import Scenario
from atriva_ray.simulation.simulate import Outcome, simulate
from atriva_ray.simulation.workload import make_workload

__all__ = ["simulate_command"]

_out = Console()
_err = Console(stderr=True)

_QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


def simulate_command(
    scenario: Annotated[Path, typer.Argument(help="YAML file: replicas, clients, load, …")],
    *,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", "-p", help=f"One of {', '.join(POLICIES)}; repeat it. [default: all]"
        ),
    ] = None,
    plan: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Take the scenario's replicas for one node, and look for how many nodes it takes "
            "until 99 of 100 requests are answered within this time.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the figures (JSON) and a plot (PNG)."),
    ] = None,
) -> None:
    """Simulate a cluster, with the code that chooses replicas on a real one.

    Every policy meets the same requests. all-queues knows every queue at every moment, oracle also
    what each request will take: no real program can.
    """
    told = Scenario.from_mapping(read_yaml(scenario, "simulate"), scenario.parent)
    if plan is not None:
        tries = _plan(told, plan, find_policies(policy or ("ours",)))
        if output is not None:
            content = {"goal_p99_s": plan, "policies": _tried(tries)}
            with _drawing(output) as drawing:
                png = _write(told, content, output, f"{scenario.stem}-plan")
                drawing.draw_plan(tries, plan, png)
        return
    policies = find_policies(policy or ())
    workload = make_workload(told)
    _out.print(
        f"{len(workload):,} requests, {told.asked_per_s:,.0f} per second of the "
        f"{told.capacity_per_s:,.0f} that the replicas can answer",
        highlight=False,
    )
    outcomes = []
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True) as progress:
        task = progress.add_task("")
        for number, name in enumerate(policies, 1):
            progress.update(task, description=f"{name} ({number} of {len(policies)})")
            outcomes.append(simulate(told, workload, name))
    _show(told, outcomes)
    if output is not None:
        with _drawing(output) as drawing:
            content = {"outcomes": [_figures(each) for each in outcomes]}
            drawing.draw(told, outcomes, _write(told, content, output, scenario.stem))


def _plan(node: Scenario, p99_s: float, policies: Sequence[str]) -> dict[str, list[Try]]:
    table = Table("policy", *(Column(each, justify="right") for each in ("nodes", "p99, ms")))
    tries: dict[str, list[Try]] = {}
    for policy in policies:
        mine = tries[policy] = []
        with _err.status(policy) as status:
            for each in nodes_for(node, p99_s, policy):
                mine.append(each)
                status.update(f"{policy}: {each.nodes} nodes, {_ms(each.p99_s)} ms")
        best = fewest(mine)
        for each in sorted(mine, key=lambda each: each.nodes):
            style = "bold" if each is best else "dim"
            table.add_row(policy, f"{each.nodes:,}", _ms(each.p99_s), style=style)
        table.add_section()
    _out.print(table)
    _out.print(f"bold: the fewest with which p99 is at most {p99_s * 1e3:g} ms", style="dim")
    return tries


def _tried(tries: Mapping[str, Sequence[Try]]) -> list[dict[str, Any]]:
    return [
        {
            "policy": policy,
            "nodes": fewest(each).nodes,
            "tries": [_finite(asdict(one)) for one in sorted(each, key=lambda one: one.nodes)],
        }
        for policy, each in tries.items()
    ]


def _show(told: Scenario, outcomes: Sequence[Outcome]) -> None:
    table = Table()
    table.add_column("policy", no_wrap=True)
    columns: dict[str, Callable[[Outcome], str]] = {
        f"{name}\nms": partial(_quantile_ms, quantile=each) for name, each in _QUANTILES.items()
    }
    columns["in\ntime/s"] = lambda outcome: f"{_in_time_per_s(outcome):,.0f}"
    if any(outcome.unanswered for outcome in outcomes):
        columns["un-\nanswered"] = lambda outcome: f"{outcome.unanswered:,}"
    columns["idle\nbeside"] = lambda outcome: _short(outcome.idle_while_waiting)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for group in outcomes[0].groups:
        table.add_column(escape(group.name), justify="right")
    for outcome in outcomes:
        shares = (f"{group.share:.0%}" for group in outcome.groups)
        table.add_row(outcome.policy, *(each(outcome) for each in columns.values()), *shares)
    _out.print(table)
    names = escape(", ".join(each.name for each in outcomes[0].groups))
    in_time = "before the clients stopped asking"
    if told.deadline_s is not None:
        in_time = f"within {told.deadline_s * 1e3:g} ms"
    explained = [
        f"in time: answered {in_time}",
        "idle beside: how long at most one replica was idle while one request waited elsewhere, in "
        "the replica's service times",
        f"{names}: who answered",
    ]
    _out.print("\n".join(explained), style="dim", highlight=False)


def _in_time_per_s(outcome: Outcome) -> float:
    return outcome.in_time_per_s if outcome.good_per_s is None else outcome.good_per_s


def _ms(seconds: float) -> str:
    return "never" if math.isinf(seconds) else _short(seconds * 1e3)


def _short(value: float) -> str:
    """Say a figure such that many fit side by side."""
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004


def _quantile_ms(outcome: Outcome, quantile: float) -> str:
    return _ms(outcome.quantile_s(quantile))


@contextmanager
def _drawing(folder: Path) -> Iterator[ModuleType]:
    """Give the module that draws, and tell what cannot be written into a folder."""
    try:
        from atriva_ray.simulation import drawing  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ExtraNotInstalledError("plots", "matplotlib", "simulate") from error
    try:
        yield drawing
    except OSError as error:
        raise InputFileError(str(folder), f"it cannot be written: {error}") from error


def _write(told: Scenario, content: Mapping[str, Any], folder: Path, name: str) -> Path:
    """Write figures, and return where the picture of them belongs."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    scenario = {field.name: getattr(told, field.name) for field in fields(told)}
    if told.arrivals is not None:
        scenario["arrivals"] = told.arrivals.file
    text = json.dumps({"scenario": scenario, **content}, indent=2, default=asdict, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    _out.print(f"wrote {path} and .png", soft_wrap=True)
    return path.with_suffix(".png")


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put None for what JSON cannot say: a figure without requests, or a latency without answer."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _figures(outcome: Outcome) -> dict[str, Any]:
    return _finite(
        {
            "policy": outcome.policy,
            "requests": len(outcome.latencies_s),
            "unanswered": outcome.unanswered,
            **{f"{name}_s": outcome.quantile_s(each) for name, each in _QUANTILES.items()},
            "in_time_per_s": outcome.in_time_per_s,
            "good_per_s": outcome.good_per_s,
            "idle_while_waiting": outcome.idle_while_waiting,
            "ended_s": outcome.ended_s,
            "groups": [asdict(group) for group in outcome.groups],
        }
    )
