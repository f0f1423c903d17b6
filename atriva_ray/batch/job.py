"""A whole job: plan it, feed it to the cluster, account for every row."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from atriva_inference.errors import (
    CompileError,
    ModelError,
)
from atriva_ray.batch.crew import Crew, Failed, Finished, Lost
from atriva_ray.batch.fragment_run import FragmentWork, Quarantined
from atriva_ray.batch.fragments import Fragment, InputFile
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.manifest import FOLDER, FragmentDone, Manifest
from atriva_ray.batch.plan import describe
from atriva_ray.batch.report import BatchReport, JobProgress
from atriva_ray.batch.schedule import MAX_ATTEMPTS, Schedule
from atriva_ray.errors import (
    BatchError,
    ClusterError,
    FragmentFailedError,
    ReplicaLostError,
    ResumeError,
    TooManyBadRowsError,
)
from atriva_ray.model import Model
from atriva_ray.runtime import InferenceRuntime

__all__ = ["Item", "Job", "Work"]

_logger = logging.getLogger(__name__)

_LOOK_S = 0.2
_TOLD_EVERY_S = 0.2

Item: TypeAlias = tuple[Fragment, Any]
"""A fragment, and a reference to its rows where they do not come from files."""

_MODEL_LOST = (ModelError, ClusterError, ReplicaLostError)
"""What a fragment fails with when the router has died, and the model with it."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a job is about.

    Attributes:
        fragments: what there is to do, in order; may be made while the job runs.
        files: the input's files, empty if it has none.
        fragment_work: how each is done.
        input_url: any path in the input's filesystem.
        output_url: the output folder, as the user named it.
        total_rows: rows in all, if that is known.
        total_fragments: fragments in all, if that is known.
    """

    fragments: Iterator[tuple[int, Item]]
    files: Sequence[InputFile]
    fragment_work: FragmentWork
    input_url: str
    output_url: str
    total_rows: int | None = None
    total_fragments: int | None = None


class Job:
    """One run of a job, from its begin to its end or to the error that ends it."""

    def __init__(
        self,
        runtime: InferenceRuntime,
        model: Model,
        crew: Crew,
        work: Work,
        *,
        is_resume: bool,
        max_bad: int | None,
        on_progress: Callable[[JobProgress], None],
    ) -> None:
        """Claim the output folder.

        Raises:
            OutputFolderError: it holds something else.
            ResumeError: it holds another job.
        """
        self._runtime = runtime
        self._model = model
        self._crew = crew
        self._work = work
        self._max_bad = max_bad
        self._on_progress = on_progress
        self._began_s = time.monotonic()
        filesystem, _ = open_location(work.output_url)
        self._manifest = Manifest(filesystem, work.fragment_work.folder)
        self._manifest.claim()
        description = describe(model.origin, work.fragment_work, work.files)
        self._done = self._manifest.begin(description, work.files, is_resume=is_resume)
        self._before = dict(self._done)
        if self._done:
            self._manifest.clear_unfinished(self._done)
        self._failures: dict[int, int] = {}
        self._told_s = 0.0
        self._example = ""

    def close(self) -> None:
        """Let go of the output folder."""
        self._manifest.release()

    def run(self) -> BatchReport:
        """Do what is not done yet; blocks until all of it is.

        Raises:
            TooManyBadRowsError: more than `max_bad` rows are in quarantine.
            FragmentFailedError: a part could not be done. The rest can be resumed.
        """
        work = self._work
        self._crew.open(self._model.origin, work.fragment_work, work.input_url, work.output_url)
        self._fed_s = time.monotonic()
        schedule: Schedule[Item] = Schedule(self._to_do())
        while True:
            self._crew.give(schedule)
            if schedule.is_done:
                break
            events = self._crew.wait(_LOOK_S)
            # What is done first: what follows takes all that is not done from its feeders.
            for event in events:
                if isinstance(event, Finished):
                    schedule.done(event.done.index)
                    self._finish(event.done, event.bad)
            for event in events:
                if isinstance(event, Lost):
                    self._give_up(schedule.lost(event.feeder_id), event.reason)
            failed = [event for event in events if isinstance(event, Failed)]
            if failed:
                self._look_into(schedule, failed)
            self._tell()
        return self._close()

    # -- while it runs -------------------------------------------------------------------------

    def _to_do(self) -> Iterator[tuple[int, Item]]:
        for index, item in self._work.fragments:
            before = self._before.get(index)
            if before is None:
                yield index, item
            elif before.digest and before.digest != item[0].digest:
                raise ResumeError(
                    self._work.fragment_work.folder,
                    [f"fragment {index:,} of the data set has other rows than before"],
                )

    def _finish(self, done: FragmentDone, bad: Sequence[Quarantined]) -> None:
        self._manifest.finish_fragment(done, [row.as_json() for row in bad])
        self._done[done.index] = done
        if bad:
            where = ", ".join(str(value) for value in bad[0].identity.values())
            self._example = f"{where}: {bad[0].reason}"
        count = self._bad_rows
        if self._max_bad is not None and count > self._max_bad:
            raise TooManyBadRowsError(count, self._max_bad, self._example)

    def _look_into(self, schedule: Schedule[Item], failed: Sequence[Failed]) -> None:
        """Begin again where the model was lost; let any other error end the job."""
        for index, error in ((event.index, event.error) for event in failed):
            if not isinstance(error, _MODEL_LOST) or isinstance(error, CompileError):
                raise error
            self._failures[index] = self._failures.get(index, 0) + 1
            if self._failures[index] >= MAX_ATTEMPTS:
                raise FragmentFailedError(self._name(index), self._failures[index], str(error))
        error = failed[0].error
        _logger.warning("the model was lost (%s); loading it again", error)
        for feeder_id in self._crew.feeder_ids:
            self._give_up(schedule.lost(feeder_id), str(error))
        self._crew.restart()
        self._model.close()
        self._model = self._runtime.open_model(self._model.origin)
        work = self._work
        self._crew.open(self._model.origin, work.fragment_work, work.input_url, work.output_url)

    def _give_up(self, indexes: Sequence[int], reason: str) -> None:
        if indexes:
            raise FragmentFailedError(self._name(indexes[0]), MAX_ATTEMPTS, reason)

    def _name(self, index: int) -> str:
        return f"fragment {index:,} of the input"

    def _tell(self, *, is_last: bool = False) -> None:
        now_s = time.monotonic()
        if not is_last and now_s - self._told_s < _TOLD_EVERY_S:
            return
        self._told_s = now_s
        running = self._crew.progress()
        done = sum(each.rows_in for each in self._done.values())
        before = sum(each.rows_in for each in self._before.values())
        partly = sum(count for index, count in running.rows.items() if index not in self._done)
        self._on_progress(
            JobProgress(
                "done" if is_last else "running",
                rows=done + partly,
                total_rows=self._work.total_rows,
                rows_per_s=(done + partly - before) / max(1e-9, now_s - self._fed_s),
                devices=_shares(running.requests),
                waiting=running.waiting,
                fragments_done=len(self._done),
                total_fragments=self._work.total_fragments,
                bad_rows=self._bad_rows,
            )
        )

    @property
    def _bad_rows(self) -> int:
        return sum(each.rows_bad for each in self._done.values())

    # -- when it is done -----------------------------------------------------------------------

    def _close(self) -> BatchReport:
        ended_s = time.monotonic()
        self._crew.wait(0)  # for the last word on devices
        self._tell(is_last=True)
        devices = _shares(self._crew.progress().requests)
        self._crew.close()
        done = self._manifest.done()  # what is really there
        self._manifest.clear_unfinished(done)  # of feeders that were lost
        rows_in, rows_out, rows_bad = (
            sum(getattr(each, name) for each in done.values())
            for name in ("rows_in", "rows_out", "rows_bad")
        )
        total = self._work.total_rows
        if rows_in != rows_out + rows_bad or (total is not None and total != rows_in):
            raise BatchError(
                f"rows do not add up: {total} planned, {rows_in} read, {rows_out} written, "
                f"{rows_bad} in quarantine; did the input change meanwhile?"
            )
        fresh = [each for index, each in done.items() if index not in self._before]
        infer_s = ended_s - self._fed_s
        stages: dict[str, float] = {}
        for each in fresh:
            for stage, seconds in each.seconds.items():
                stages[stage] = stages.get(stage, 0.0) + seconds
        folder = self._work.fragment_work.folder
        report = BatchReport(
            output=self._work.output_url,
            rows_in=rows_in,
            rows_out=rows_out,
            rows_bad=rows_bad,
            rows_before=sum(each.rows_in for each in self._before.values()),
            fragments=len(done),
            seconds=time.monotonic() - self._began_s,
            infer_seconds=infer_s,
            rows_per_s=sum(each.rows_in for each in fresh) / max(1e-9, infer_s),
            stages=stages,
            devices=devices,
            quarantine=f"{folder}/{FOLDER}/quarantine.jsonl" if rows_bad else None,
        )
        self._manifest.finish_job(report.as_json(), done)
        return report


def _shares(requests: Mapping[str, int]) -> dict[str, float]:
    total = sum(requests.values())
    return {label: count / total for label, count in sorted(requests.items())} if total else {}
