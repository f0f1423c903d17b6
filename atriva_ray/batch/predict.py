"""A model as one more step of a Ray Data pipeline; `Model.predict` is its face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import ray
from pyarrow.fs import LocalFileSystem

from atriva_inference.errors import InferenceFailedError
from atriva_ray.batch.fragment_run import FragmentWork, Quarantined, RowRun
from atriva_ray.batch.fragments import Fragment
from atriva_ray.batch.outputs import OutputColumns, TopK, answer_ports
from atriva_ray.batch.plan import batch_size_of
from atriva_ray.batch.sinks import OutputFormat
from atriva_ray.batch.sources.base import ReadContext
from atriva_ray.batch.sources.dataset import DatasetSource
from atriva_ray.batch.stages import StageTimes
from atriva_ray.errors import ClusterError
from atriva_ray.inventory import alive_nodes
from atriva_ray.model import Model, ModelOrigin
from atriva_ray.runtime import InferenceRuntime

__all__ = ["predict"]

_PER_NODE = 2
"""While one block ends, the other keeps the devices busy."""


def predict(
    model: Model,
    dataset: ray.data.Dataset,
    *,
    columns: Mapping[str, str] | None = None,
    batch_size: int | str = "auto",
    top_k: TopK | int | None = None,
    labels: Sequence[str] = (),
) -> ray.data.Dataset:
    """Add the model's answers to a data set; see `atriva_ray.Model.predict`."""
    if isinstance(top_k, int):
        top_k = TopK(top_k, labels=tuple(labels))
    _ = OutputColumns(answer_ports(model.inputs, model.outputs), top_k).schema
    if not ray.available_resources().get("CPU"):  # type: ignore[no-untyped-call]
        raise ClusterError(
            "this program's",
            "the model holds all CPUs, and Ray Data needs at least one to read; "
            "load it with reserve_cpus=False",
        )
    work = FragmentWork(
        source=DatasetSource(),
        folder="",
        format=OutputFormat.PARQUET,
        batch_size=batch_size_of(batch_size, model.inputs, model.outputs),
        top_k=top_k,
        columns=dict(columns or {}),
    )
    return dataset.map_batches(
        _Predictor,
        fn_constructor_args=(model.origin, work),
        batch_format="pyarrow",
        batch_size=None,
        zero_copy_batch=True,
        concurrency=(1, _PER_NODE * len(alive_nodes())),
        num_cpus=0,
    )


class _Predictor:
    """Runs blocks of a data set in a process of Ray Data's."""

    def __init__(self, origin: ModelOrigin, work: FragmentWork) -> None:
        self._runtime = InferenceRuntime(origin.request.backend, namespace=origin.namespace)
        self._model = self._runtime.open_model(origin)
        self._work = work
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="atriva-decode")

    def __call__(self, block: pa.Table) -> pa.Table:
        model, work = self._model, self._work
        context = ReadContext(
            filesystem=LocalFileSystem(),
            ports=model.inputs,
            pool=self._pool,
            ahead=2 * model.parallelism * work.batch_size,
            times=StageTimes(),
            fit=work.fit,
            columns=work.columns,
        )
        bad: list[Quarantined] = []
        source = DatasetSource(table=block)
        run = RowRun(model, replace(work, source=source), context, bad, lambda _rows: None)
        tables = list(run.tables(source.read(Fragment(0, ()), context)))
        if bad:
            first = bad[0]
            raise InferenceFailedError(
                model.name,
                ",".join(model.execution_devices),
                f"{len(bad)} of {block.num_rows} rows of a block cannot be used; row "
                f"{first.number}: {first.reason}",
            )
        answers = pa.concat_tables(tables) if tables else run.schema.empty_table()
        for name in answers.column_names[len(work.source.identity) :]:
            free = name
            while free in block.column_names:
                free += "_"
            block = block.append_column(free, answers.column(name))
        return block
