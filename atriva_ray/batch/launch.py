"""`run`: one call from a model and a data set to a folder of answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray

from atriva_inference.errors import OptionError
from atriva_inference.options import PerformanceHint
from atriva_ray.batch.crew import Crew
from atriva_ray.batch.fragment_run import FragmentWork
from atriva_ray.batch.fragments import Fragment, InputFile
from atriva_ray.batch.job import Job, Work
from atriva_ray.batch.locations import list_files, open_location
from atriva_ray.batch.outputs import OutputColumns, TopK, answer_ports
from atriva_ray.batch.plan import batch_size_of
from atriva_ray.batch.report import BatchReport, JobProgress
from atriva_ray.batch.schedule import feeder_count
from atriva_ray.batch.sinks import OutputFormat
from atriva_ray.batch.sources.base import Source
from atriva_ray.batch.sources.dataset import DatasetSource, fragments_of
from atriva_ray.batch.sources.find import find_source
from atriva_ray.inventory import alive_nodes
from atriva_ray.model import Model
from atriva_ray.rows_apart import are_rows_apart, trial_rows
from atriva_ray.runtime import InferenceRuntime

if TYPE_CHECKING:
    from atriva_inference.preprocess import Preprocessing

__all__ = ["run"]

_MAX_FEEDERS = 1_000


def run(
    model: str | os.PathLike[str] | Model,
    data: str | os.PathLike[str] | ray.data.Dataset,
    output: str | os.PathLike[str],
    *,
    backend: str = "openvino",
    address: str | None = None,
    device: str = "AUTO",
    replicas: int | str = "auto",
    config: Mapping[str, Any] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    kind: str | None = None,
    every: int = 1,
    columns: Mapping[str, str] | None = None,
    keep: Sequence[str] = (),
    batch_size: int | str = "auto",
    top_k: TopK | int | None = None,
    labels: Sequence[str] = (),
    format: str | None = None,  # noqa: A002 - what users of pandas and Ray Data call it
    resume: bool = False,
    max_bad: int | None = None,
    feeders: int | str = "auto",
    on_progress: Callable[[JobProgress], None] = lambda _progress: None,
) -> BatchReport:
    """Push a whole data set through a model; blocks until every row is accounted for.

    Every device that `device` chooses works at once, each at its own speed. The output is a folder
    with one file per fragment of the input, in order; a file is whole or not there, and the state
    of the job is kept beside them, so that a job that was stopped or killed is gone on with by
    `resume`. Rows that cannot be used go to quarantine with the reason.

    Memory is bounded whatever the data set's size: see `run_fragment`; a feeder runs two fragments
    at a time.

    Args:
        model: a model file, or a model that is loaded already (then the options that say how to
            load one must not be given).
        data: a file, a folder, a glob or a URL of images (JPEG, PNG), Parquet, ``.npy``, ``.npz``,
            CSV, JSON lines or video; or a Ray Data set, whose rows must come in the same order
            again if the job is to be resumed.
        output: the folder, on this machine or as a URL; new, empty, or with `resume` the one of
            the same job.
        backend: as for `InferenceRuntime`.
        address: as for `InferenceRuntime`.
        device: as for `load_model`; ``AUTO`` means every device that can compile the model.
        replicas: as for `load_model`.
        config: as for `load_model`.
        preprocessing: as for `load_model`.
        kind: what the input is, where the names of its files do not tell.
        every: of a video, every n-th frame.
        columns: of tables and ``.npz``: which column feeds which input, by input name.
        keep: of tables: columns that go to the output as they are.
        batch_size: rows per request; ``auto`` is 1 unless the model's batch dimension is dynamic.
        top_k: write the best entries of an output instead of all of it.
        labels: names of those entries, in order.
        format: ``parquet``, ``jsonl`` or ``npy``; None: what the folder's name ends in, else
            Parquet.
        resume: go on with a job that was stopped.
        max_bad: end the job when more rows than this are in quarantine; None never does.
        feeders: processes that read and decode; ``auto`` is one for eight CPUs. They run on this
            node, or on all nodes if both input and output are URLs.
        on_progress: called some times a second, on this thread.

    Returns:
        Counts, times and where things are.

    Raises:
        InputFileError: the input is missing, empty or of several kinds.
        BatchError: see its subclasses; what is done stays done.
        OptionError: an option has no acceptable value, or does not fit the model.
        ModelError, DeviceNotAvailableError: see `load_model`.
    """
    began_s = time.monotonic()
    folder_url = os.fspath(output)
    format_ = OutputFormat.parse(format, folder_url)
    if isinstance(top_k, int):
        top_k = TopK(top_k)
    if labels:
        top_k = TopK(*((top_k.count, top_k.output) if top_k else (1, None)), tuple(labels))
    _, folder = open_location(folder_url)
    source: Source = DatasetSource()
    files: tuple[InputFile, ...] = ()
    input_url, ignored = folder_url, 0
    if isinstance(data, (str, os.PathLike)):
        input_url = os.fspath(data)
        found = find_source(list_files(input_url)[1], kind=kind, every=every)
        source, files, ignored = found.source, found.files, found.ignored
    loading: dict[str, Any] = {
        "device": device,
        "replicas": replicas,
        "config": config,
        "preprocessing": preprocessing,
    }
    with ExitStack() as stack:
        if isinstance(model, Model):
            _check_unset(loading)
            backend = model.origin.request.backend
        runtime = stack.enter_context(_runtime(model, backend, address))
        on_progress(JobProgress("loading the model"))
        crew = Crew(_feeder_nodes(feeders, is_local=not _is_remote(input_url, folder_url)))
        stack.callback(crew.close)
        loaded = (
            runtime.open_model(model.origin)
            if isinstance(model, Model)
            else runtime.load_model(
                model,
                performance_hint=PerformanceHint.CUMULATIVE_THROUGHPUT,
                reserve_cpus=False,  # what reads and decodes runs beside the model
                **loading,
            )
        )
        stack.callback(loaded.close)
        # Says now what does not fit, before the folder is touched.
        _ = OutputColumns(answer_ports(loaded.inputs, loaded.outputs), top_k).schema
        columns = _for_only_input(columns or {}, loaded)
        read_from, _ = open_location(input_url)
        if files:
            source = source.checked(files, read_from, loaded.inputs, columns, keep)
        work = FragmentWork(
            source=source,
            folder=folder,
            format=format_,
            batch_size=_rows_per_request(batch_size, loaded),
            top_k=top_k,
            fit=_fit_of(loaded),
            columns=columns,
            keep=tuple(keep),
        )
        if isinstance(data, (str, os.PathLike)):
            on_progress(JobProgress("looking at the input"))
            plan = _planned(source.plan(files, read_from), files, work, input_url, folder_url)
        else:
            tables = fragments_of(data, DatasetSource().rows_per_fragment)
            items = ((each.index, (each, ray.put(table))) for each, table in tables)
            plan = Work(items, files, work, input_url, folder_url)
        on_progress(JobProgress("starting"))
        job = Job(
            runtime,
            loaded,
            crew,
            plan,
            is_resume=resume,
            max_bad=max_bad,
            on_progress=on_progress,
        )
        stack.callback(job.close)
        return replace(job.run(), seconds=time.monotonic() - began_s, files_ignored=ignored)


def _planned(
    fragments: Sequence[Fragment],
    files: Sequence[InputFile],
    work: FragmentWork,
    input_url: str,
    folder_url: str,
) -> Work:
    counts = [fragment.row_count for fragment in fragments]
    known = [count for count in counts if count is not None]
    items = ((fragment.index, (fragment, None)) for fragment in fragments)
    total = sum(known) if len(known) == len(counts) else None
    return Work(items, files, work, input_url, folder_url, total, len(fragments))


def _for_only_input(columns: Mapping[str, str], model: Model) -> dict[str, str]:
    """Give a column without an input (its name is empty) to the model's only one.

    Raises:
        OptionError: the model has several.
    """
    if "" not in columns:
        return dict(columns)
    names = [port.name for port in model.inputs]
    if len(names) != 1 or len(columns) != 1:
        raise OptionError(
            "columns",
            ", ".join(columns.values()),
            f"input=column for each input: the model has {', '.join(names)}",
        )
    return {names[0]: columns[""]}


def _rows_per_request(asked: int | str, model: Model) -> int:
    """Choose the batch size; without being told to, never more than 1 if the model mixes rows."""
    size = batch_size_of(asked, model.inputs, model.outputs)
    if asked != "auto" or size == 1:
        return size

    def run_(arrays: Mapping[str, Any]) -> dict[str, Any]:
        return {name: tensor.to_numpy() for name, tensor in model.run(arrays).items()}

    rows = trial_rows(model.inputs, model.outputs)
    return size if rows is not None and are_rows_apart(run_, rows) else 1


def _fit_of(model: Model) -> str:
    preprocessing = model.origin.request.options.preprocessing
    return "stretch" if preprocessing is None else str(preprocessing.fit)


def _runtime(
    model: str | os.PathLike[str] | Model, backend: str, address: str | None
) -> InferenceRuntime:
    if isinstance(model, Model):
        return InferenceRuntime(
            model.origin.request.backend, address=address, namespace=model.origin.namespace
        )
    return InferenceRuntime(backend, address=address)


def _check_unset(loading: Mapping[str, Any]) -> None:
    """Refuse options that would be ignored."""
    defaults = {"device": "AUTO", "replicas": "auto", "config": None, "preprocessing": None}
    for name, value in loading.items():
        if value != defaults[name]:
            raise OptionError(name, str(value), "left out: the model is loaded already")


def _is_remote(*urls: str) -> bool:
    return all("://" in url and not url.startswith("file://") for url in urls)


def _feeder_nodes(feeders: int | str, *, is_local: bool) -> list[str]:
    """Return the node of each feeder.

    Raises:
        OptionError: `feeders` is no number.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in alive_nodes() if not is_local or node["NodeID"] == here]
    cpus = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in nodes}
    if feeders == "auto":
        return [node_id for node_id, count in cpus.items() for _ in range(feeder_count(count))]
    is_count = isinstance(feeders, int) and not isinstance(feeders, bool)
    if not is_count or not 1 <= int(feeders) <= _MAX_FEEDERS:
        raise OptionError("feeders", str(feeders), f"'auto' or a number from 1 to {_MAX_FEEDERS}")
    return [list(cpus)[number % len(cpus)] for number in range(int(feeders))]
