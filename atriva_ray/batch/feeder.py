"""The feeder actor: reads and decodes fragments on one node and feeds them to the replicas."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from atriva_ray.batch.fragment_run import FragmentWork, Quarantined, run_fragment
from atriva_ray.batch.fragments import Fragment
from atriva_ray.batch.locations import open_location
from atriva_ray.batch.manifest import FragmentDone
from atriva_ray.batch.sources.dataset import DatasetSource
from atriva_ray.model import Model, ModelOrigin
from atriva_ray.runtime import InferenceRuntime

__all__ = ["Feeder", "FeederProgress"]

_MAX_DECODERS = 32
_SLACK_S = 0.03


@dataclass(frozen=True, slots=True)
class FeederProgress:
    """How far a feeder is.

    Attributes:
        rows: rows done so far of each fragment that runs, those in quarantine included.
        requests: requests answered since it began, by ``node/device``.
        waiting: requests that are under way or wait for a replica.
    """

    rows: Mapping[int, int] = field(default_factory=dict)
    requests: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0


class Feeder:
    """Runs fragments, several at once, each on a thread of its own.

    Its process ends with the job; what it had begun leaves only temporary files.
    """

    def __init__(self) -> None:
        """Start the threads that decode; `open` does the rest."""
        decoders = min(len(os.sched_getaffinity(0)), _MAX_DECODERS)
        self._pool = ThreadPoolExecutor(decoders, thread_name_prefix="atriva-decode")
        self._lock = threading.Lock()
        self._rows: dict[int, int] = {}
        self._requests: dict[str, dict[str, int]] = {}
        self._opened: Future[Model] = Future()

    def open(
        self, origin: ModelOrigin, work: FragmentWork, input_url: str, output_url: str
    ) -> None:
        """Connect to the model's replicas.

        Args:
            origin: which model.
            work: what to do with each fragment.
            input_url: any path in the input's filesystem.
            output_url: the output folder.
        """
        try:
            self._work = work
            self._read_from, _ = open_location(input_url)
            self._write_to, _ = open_location(output_url)
            self._runtime = InferenceRuntime(
                origin.request.backend, namespace=origin.namespace, slack_s=_SLACK_S
            )
            self._opened.set_result(self._runtime.open_model(origin))
        except BaseException as error:
            self._opened.set_exception(error)
            raise

    def run(
        self, fragment: Fragment, table: pa.Table | None = None
    ) -> tuple[FragmentDone, list[Quarantined]]:
        """Do one fragment as soon as the feeder is open; see `run_fragment` for what it raises.

        Args:
            fragment: which one.
            table: its rows, where they do not come from files.
        """
        model = self._opened.result()
        work = self._work
        if table is not None and isinstance(work.source, DatasetSource):
            first_row = fragment.index * work.source.rows_per_fragment
            work = replace(work, source=replace(work.source, table=table, first_row=first_row))
        self._rows[fragment.index] = 0
        try:
            return run_fragment(
                model,
                work,
                fragment,
                self._read_from,
                self._write_to,
                self._pool,
                partial(self._count, fragment.index),
            )
        finally:
            del self._rows[fragment.index]

    def progress(self) -> FeederProgress:
        """Return how far it is; answers also while fragments run."""
        if not self._opened.done():
            return FeederProgress()
        model = self._opened.result()
        with self._lock:
            for use in model.replicas:  # a replica that is lost keeps what it has answered
                answered = self._requests.setdefault(use.route.label, {})
                answered[use.route.replica_id] = use.answered
            requests = {label: sum(each.values()) for label, each in self._requests.items()}
        return FeederProgress(dict(self._rows), requests, model.waiting)

    def _count(self, index: int, rows: int) -> None:
        self._rows[index] += rows  # one thread per fragment
