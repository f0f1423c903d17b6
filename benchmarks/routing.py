"""Many replicas that take a known time: the real cluster beside the simulated one.

``python -m benchmarks.routing [--only throughput,agreement] [--rounds 3] [--seconds 20]`` starts a
Ray node of its own, whose devices sleep instead of computing, and clients in processes of their
own. It prints a table, and writes JSON, Markdown and a plot.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from atriva_ray.simulation.scenario import ReplicaGroup, Scenario
from atriva_ray.simulation.simulate import Outcome, simulate
from atriva_ray.simulation.workload import make_workload
from benchmarks.figures import Figures, show, write
from benchmarks.ray_node import RayNode

__all__ = ["main"]

_ROOT = Path(__file__).parent.parent
_PACED = _ROOT / "tests" / "paced"

_REPLICAS, _SERVICE_S, _CLIENTS = 64, 0.020, 8
_WAITING_PER_REPLICA = 3
"""Requests that all clients together have under way, for each replica, while they measure."""

_GROUPS = (
    ReplicaGroup(name="GPU", count=2, service_time_s=0.010, sigma=0.3),
    ReplicaGroup(name="NPU", count=3, service_time_s=0.025, sigma=0.3),
    ReplicaGroup(name="CPU", count=5, service_time_s=0.060, sigma=0.3),
)
_LOADS = (0.4, 0.6, 0.8)
_ASKING = 4
_SETTLING_S = 3.0
_JOURNEY_S = 150e-6

_out = Console()


@contextmanager
def _paced(groups: Sequence[ReplicaGroup]) -> Iterator[dict[str, str]]:
    """Run a node whose devices are these, and yield the environment of its programs."""
    devices = ",".join(
        f"{group.name}.{number}={group.service_time_s}~{group.sigma}"
        for group in groups
        for number in range(group.count)
    )
    with tempfile.TemporaryDirectory(prefix="atr-") as folder:
        # Those that Ray starts on the node must know the devices too.
        os.environ |= {"PACED_DEVICES": devices, "PYTHONPATH": str(_PACED)}
        node = RayNode(Path(folder), cpus=sum(group.count for group in groups) + 1)
        model = Path(folder) / "negate.onnx"
        model.write_bytes(b"the paced devices do not look inside")
        try:
            yield node.env | {"PACED_MODEL": str(model)}
        finally:
            node.stop()


def _ask(
    env: Mapping[str, str], groups: Sequence[ReplicaGroup], jobs: Sequence[dict[str, Any]]
) -> list[Any]:
    """Have a client do each of these at the same time; return what each has to say."""
    device = "MULTI:" + ",".join(group.name for group in groups)
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.routing_program", json.dumps(job)],
            cwd=_ROOT,
            env=os.environ | env | {"PACED_DEVICE": device},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for job in jobs
    ]
    try:
        for client in clients:
            assert client.stdout is not None, "it is a pipe"  # noqa: S101
            while (line := client.stdout.readline()) != "ready\n":  # Ray may say something too
                if not line:
                    raise SystemExit("a client ended before it began; it has said why")
        for client in clients:
            assert client.stdin is not None, "it is a pipe"  # noqa: S101
            client.stdin.write("go\n")
            client.stdin.flush()
        said = [client.communicate()[0].splitlines() for client in clients]
        return [json.loads(next(line for line in lines if line[:1] == "{")) for lines in said]
    finally:
        for client in clients:
            client.kill()
            client.wait()


def _throughput(figures: Figures, rounds: int, seconds: float) -> None:
    groups = (ReplicaGroup(name="GPU", count=_REPLICAS, service_time_s=_SERVICE_S),)
    best = _REPLICAS / _SERVICE_S
    job = {"in_flight": _WAITING_PER_REPLICA * _REPLICAS // _CLIENTS, "seconds": seconds}
    _out.print(f"throughput: {_REPLICAS} replicas of {_SERVICE_S * 1e3:g} ms, {_CLIENTS} clients")
    with _paced(groups) as env:
        for _ in range(rounds):
            answers = _ask(env, groups, [job] * _CLIENTS)
            rate = sum(answer["answered"] / answer["seconds"] for answer in answers)
            figures.add(f"throughput: {_REPLICAS} replicas, of what they can do", rate / best, 0.9)
            spread = sum((answer["answered"] for answer in answers), start=0)
            least = min(answer["answered"] for answer in answers) * _CLIENTS / max(1, spread)
            figures.add("throughput: the client with the least, of the mean", least)


def _agreement(figures: Figures, rounds: int, seconds: float) -> None:
    scenarios = [
        Scenario(
            replicas=_GROUPS,
            clients=_ASKING,
            duration_s=seconds,
            load=load,
            warm_up_s=_SETTLING_S,
            network_s=_JOURNEY_S,
        )
        for load in _LOADS
    ]
    with _paced(_GROUPS) as env:
        for number in range(rounds):
            for scenario in scenarios:
                _compare(figures, env, scenario, number)


def _compare(figures: Figures, env: Mapping[str, str], scenario: Scenario, seed: int) -> None:
    workload = make_workload(scenario)
    jobs = [
        {
            "times_s": workload.times_s[workload.clients == client].tolist(),
            "settling_s": scenario.warm_up_s,
        }
        for client in range(scenario.clients)
    ]
    real = np.concatenate([answer["latencies_s"] for answer in _ask(env, _GROUPS, jobs)])
    expected: Outcome = simulate(scenario, workload, "ours")
    load = f"{scenario.load:.0%}"
    for name, found_s, expected_s in (
        ("mean", real.mean(), expected.latencies_s.mean()),
        ("p50", np.quantile(real, 0.5), expected.quantile_s(0.5)),
        ("p99", np.quantile(real, 0.99), expected.quantile_s(0.99)),
    ):
        figures.add(f"agreement: {name} at {load}, real of simulated", found_s / expected_s)
    _out.print(
        f"round {seed + 1}, load {load}: mean {real.mean() * 1e3:.1f} ms, simulated "
        f"{expected.latencies_s.mean() * 1e3:.1f}; p99 {np.quantile(real, 0.99) * 1e3:.1f} ms, "
        f"simulated {expected.quantile_s(0.99) * 1e3:.1f}"
    )


_PARTS = {"throughput": _throughput, "agreement": _agreement}


def main(
    only: Annotated[str, typer.Option(help="Parts, separated by commas.")] = ",".join(_PARTS),
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=5, help="Time of asking per round.")] = 20.0,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = (
        Path(__file__).parent / "results"
    ),
) -> None:
    """Measure how replicas that take a known time are used."""
    figures = Figures()
    for part in only.split(","):
        if part not in _PARTS:
            raise typer.BadParameter(f"{part!r} is none of {', '.join(_PARTS)}")
        _PARTS[part](figures, rounds, seconds)
    found = list(figures.found.values())
    show(found)
    write(found, output, "routing", "Replicas that take a known time")


if __name__ == "__main__":
    typer.run(main)
