"""How many requests a model answered and how long they took."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

__all__ = ["Tally"]


@dataclass(slots=True)
class Tally:
    """Counts and times of one version of a model; times are sums over requests.

    Attributes:
        success_count: requests that were answered.
        success_ns: from the moment they were understood to their answers.
        fail_count: requests that ended with an error.
        fail_ns: likewise.
        inference_count: samples that were answered: more than requests, if some hold several.
        compute_ns: time that devices ran them.
        last_inference_ms: when the last one was answered, since 1970.
    """

    success_count: int = 0
    success_ns: int = 0
    fail_count: int = 0
    fail_ns: int = 0
    inference_count: int = 0
    compute_ns: int = 0
    last_inference_ms: int = 0

    def answered(self, duration_ns: int, sample_count: int, now_ms: int) -> None:
        """Count a request that was answered."""
        self.success_count += 1
        self.success_ns += duration_ns
        self.inference_count += sample_count
        self.last_inference_ms = now_ms

    def failed(self, duration_ns: int) -> None:
        """Count a request that ended with an error."""
        self.fail_count += 1
        self.fail_ns += duration_ns

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        """Return what several ingresses counted together."""
        total = cls()
        for tally in tallies:
            for each in fields(cls):
                mine, theirs = getattr(total, each.name), getattr(tally, each.name)
                both = max(mine, theirs) if each.name == "last_inference_ms" else mine + theirs
                setattr(total, each.name, both)
        return total
