"""What a job has to say of itself when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["BatchReport", "JobProgress"]


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is, some times a second.

    Attributes:
        stage: what it does, in words.
        rows: rows done, by this and by earlier runs of the job.
        total_rows: rows in all; None until that is known.
        rows_per_s: rows of this run per second since the first answer.
        devices: share of the requests, 0 to 1, that each ``node/device`` has answered.
        waiting: requests that are under way or wait for a replica.
        fragments_done: fragments that are whole.
        total_fragments: fragments in all; None until that is known.
        bad_rows: rows in quarantine.
    """

    stage: str
    rows: int = 0
    total_rows: int | None = None
    rows_per_s: float = 0.0
    devices: Mapping[str, float] = field(default_factory=dict)
    waiting: int = 0
    fragments_done: int = 0
    total_fragments: int | None = None
    bad_rows: int = 0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a job has done.

    Attributes:
        output: the folder.
        rows_in: rows that were read, in all runs of the job; ``rows_out`` plus ``rows_bad``.
        rows_out: rows of the output.
        rows_bad: rows in quarantine.
        rows_before: of ``rows_in``, those that earlier runs had done.
        fragments: parts of the output.
        seconds: of this run, from its begin.
        infer_seconds: of this run, from its first fragment to its last.
        rows_per_s: rows of this run per second of ``infer_seconds``.
        stages: seconds by stage (read, decode, wait, infer, write), added up over threads.
        devices: share of the requests by ``node/device``.
        files_ignored: files of the input folder whose kind is not known.
        quarantine: where the rows are that could not be used; None if there are none.
        bound_by: which stage took longest.
    """

    output: str
    rows_in: int
    rows_out: int
    rows_bad: int
    rows_before: int
    fragments: int
    seconds: float
    infer_seconds: float
    rows_per_s: float
    stages: Mapping[str, float]
    devices: Mapping[str, float]
    files_ignored: int = 0
    quarantine: str | None = None

    @property
    def bound_by(self) -> str:
        """The stage that the job waited for most."""
        return max(self.stages, key=lambda stage: self.stages[stage], default="")

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)
