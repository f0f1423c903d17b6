"""Running scenarios: every program alive, one row measured at a time, rows in turns."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import statistics
from benchmarks.client import Client
from benchmarks.results import RowResult, ScenarioResult
from benchmarks.scenarios import Program, Row, Scenario

__all__ = ["Plan", "opened", "run_scenario", "turns_of"]

_TOGETHER_S = 0.05
"""Lead that programs get to start measuring at the same moment."""

_IDLE_S = 1.0
_SETTLED_CORES = 0.1
_SETTLE_TRIES = 15

OnTurn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often.

    Attributes:
        rounds: values per row; ratios are taken within a round.
        turns: visits to each row within a round: the more, the closer in time rows are compared.
        seconds: time per row and round, in seconds.
        threads: threads of every compiled model.
    """

    rounds: int
    turns: int
    seconds: float
    threads: int

    def turn_s(self, scenario: Scenario) -> float:
        """Return the seconds of one visit to one row."""
        return self.seconds * scenario.time_part / self.turns


def turns_of(rows: Sequence[Row], plan: Plan) -> Iterator[tuple[int, Row]]:
    """Yield round and row in the order of measuring: each turn begins one row further on."""
    for turn in range(plan.rounds * plan.turns):
        shift = turn % len(rows)
        for row in (*rows[shift:], *rows[:shift]):
            yield turn // plan.turns, row


@contextmanager
def opened(
    scenario: Scenario,
    programs: Sequence[Program],
    plan: Plan,
    env: Mapping[str, str],
    folder: Path,
    on_stage: OnTurn,
) -> Iterator[dict[str, Client]]:
    """Start programs and have each load its model; ends them all again."""
    with ExitStack() as stack:
        clients: dict[str, Client] = {}
        for program in programs:
            on_stage(f"{scenario.name}: starting {program.name}")
            lanes = {"ATRIVA_LANES": program.lanes} if program.lanes else {}
            job = scenario.job(program, plan.threads)
            client = Client(f"{scenario.name}/{program.name}", job, {**env, **lanes}, folder)
            stack.callback(client.close)
            client.open()
            clients[program.name] = client
        yield clients


def run_scenario(
    scenario: Scenario,
    plan: Plan,
    env: Mapping[str, str],
    folder: Path,
    on_stage: OnTurn,
    on_turn: OnTurn,
) -> ScenarioResult:
    """Measure a scenario.

    Args:
        scenario: what to measure.
        plan: how long and how often.
        env: environment of the programs: how to join the Ray cluster.
        folder: takes the programs' logs.
        on_stage: told in words what is being prepared.
        on_turn: told the row whenever one is about to be measured.

    Raises:
        ProgramError: a program failed.
    """
    with opened(scenario, scenario.programs, plan, env, folder, on_stage) as clients:
        result = ScenarioResult(
            scenario.name,
            scenario.title,
            scenario.kind,
            scenario.rows[0].name,
            [RowResult(row.name, row.label, scenario.size_bytes(row)) for row in scenario.rows],
            {name: client.about for name, client in clients.items()},
        )
        on_stage(f"{scenario.name}: warming up")
        for row in scenario.rows:
            _measure(scenario, row, clients, min(0.3, plan.turn_s(scenario)))
        result.idle_cores = _settle()
        found: dict[str, dict[int, list[Any]]] = defaultdict(lambda: defaultdict(list))
        others: list[float] = []
        for index, row in turns_of(scenario.rows, plan):
            on_turn(row.label)
            with _watching(clients, row, others if row.name == result.baseline else []):
                answers = _measure(scenario, row, clients, plan.turn_s(scenario))
            found[row.name][index].append(answers)
    result.others_cores = statistics.median(others) or 0.0
    for row in result.rows:
        rounds = found[row.name]
        for index in range(plan.rounds):
            _take(row, scenario.kind, rounds[index])
    return result


def _measure(
    scenario: Scenario, row: Row, clients: Mapping[str, Client], seconds: float
) -> list[dict[str, Any]]:
    taking_part = [clients[name] for name in row.programs]
    start_s = time.perf_counter() + _TOGETHER_S  # on Linux the same clock in every process
    for client in taking_part:
        if scenario.kind == "flow":
            client.send("flow", start_s=start_s, seconds=seconds)
        else:
            client.send("trips", shape=row.shape, seconds=seconds)
    return [client.receive() for client in taking_part]


def _take(row: RowResult, kind: str, turns: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Add the value of one round, from what its turns brought."""
    if kind == "flow":
        pairs = [[(each["count"], each["duration_s"]) for each in turn] for turn in turns]
        row.rates.append(statistics.together(pairs))
        return
    trips_s = [trip_s for turn in turns for each in turn for trip_s in each["trips_s"]]
    row.p50_ms.append(statistics.percentile(trips_s, 50) * 1e3)
    row.p99_ms.append(statistics.percentile(trips_s, 99) * 1e3)


def _settle() -> float:
    """Wait until the suite's programs are idle; return the cores that they use all the same."""
    cores = 0.0
    for _ in range(_SETTLE_TRIES):
        before_s = _used_s(psutil.Process())
        time.sleep(_IDLE_S)
        cores = max(0.0, _used_s(psutil.Process()) - before_s) / _IDLE_S
        if cores < _SETTLED_CORES:
            break
    return cores


@contextmanager
def _watching(clients: Mapping[str, Client], row: Row, cores: list[float]) -> Iterator[None]:
    """Note how many cores were in use besides the row's own programs."""
    processes = [psutil.Process(clients[name].pid) for name in row.programs]
    started_s, busy_s = time.perf_counter(), _busy_s()
    own_s = sum(_used_s(process) for process in processes)
    yield
    own_s = sum(_used_s(process) for process in processes) - own_s
    elapsed_s = time.perf_counter() - started_s
    cores.append(max(0.0, _busy_s() - busy_s - own_s) / elapsed_s)


def _busy_s() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def _used_s(process: psutil.Process) -> float:
    """Return the processor time of a process and all below it, in seconds."""
    total_s = 0.0
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total_s += times.user + times.system
    return total_s
