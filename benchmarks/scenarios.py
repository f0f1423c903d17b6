"""What is compared with what: the scenarios, their programs and their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.job import Job
from benchmarks.models import SuiteModel, carrier_model, digits, light

__all__ = ["MEMORY", "PAYLOADS_BYTES", "Program", "Row", "Scenario", "make_scenarios"]

MEMORY = "memory"
"""Name of the one scenario that measures no time."""

PAYLOADS_BYTES = (1_000, 100_000, 1_000_000, 10_000_000, 100_000_000)

_AUTO, _TCP, _OFF = "auto", "tcp", "off"


@dataclass(frozen=True, slots=True)
class Program:
    """A program to start.

    Attributes:
        name: unique within the scenario.
        peer: module of `benchmarks.peers`.
        mode: which of the peer's calls it makes.
        lanes: value of ATRIVA_LANES, empty for peers that know no lanes.
    """

    name: str
    peer: str
    mode: str = ""
    lanes: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table: programs that run together.

    Attributes:
        name: unique within the scenario.
        label: for people.
        programs: names of the programs.
        shape: shape of the input, where it is not the scenario's.
    """

    name: str
    label: str
    programs: tuple[str, ...]
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """Programs that are alive together and measured in turns.

    Attributes:
        name: as for ``--only``.
        title: for people.
        kind: ``flow`` or ``trips``.
        model: what all of them run.
        hint: performance hint of all of them.
        programs: all programs.
        rows: in the order of the table; the first one is the baseline.
        time_part: share of the seconds per row that a row of this scenario gets.
    """

    name: str
    title: str
    kind: str
    model: SuiteModel
    hint: str
    programs: Sequence[Program]
    rows: Sequence[Row]
    time_part: float = field(default=1.0)

    def job(self, program: Program, threads: int) -> Job:
        """Return what a program runs."""
        model = self.model
        return Job(
            peer=program.peer,
            model=str(model.path),
            shape=model.shape,
            dtype=model.dtype,
            hint=self.hint,
            threads=threads,
            mode=program.mode,
        )

    def size_bytes(self, row: Row) -> int:
        """Return the size of one input of a row."""
        shape = row.shape or self.model.shape
        return int(np.prod(shape)) * np.dtype(self.model.dtype).itemsize


_BARE = Program("bare", "bare")
_APP = Program("benchmark_app", "benchmark_app")
_IN_PROCESS = Program("in_process", "in_process")
_ACTOR = Program("ray_actor", "ray_actor")
_SERVE = Program("ray_serve", "ray_serve")
_CLIENTS = tuple(Program(f"ours_client_{n}", "cluster", "map", _AUTO) for n in range(1, 5))
_OURS_TCP = Program("ours_tcp", "cluster", "map", _TCP)
_OURS_OFF = Program("ours_off", "cluster", "map", _OFF)
_RUN_ASYNC = Program("ours_run_async", "cluster", "run_async", _AUTO)
_ASYNC_REQUEST = Program("ours_async_request", "cluster", "async_request", _AUTO)


def make_scenarios(folder: Path) -> list[Scenario]:
    """Return all scenarios.

    Args:
        folder: takes the models that are made for the occasion.
    """
    squeezenet = light("squeezenet")
    return [
        _flow("squeezenet", "SqueezeNet, 602 kB per request", squeezenet, is_full=True),
        _flow("resnet50", "ResNet-50, 602 kB per request", light("resnet50")),
        _flow("digits", "digits, 256 bytes per request", digits()),
        _trips("latency", "One request at a time, 602 kB (SqueezeNet)", squeezenet),
        _trips("latency_small", "One request at a time, 1 kB", carrier_model(folder, 1_000)),
        _payload(carrier_model(folder, PAYLOADS_BYTES[0])),
    ]


def _flow(name: str, title: str, model: SuiteModel, *, is_full: bool = False) -> Scenario:
    one = _CLIENTS[0].name
    rows = [
        Row("bare", "bare AsyncInferQueue, one process", ("bare",)),
        Row("benchmark_app", "benchmark_app", ("benchmark_app",)),
        Row("in_process", "atriva_inference, one process", ("in_process",)),
        Row("ours", "atriva_ray, stream.map", (one,)),
    ]
    programs = [_BARE, _APP, _IN_PROCESS, _ACTOR, _SERVE, _OURS_TCP, _OURS_OFF, _CLIENTS[0]]
    if is_full:
        programs += [*_CLIENTS[1:], _RUN_ASYNC, _ASYNC_REQUEST]
        names = [client.name for client in _CLIENTS]
        rows += [
            Row("ours_2", "atriva_ray, stream.map, 2 clients", tuple(names[:2])),
            Row("ours_4", "atriva_ray, stream.map, 4 clients", tuple(names)),
            Row("ours_run_async", "atriva_ray, run_async", (_RUN_ASYNC.name,)),
            Row("ours_async_request", "atriva_ray, async requests", (_ASYNC_REQUEST.name,)),
        ]
    rows += [
        Row("ours_tcp", "atriva_ray, stream.map, TCP", (_OURS_TCP.name,)),
        Row("ours_off", "atriva_ray, stream.map, actor calls", (_OURS_OFF.name,)),
        Row("ray_actor", "plain Ray actor", ("ray_actor",)),
        Row("ray_serve", "Ray Serve handle", ("ray_serve",)),
    ]
    return Scenario(name, title, "flow", model, "THROUGHPUT", programs, rows)


def _trips(name: str, title: str, model: SuiteModel) -> Scenario:
    rows = [
        Row("in_process", "atriva_inference stream.run, one process", ("in_process",)),
        Row("bare", "bare infer request, one process", ("bare",)),
        *_trip_rows(None, ""),
        Row("ray_actor", "plain Ray actor", ("ray_actor",)),
        Row("ray_serve", "Ray Serve handle", ("ray_serve",)),
    ]
    programs = [_IN_PROCESS, _BARE, _CLIENTS[0], _OURS_TCP, _OURS_OFF, _ACTOR, _SERVE]
    return Scenario(name, title, "trips", model, "LATENCY", programs, rows)


def _payload(model: SuiteModel) -> Scenario:
    rows = []
    for size_bytes in PAYLOADS_BYTES:
        shape, suffix = (size_bytes,), f"@{size_bytes}"
        rows += [
            Row(f"in_process{suffix}", "atriva_inference, one process", ("in_process",), shape),
            *_trip_rows(shape, suffix),
            Row(f"ray_actor{suffix}", "plain Ray actor", ("ray_actor",), shape),
        ]
    programs = [_IN_PROCESS, _CLIENTS[0], _OURS_TCP, _OURS_OFF, _ACTOR]
    title = "One request at a time, by size of its input"
    return Scenario("payload", title, "trips", model, "LATENCY", programs, rows, time_part=1 / 3)


def _trip_rows(shape: tuple[int, ...] | None, suffix: str) -> list[Row]:
    return [
        Row(f"ours{suffix}", "atriva_ray stream.run", (_CLIENTS[0].name,), shape),
        Row(f"ours_tcp{suffix}", "atriva_ray stream.run, TCP", (_OURS_TCP.name,), shape),
        Row(f"ours_off{suffix}", "atriva_ray stream.run, actor calls", (_OURS_OFF.name,), shape),
    ]
