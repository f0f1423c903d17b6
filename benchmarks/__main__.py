"""The command of the suite; see docs/benchmarks.md."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.client import ProgramError
from benchmarks.goals import judge
from benchmarks.job import IN_FLIGHT
from benchmarks.machine import about_machine, physical_cores
from benchmarks.markdown import to_markdown
from benchmarks.memory import run_memory
from benchmarks.plot import draw
from benchmarks.ray_node import RayNode, RayNodeError
from benchmarks.results import Results
from benchmarks.scenarios import MEMORY, Scenario, make_scenarios
from benchmarks.suite import Plan, run_scenario
from benchmarks.terminal import show_goals, show_memory, show_scenario

_RESULTS = Path(__file__).parent / "results"
_REPLICAS_AT_ONCE = 8
_QUICK = {"rounds": 2, "turns": 1, "seconds": 0.4}

_console = Console()


def main(
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke test: few, short rounds.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="NAME[,NAME]", help="Only these scenarios.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds. Default: 5.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.05, help="Seconds per row and round. Default: 3.")
    ] = None,
    turns: Annotated[
        int | None,
        typer.Option(min=1, help="Turns that a row's seconds are shared out over. Default: 3."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Inference threads. Default: the physical cores.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = _RESULTS,
) -> None:
    """Measure this project beside its peers and write the results."""
    plan = Plan(
        rounds=rounds or (_QUICK["rounds"] if quick else 5),
        turns=turns or (_QUICK["turns"] if quick else 3),
        seconds=seconds or (_QUICK["seconds"] if quick else 3.0),
        threads=threads or physical_cores(),
    )
    signal.signal(signal.SIGTERM, _interrupt)
    started = dt.datetime.now(dt.UTC)
    about: dict[str, Any] = about_machine() | {
        "started": started.isoformat(timespec="seconds"),
        "plan": asdict(plan),
        "in_flight": IN_FLIGHT,
    }
    results = Results(about, is_smoke_test=quick)
    folder = Path(tempfile.mkdtemp(prefix="ab-", dir="/tmp"))
    try:
        scenarios, with_memory = _chosen(make_scenarios(folder), only)
        _run(results, plan, scenarios, with_memory, folder)
    except (ProgramError, RayNodeError) as error:
        _console.print(f"[red]failed[/red] {error}", markup=True, highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        _console.print("interrupted; everything that was started has ended")
        raise typer.Exit(130) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show_goals(_console, results)
    if quick:
        _console.print("a smoke test: it ran too short for these figures to mean anything")
    name = "quick" if quick else f"{started:%Y-%m-%d-%H%M}-{about['commit'].rstrip('+')}"
    for path in _write(results, output, name):
        _console.print(f"wrote {path}", soft_wrap=True, highlight=False)


def _chosen(scenarios: list[Scenario], only: str | None) -> tuple[list[Scenario], bool]:
    """Return the scenarios asked for, and whether memory is among them."""
    names = [scenario.name for scenario in scenarios] + [MEMORY]
    wanted = names if only is None else [name.strip() for name in only.split(",")]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        known = ", ".join(names)
        raise typer.BadParameter(f"no scenario {', '.join(unknown)}; there are {known}")
    return [scenario for scenario in scenarios if scenario.name in wanted], MEMORY in wanted


def _run(
    results: Results, plan: Plan, scenarios: list[Scenario], with_memory: bool, folder: Path
) -> None:
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    total = sum(len(scenario.rows) * plan.rounds * plan.turns for scenario in scenarios)
    total += plan.rounds if with_memory else 0
    with ExitStack() as stack:
        progress = stack.enter_context(
            Progress(*columns, console=_console, refresh_per_second=2, transient=True)
        )
        task = progress.add_task("starting Ray", total=total)

        def on_stage(stage: str) -> None:
            progress.update(task, description=stage)
            if not _console.is_terminal:
                _console.print(stage, highlight=False)

        def on_turn(label: str) -> None:
            progress.update(task, description=label, advance=1)

        cpus = max(16, _REPLICAS_AT_ONCE * plan.threads)
        node = RayNode(folder, cpus)
        stack.callback(node.stop)
        for scenario in scenarios:
            found = run_scenario(scenario, plan, node.env, folder, on_stage, on_turn)
            results.scenarios[scenario.name] = found
            show_scenario(_console, found)
        if with_memory:
            squeezenet = make_scenarios(folder)[0]
            results.memory = run_memory(squeezenet, plan, node.env, folder, on_stage, on_turn)
            show_memory(_console, results.memory)


def _write(results: Results, folder: Path, name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    data, page, picture = (folder / f"{name}.{suffix}" for suffix in ("json", "md", "png"))
    goals = [
        {"goal": verdict.goal.text, "wanted": verdict.goal.wanted, "value": verdict.value}
        | {"is_met": verdict.is_met}
        for verdict in judge(results)
    ]
    data.write_text(json.dumps(asdict(results) | {"goals": goals}, indent=1, ensure_ascii=False))
    page.write_text(to_markdown(results, picture.name))
    draw(results, picture)
    return [data, page, picture]


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
    sys.exit()
