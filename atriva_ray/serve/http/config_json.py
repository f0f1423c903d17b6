"""What Triton's tools ask of a server, as JSON: how models are served, and what they did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict

from atriva_ray.serve.rpc.descriptions import config_message
from atriva_ray.serve.server_face import ModelConfig, ModelStatistics, Timing

__all__ = ["config_json", "statistics_json"]

_WHOLE_NUMBERS = ("dims", "versions")
"""What protobuf writes as text, as JavaScript cannot hold 64 bits, and Triton as numbers."""


def config_json(config: ModelConfig) -> dict[str, Any]:
    """Return how a model is served, in the form that gRPC has it."""
    document: dict[str, Any] = _with_numbers(
        MessageToDict(config_message(config), preserving_proto_field_name=True)
    )
    return {"name": config.name, "max_batch_size": config.max_batch_size} | document


def statistics_json(statistics: Sequence[ModelStatistics]) -> dict[str, Any]:
    """Return what models did."""
    return {
        "model_stats": [
            {
                "name": each.name,
                "version": each.version,
                "last_inference": each.last_inference_ms,
                "inference_count": each.inference_count,
                "execution_count": each.execution_count,
                "inference_stats": {
                    "success": _timing(each.success),
                    "fail": _timing(each.fail),
                    "queue": _timing(each.queue),
                    "compute_input": _timing(Timing()),
                    "compute_infer": _timing(each.compute),
                    "compute_output": _timing(Timing()),
                },
                "batch_stats": [],
            }
            for each in statistics
        ]
    }


def _timing(timing: Timing) -> dict[str, int]:
    return {"count": timing.count, "ns": timing.total_ns}


def _with_numbers(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _with_numbers(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_numbers(each, key) for each in value]
    return int(value) if key in _WHOLE_NUMBERS else value
