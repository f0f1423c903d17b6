"""A benchmark of one model: on the cluster, in one process, or both in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import atriva_inference
from atriva_inference.ports import Port
from atriva_ray.bench.inputs import InputSet, batch_size, make_inputs, shaped
from atriva_ray.bench.loop import OnProgress, measure_async, measure_sync
from atriva_ray.bench.options import BenchOptions
from atriva_ray.bench.stats import Figures, Ratio, Sample, pooled, ratio_of, summarise

if TYPE_CHECKING:
    from atriva_inference.model import Model
    from atriva_inference.profiling import Profile

__all__ = ["BenchResult", "Place", "ReadInputs", "Report", "run_benchmark"]

ReadInputs = Callable[[Sequence[Port]], InputSet]
"""Reads the caller's own inputs for a model with these ports."""

_COMPARED_ROUNDS = 5
_AVERAGED_RUNS = 10


class Place(StrEnum):
    """Where a model runs."""

    CLUSTER = "cluster"
    LOCAL = "one process"


@dataclass(frozen=True, slots=True)
class BenchResult:
    """What was measured in one place.

    Attributes:
        place: where.
        executes_on: ``node/device`` of each replica, or the devices of this process.
        parallelism: requests that run at once.
        requests: requests under way at once while it was measured.
        load_s: reading, placing and compiling the model, in seconds.
        first_s: the first inference, in seconds.
        figures: everything after that; None if the model was only compiled.
        profiles: layer times, where they were asked for.
    """

    place: Place
    executes_on: tuple[str, ...]
    parallelism: int
    requests: int
    load_s: float
    first_s: float
    figures: Figures | None
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Results of the places in the order asked for, and how the first compares with the second."""

    results: tuple[BenchResult, ...]
    ratio: Ratio | None


@dataclass(slots=True)
class _Subject:
    """A loaded model with the inputs to measure it on."""

    place: Place
    model: Model
    executes_on: tuple[str, ...]
    load_s: float
    inputs: list[InputSet]
    first_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)

    def measure(self, options: BenchOptions, rounds: int, on_progress: OnProgress) -> None:
        measure = measure_sync if options.is_sync else measure_async
        limits = options.limits.split(rounds)
        self.samples.append(measure(self.model, self.inputs, limits, on_progress))

    def profiles(self, report_type: str | None) -> tuple[Profile, ...]:
        """Profile a twin of the model: once over several runs, or once for each request."""
        if report_type == "average_counters":
            return (self.model.get_profiling(self.inputs[0], _AVERAGED_RUNS),)
        if report_type == "detailed_counters":
            return tuple(self.model.get_profiling(inputs, 1) for inputs in self.inputs)
        return ()

    def result(self, report_type: str | None) -> BenchResult:
        batch = batch_size(self.model.inputs, self.inputs[0])
        return BenchResult(
            place=self.place,
            executes_on=self.executes_on,
            parallelism=self.model.parallelism,
            requests=len(self.inputs),
            load_s=self.load_s,
            first_s=self.first_s,
            figures=summarise(pooled(self.samples), batch) if self.samples else None,
            profiles=self.profiles(report_type),
        )


def run_benchmark(
    options: BenchOptions,
    places: Sequence[Place],
    *,
    read_inputs: ReadInputs | None = None,
    address: str | None = None,
    report_type: str | None = None,
    on_stage: Callable[[str], None] = lambda _stage: None,
    on_progress: OnProgress = lambda _part: None,
) -> Report:
    """Load the model in each place and measure it there; two places are measured in turns.

    Args:
        options: what to measure and how.
        places: one place, or two to compare.
        read_inputs: reads inputs of the caller's; None makes up random ones.
        address: Ray cluster, as for `atriva_ray.InferenceRuntime`.
        report_type: which layer times to collect as well, in ``benchmark_app``'s words.
        on_stage: told in words what happens next.
        on_progress: told how much of the measuring is behind.

    Raises:
        InferenceRuntimeError: the model could not be loaded or run, or an option does not fit it.
    """
    with ExitStack() as stack:
        subjects = []
        for place in places:
            on_stage(f"loading {options.model.name} ({place})")
            subject = _open(place, options, address, read_inputs)
            subjects.append(stack.enter_context(subject))
        if options.iterations != 0:
            _measure(subjects, options, on_stage, on_progress)
        if report_type not in (None, "no_counters"):
            on_stage("profiling layers")
        results = tuple(subject.result(report_type) for subject in subjects)
    ratio = None
    if len(subjects) > 1 and subjects[0].samples:
        ratio = ratio_of(subjects[0].samples, subjects[1].samples)
    return Report(results, ratio)


def _measure(
    subjects: Sequence[_Subject],
    options: BenchOptions,
    on_stage: Callable[[str], None],
    on_progress: OnProgress,
) -> None:
    for subject in subjects:
        started_s = time.perf_counter()
        subject.model.run(subject.inputs[0])
        subject.first_s = time.perf_counter() - started_s
    rounds = _COMPARED_ROUNDS if len(subjects) > 1 else 1
    turns = [
        subject
        for index in range(rounds)
        for subject in (subjects if index % 2 == 0 else list(reversed(subjects)))
    ]
    on_stage("measuring")
    for turn, subject in enumerate(turns):

        def tell(part: float, turn: int = turn) -> None:
            on_progress((turn + part) / len(turns))

        subject.measure(options, rounds, tell)
    on_progress(1.0)


@contextmanager
def _open(
    place: Place, options: BenchOptions, address: str | None, read_inputs: ReadInputs | None
) -> Iterator[_Subject]:
    """Load the model and make its inputs; closes everything again."""
    load = _load_on_cluster if place is Place.CLUSTER else _load_here
    with load(options, address) as (model, executes_on, load_s):
        count = 1 if options.is_sync else options.requests or 2 * model.parallelism
        if read_inputs is None:
            inputs = make_inputs(model.inputs, options.shapes, count)
        else:
            own = shaped(model.inputs, options.shapes, read_inputs(model.inputs))
            inputs = [own] * count
        yield _Subject(place, model, executes_on, load_s, inputs)


_Loaded = tuple["Model", tuple[str, ...], float]


@contextmanager
def _load_on_cluster(options: BenchOptions, address: str | None) -> Iterator[_Loaded]:
    from atriva_ray.runtime import InferenceRuntime  # noqa: PLC0415 - one process needs no Ray

    with InferenceRuntime(options.backend, address=address) as runtime:
        started_s = time.perf_counter()
        model = runtime.load_model(
            options.model,
            options.device,
            performance_hint=options.performance_hint,
            config=options.config,
            replicas=options.replicas or "auto",
            cpus_per_replica=options.cpus_per_replica,
            startup_fallback=False,  # what stands in is not what is to be measured
        )
        load_s = time.perf_counter() - started_s
        yield model, tuple(use.route.label for use in model.replicas), load_s


@contextmanager
def _load_here(options: BenchOptions, _address: str | None) -> Iterator[_Loaded]:
    with atriva_inference.InferenceRuntime(options.backend) as runtime:
        started_s = time.perf_counter()
        model = runtime.load_model(
            options.model,
            options.device,
            performance_hint=options.performance_hint,
            config=options.config,
        )
        load_s = time.perf_counter() - started_s
        yield model, model.execution_devices, load_s
