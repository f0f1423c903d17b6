"""A model as OpenVINO compiles it: what the peers that call OpenVINO themselves share."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov

from atriva_inference.tensor import Array
from benchmarks.job import Job

__all__ = ["compile_job", "copy_outputs", "settings_of"]

_TELLING = (
    "PERFORMANCE_HINT",
    "INFERENCE_NUM_THREADS",
    "NUM_STREAMS",
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    "INFERENCE_PRECISION_HINT",
    "ENABLE_CPU_PINNING",
)


def compile_job(job: Job) -> ov.CompiledModel:
    """Compile the job's model on the processor."""
    core = ov.Core()
    return core.compile_model(core.read_model(job.model), "CPU", job.properties)


def settings_of(compiled: ov.CompiledModel) -> dict[str, Any]:
    """Return the settings that decide how fast a model is, as OpenVINO reports them."""
    return {name: str(compiled.get_property(name)) for name in _TELLING}


def copy_outputs(request: ov.InferRequest, count: int) -> list[Array]:
    """Copy the outputs, so that the request can run again."""
    return [np.array(request.get_output_tensor(index).data) for index in range(count)]
