"""What can be asked for when a model is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from atriva_inference.errors import OptionError
from atriva_inference.preprocess import Preprocessing

__all__ = ["CompileOptions", "PerformanceHint"]


class PerformanceHint(StrEnum):
    """What to optimise for, in OpenVINO's words and one of our own.

    LATENCY gives one request all of the device. THROUGHPUT, the default, runs several at once.
    CUMULATIVE_THROUGHPUT does so on every candidate device together. ADAPTIVE compiles the model
    for both of the first: a request that comes while no other runs gets all of the device, and
    several share it; that takes twice the memory and twice the time to load.
    """

    LATENCY = "LATENCY"
    THROUGHPUT = "THROUGHPUT"
    CUMULATIVE_THROUGHPUT = "CUMULATIVE_THROUGHPUT"
    ADAPTIVE = "ADAPTIVE"

    @classmethod
    def parse(cls, text: str) -> PerformanceHint:
        """Take the hint in any case.

        Raises:
            OptionError: there is no such hint.
        """
        try:
            return cls(str(text).upper())
        except ValueError:
            raise OptionError("performance_hint", str(text), f"one of {', '.join(cls)}") from None


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """Options of one compiled model.

    Attributes:
        hint: what to optimise for.
        config: backend properties by name, passed through as they are.
        thread_count: CPU threads the model may use; None leaves it to the backend.
        preprocessing: what is built into the model, so that it takes pixels.
        batching: whether requests that wait together may run as one, where that is done at all.
    """

    hint: PerformanceHint = PerformanceHint.THROUGHPUT
    config: Mapping[str, Any] = field(default_factory=dict)
    thread_count: int | None = None
    preprocessing: Preprocessing | None = None
    batching: bool = True
