"""How much memory a replica needs, beside a plain Ray actor that holds the same model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks.client import Client
from benchmarks.results import MemoryResult
from benchmarks.scenarios import Scenario
from benchmarks.suite import Plan, opened

__all__ = ["run_memory"]

_USED_S = 1.0
"""Each is used for so long first: memory that only use allocates counts."""


def run_memory(
    scenario: Scenario,
    plan: Plan,
    env: Mapping[str, str],
    folder: Path,
    on_stage: Callable[[str], None],
    on_turn: Callable[[str], None],
) -> MemoryResult:
    """Start both anew in every round, use them, and look at their processes.

    Args:
        scenario: gives the model and the programs.
        plan: as for other scenarios.
        env: environment of the programs.
        folder: takes the programs' logs.
        on_stage: told in words what is being prepared.
        on_turn: told when a round begins.

    Raises:
        ProgramError: a program failed.
    """
    result = MemoryResult()
    programs = [
        next(each for each in scenario.programs if each.peer == peer)
        for peer in ("cluster", "ray_actor")
    ]
    named = replace(scenario, name="memory")
    for _ in range(plan.rounds):
        on_turn("memory")
        with opened(named, programs, plan, env, folder, on_stage) as clients:
            for client, found in zip(clients.values(), (result.replica, result.actor), strict=True):
                client.ask("flow", start_s=time.perf_counter(), seconds=_USED_S)
                found.append(_memory_of(client))
    return result


def _memory_of(client: Client) -> dict[str, int]:
    (pid,) = client.about["pids"]
    info = psutil.Process(pid).memory_full_info()
    return {"uss": info.uss, "pss": info.pss, "rss": info.rss}
