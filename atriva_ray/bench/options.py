"""What ``atriva bench`` can be asked for, in the words of ``benchmark_app``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atriva_inference.errors import OptionError
from atriva_inference.options import PerformanceHint

__all__ = [
    "APIS",
    "DEFAULT_TIME_S",
    "HINTS",
    "REPORT_TYPES",
    "BenchOptions",
    "Limits",
    "parse_shapes",
]

DEFAULT_TIME_S = 10.0
"""How long to measure where neither a time nor a number of requests is given."""

APIS = ("sync", "async")
REPORT_TYPES = ("no_counters", "average_counters", "detailed_counters")
HINTS = {
    "latency": PerformanceHint.LATENCY,
    "throughput": PerformanceHint.THROUGHPUT,
    "tput": PerformanceHint.THROUGHPUT,
    "cumulative_throughput": PerformanceHint.CUMULATIVE_THROUGHPUT,
    "ctput": PerformanceHint.CUMULATIVE_THROUGHPUT,
    "adaptive": PerformanceHint.ADAPTIVE,
    "none": PerformanceHint.LATENCY,  # what OpenVINO's devices do when no hint is set
}

_SHAPE = re.compile(r"\s*(?P<name>[^\[\],\s][^\[\]]*?)?\s*\[(?P<sizes>[^\[\]]*)\]\s*(?:,|$)")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a measurement ends: when everything that is set has been reached.

    Attributes:
        time_s: seconds to measure for; None sets no time.
        iterations: requests to run; None sets no number.
    """

    time_s: float | None = None
    iterations: int | None = None

    def reached(self, elapsed_s: float, started: int) -> bool:
        """Whether no further request is to be started."""
        is_time_up = self.time_s is None or elapsed_s >= self.time_s
        return is_time_up and (self.iterations is None or started >= self.iterations)

    def progress(self, elapsed_s: float, started: int) -> float:
        """How much of the way is behind, from 0 to 1."""
        parts = [1.0]
        if self.time_s:
            parts.append(elapsed_s / self.time_s)
        if self.iterations:
            parts.append(started / self.iterations)
        return min(parts)

    def split(self, rounds: int) -> Limits:
        """Return the limits of one of several rounds that together reach these."""
        return Limits(
            None if self.time_s is None else self.time_s / rounds,
            None if self.iterations is None else -(-self.iterations // rounds),
        )


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """One benchmark, checked.

    Attributes:
        model: model file, or SavedModel directory.
        device: device expression.
        backend: inference library.
        hint: performance hint in ``benchmark_app``'s words; None chooses by `api`.
        api: ``sync`` or ``async``; None chooses by `hint`, as ``benchmark_app`` does.
        time_s: seconds to measure for.
        iterations: requests to run; 0 only compiles the model.
        requests: asynchronous requests under way at once; None takes twice what runs at once.
        streams: OpenVINO's NUM_STREAMS; None leaves it to the hint.
        shapes: input shapes by input name, or by "" for the only input.
        replicas: replicas on the cluster; None puts one on every device chosen.
        cpus_per_replica: CPUs, and threads, of each replica on a processor.
    """

    model: Path
    device: str = "AUTO"
    backend: str = "openvino"
    hint: str | None = None
    api: str | None = None
    time_s: float | None = None
    iterations: int | None = None
    requests: int | None = None
    streams: int | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    replicas: int | None = None
    cpus_per_replica: int | None = None

    def __post_init__(self) -> None:
        _one_of("-hint", self.hint, tuple(HINTS))
        _one_of("-api", self.api, APIS)
        if self.time_s is not None and not 0 < self.time_s < float("inf"):
            raise OptionError("-t", f"{self.time_s:g}", "more than 0 seconds")
        _at_least("-niter", self.iterations, 0)
        _at_least("-nireq", self.requests, 1)
        _at_least("-nstreams", self.streams, 1)

    @property
    def is_sync(self) -> bool:
        """Whether one request runs at a time."""
        return self.api == "sync" if self.api is not None else self.hint == "latency"

    @property
    def performance_hint(self) -> PerformanceHint:
        """The hint to compile with."""
        if self.hint is not None:
            return HINTS[self.hint]
        return PerformanceHint.LATENCY if self.is_sync else PerformanceHint.THROUGHPUT

    @property
    def config(self) -> dict[str, Any]:
        """Backend properties."""
        return {} if self.streams is None else {"NUM_STREAMS": self.streams}

    @property
    def limits(self) -> Limits:
        """When the measurement ends."""
        if self.time_s is None and self.iterations is None:
            return Limits(DEFAULT_TIME_S)
        return Limits(self.time_s, self.iterations)


def parse_shapes(text: str | None) -> dict[str, tuple[int, ...]]:
    """Read ``data[1,3,224,224],mask[1,1]``, or ``[1,3,224,224]`` for the only input (named "").

    Raises:
        OptionError: it is written otherwise, a size is not at least 1, or a name comes twice.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    position, rest = 0, text or ""
    while position < len(rest):
        match = _SHAPE.match(rest, position)
        if match is None:
            raise _shape_error(rest)
        try:
            sizes = tuple(int(size) for size in match["sizes"].split(","))
        except ValueError:
            raise _shape_error(rest) from None
        name = match["name"] or ""
        if name in shapes or min(sizes) < 1:
            raise _shape_error(rest)
        shapes[name] = sizes
        position = match.end()
    return shapes


def _shape_error(text: str) -> OptionError:
    return OptionError(
        "-shape", text, "sizes of at least 1, like 'data[1,3,224,224],mask[1,1]' or '[1,3,224,224]'"
    )


def _one_of(option: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise OptionError(option, value, f"one of {', '.join(choices)}")


def _at_least(option: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise OptionError(option, str(value), f"a whole number, at least {least}")
