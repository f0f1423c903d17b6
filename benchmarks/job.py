"""`Job`: what one program of the suite runs, as it travels to that program."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

__all__ = ["IN_FLIGHT", "Job"]

IN_FLIGHT = 16
"""Requests under way at once where the caller chooses; more made no peer faster."""


@dataclass(frozen=True, slots=True)
class Job:
    """One way to run one model.

    Attributes:
        peer: module of `benchmarks.peers`.
        model: path of the model.
        shape: shape of its only input.
        dtype: element type of that input, as numpy names it.
        hint: OpenVINO's performance hint.
        threads: threads for inference, the same for every peer.
        mode: which of the peer's calls to measure, where it has several.
        in_flight: requests under way at once, where the peer leaves that to its user.
    """

    peer: str
    model: str
    shape: tuple[int, ...]
    dtype: str
    hint: str
    threads: int
    mode: str = ""
    in_flight: int = IN_FLIGHT

    @property
    def properties(self) -> dict[str, str | int]:
        """The OpenVINO properties that every peer compiles with."""
        return {"PERFORMANCE_HINT": self.hint, "INFERENCE_NUM_THREADS": self.threads}

    def to_json(self) -> str:
        """Write the job for a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        """Read what `to_json` wrote."""
        fields = json.loads(text)
        return cls(**fields | {"shape": tuple(fields["shape"])})
