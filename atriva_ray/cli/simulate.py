"""``atriva simulate``: how a cluster that nobody has yet would answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from atriva_ray.cli.yaml_file import read_yaml
from atriva_ray.errors import ExtraNotInstalledError, InputFileError
from atriva_ray.simulation.choosers import POLICIES, find_policies
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
    told = Scenario.from_mapping(read_yaml(scenario, "simulate"))
    if plan is not None:
        _plan(told, plan, find_policies(policy or ("ours",)))
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
    _show(outcomes)
    if output is not None:
        _write(told, outcomes, output, scenario.stem)


def _plan(node: Scenario, p99_s: float, policies: Sequence[str]) -> None:
    table = Table("policy", *(Column(each, justify="right") for each in ("nodes", "p99, ms")))
    for policy in policies:
        tries = []
        with _err.status(policy) as status:
            for each in nodes_for(node, p99_s, policy):
                tries.append(each)
                status.update(f"{policy}: {each.nodes} nodes, {each.p99_s * 1e3:,.1f} ms")
        best = min((each for each in tries if each.is_enough), key=lambda each: each.nodes)
        for each in sorted(tries, key=lambda each: each.nodes):
            style = "bold" if each is best else "dim"
            table.add_row(policy, f"{each.nodes:,}", f"{each.p99_s * 1e3:,.1f}", style=style)
        table.add_section()
    _out.print(table)
    _out.print(f"bold: the fewest with which p99 is at most {p99_s * 1e3:g} ms", style="dim")


def _show(outcomes: Sequence[Outcome]) -> None:
    table = Table()
    table.add_column("policy", no_wrap=True)
    for name in (*(f"{each}, ms" for each in _QUANTILES), "in time/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for group in outcomes[0].groups:
        table.add_column(escape(group.name), justify="right")
    for outcome in outcomes:
        table.add_row(
            outcome.policy,
            *(f"{outcome.quantile_s(each) * 1e3:,.1f}" for each in _QUANTILES.values()),
            f"{outcome.in_time_per_s:,.0f}",
            *(f"{group.share:.0%}" for group in outcome.groups),
        )
    _out.print(table)
    names = ", ".join(each.name for each in outcomes[0].groups)
    _out.print(
        f"in time: answered before the clients stopped asking; {escape(names)}: who did",
        style="dim",
        highlight=False,
    )


def _write(told: Scenario, outcomes: Sequence[Outcome], folder: Path, name: str) -> None:
    try:
        from atriva_ray.simulation.drawing import draw  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ExtraNotInstalledError("plots", "matplotlib", "simulate") from error
    content = {"scenario": asdict(told), "outcomes": [_figures(each) for each in outcomes]}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        draw(outcomes, path.with_suffix(".png"))
    except OSError as error:
        raise InputFileError(str(folder), f"it cannot be written: {error}") from error
    _out.print(f"wrote {path} and .png", soft_wrap=True)


def _figures(outcome: Outcome) -> dict[str, Any]:
    latencies = {
        f"{name}_s": outcome.quantile_s(each) if len(outcome.latencies_s) else None
        for name, each in _QUANTILES.items()
    }
    return {
        "policy": outcome.policy,
        "requests": len(outcome.latencies_s),
        **latencies,
        "in_time_per_s": outcome.in_time_per_s,
        "ended_s": outcome.ended_s,
        "groups": [asdict(group) for group in outcome.groups],
    }
