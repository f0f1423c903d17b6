"""Plain Ray Data: `read_numpy`, `map_batches` with a compiled model, `write_parquet`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pyarrow.dataset
import ray

__all__ = ["RayDataRun", "run_ray_data"]

_BATCH_ROWS = 32


class _Infer:
    """The model in an actor, fed through `AsyncInferQueue`, as fast as one batch at a time goes."""

    def __init__(self, model: str, threads: int) -> None:
        core = ov.Core()
        self._compiled = core.compile_model(
            core.read_model(model),
            "CPU",
            {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads},
        )
        self._queue = ov.AsyncInferQueue(self._compiled)
        self._queue.set_callback(self._collect)
        self._began_s = time.time()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = batch["data"]
        self._answers: list[Any] = [None] * len(rows)
        for index, row in enumerate(rows):
            self._queue.start_async({0: row[np.newaxis]}, index)
        self._queue.wait_all()
        return {"scores": np.concatenate(self._answers), "time_s": np.full(len(rows), time.time())}

    def _collect(self, request: ov.InferRequest, index: int) -> None:
        self._answers[index] = np.array(request.get_output_tensor(0).data)


class RayDataRun:
    """What one run gave.

    Attributes:
        rows: rows of the output.
        seconds: from the call to the last row written.
        steady_rows_per_s: rows per second after the first batch.
    """

    def __init__(self, rows: int, seconds: float, steady_rows_per_s: float) -> None:
        self.rows = rows
        self.seconds = seconds
        self.steady_rows_per_s = steady_rows_per_s


def run_ray_data(model: Path, files: Path, output: Path, threads: int) -> RayDataRun:
    """Run all rows of a folder of ``.npy`` files; Ray must be initialised."""
    began_s = time.perf_counter()
    (
        ray.data.read_numpy(str(files))
        .map_batches(
            _Infer,
            fn_constructor_args=(str(model), threads),
            batch_size=_BATCH_ROWS,
            concurrency=1,
            num_cpus=1,
            zero_copy_batch=True,
        )
        .write_parquet(str(output))
    )
    seconds = time.perf_counter() - began_s
    times_s = np.sort(
        pyarrow.dataset.dataset(output).to_table(columns=["time_s"])["time_s"].to_numpy()
    )
    later = times_s[times_s > times_s[0]]
    steady = len(later) / (times_s[-1] - times_s[0]) if len(later) else 0.0
    return RayDataRun(len(times_s), seconds, float(steady))
