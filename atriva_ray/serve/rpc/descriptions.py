"""The messages that describe the server and its models."""

from __future__ import annotations

from collections.abc import Iterable

from atriva_inference.ports import Port
from atriva_ray.serve import server_face
from atriva_ray.serve.protocol.metadata import TensorMetadata
from atriva_ray.serve.rpc.messages import (
    InferStatistics,
    ModelConfig,
    ModelInput,
    ModelInstanceGroup,
    ModelMetadataResponse,
    ModelOutput,
    ModelStatistics,
    RepositoryIndexResponse,
    StatisticDuration,
)
from atriva_ray.serve.server_face import ModelMetadata, ModelState, Timing

__all__ = ["config_message", "index_message", "metadata_message", "statistics_message"]

_FORMATS = {"NCHW": "FORMAT_NCHW", "NHWC": "FORMAT_NHWC"}


def metadata_message(metadata: ModelMetadata) -> ModelMetadataResponse:
    """Return what a model takes and gives."""
    return ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=map(_tensor, metadata.inputs),
        outputs=map(_tensor, metadata.outputs),
    )


def config_message(config: server_face.ModelConfig) -> ModelConfig:
    """Return how a model is served."""
    is_batched = config.max_batch_size > 0
    outputs = [TensorMetadata.of(port) for port in config.outputs]
    message = ModelConfig(
        name=config.name,
        platform=config.platform,
        backend=config.backend,
        max_batch_size=config.max_batch_size,
        input=[_input(port, is_batched=is_batched) for port in config.inputs],
        output=[
            ModelOutput(
                name=tensor.name,
                data_type=_data_type(tensor),
                dims=_dims(tensor, is_batched=is_batched),
            )
            for tensor in outputs
        ],
        instance_group=[
            ModelInstanceGroup(name=group.name, kind=group.kind.value, count=group.count)
            for group in config.instance_groups
        ],
    )
    versions = [int(version) for version in config.versions if version.isdecimal()]
    if versions:
        message.version_policy.specific.versions.extend(versions)
    for name, value in config.parameters.items():
        message.parameters[name].string_value = value
    return message


def statistics_message(statistics: server_face.ModelStatistics) -> ModelStatistics:
    """Return what a model did."""
    return ModelStatistics(
        name=statistics.name,
        version=statistics.version,
        last_inference=statistics.last_inference_ms,
        inference_count=statistics.inference_count,
        execution_count=statistics.execution_count,
        inference_stats=InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail),
            queue=_duration(statistics.queue),
            compute_infer=_duration(statistics.compute),
        ),
    )


def index_message(states: Iterable[ModelState]) -> RepositoryIndexResponse:
    """Return which models there are."""
    message = RepositoryIndexResponse()
    for each in states:
        message.models.add(
            name=each.name, version=each.version, state=each.state, reason=each.reason
        )
    return message


def _tensor(port: Port) -> ModelMetadataResponse.TensorMetadata:
    tensor = TensorMetadata.of(port)
    return ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )


def _input(port: Port, *, is_batched: bool) -> ModelInput:
    tensor = TensorMetadata.of(port)
    return ModelInput(
        name=tensor.name,
        data_type=_data_type(tensor),
        format=_FORMATS.get(port.layout or "", "FORMAT_NONE"),
        dims=_dims(tensor, is_batched=is_batched),
    )


def _dims(tensor: TensorMetadata, *, is_batched: bool) -> tuple[int, ...]:
    return tensor.shape[1:] if is_batched else tensor.shape


def _data_type(tensor: TensorMetadata) -> str:
    return "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"


def _duration(timing: Timing) -> StatisticDuration:
    return StatisticDuration(count=timing.count, ns=timing.total_ns)
