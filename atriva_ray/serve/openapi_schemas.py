"""The shapes of what the server takes and gives, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atriva_ray.serve.protocol.datatypes import DATATYPES

__all__ = ["INFER_EXAMPLE", "schema_ref", "schemas"]

INFER_EXAMPLE: dict[str, Any] = {
    "id": "42",
    "inputs": [
        {"name": "input", "shape": [2, 2], "datatype": "FP32", "data": [0.1, 0.2, 0.3, 0.4]}
    ],
    "outputs": [{"name": "scores", "parameters": {"classification": 1}}],
}
"""A request of one input, which asks for the best class of one output."""

_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": "boolean"}


def schema_ref(name: str) -> dict[str, Any]:
    """Return a reference to one of `schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def schemas() -> dict[str, Any]:
    """Return all schemas by name."""
    return _common() | _descriptions() | _inference() | _repository()


def _common() -> dict[str, Any]:
    return {
        "Error": _object(
            {"error": {**_TEXT, "description": "What is wrong, and what to do about it."}},
            needed=["error"],
        ),
        "Parameters": {
            "type": "object",
            "additionalProperties": {"type": ["boolean", "number", "string"]},
        },
        "Datatype": {"type": "string", "enum": list(DATATYPES)},
        "Shape": {
            "type": "array",
            "items": {"type": "integer", "minimum": 0},
            "description": "Sizes, outermost first.",
        },
        "Elements": {
            "type": "array",
            "description": "Row by row, flat or nested as the shape is.",
            "items": {
                "anyOf": [
                    {"type": ["number", "boolean", "string"]},
                    schema_ref("Elements"),
                ]
            },
        },
    }


def _descriptions() -> dict[str, Any]:
    port = _object(
        {
            "name": _TEXT,
            "datatype": schema_ref("Datatype"),
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": -1},
                "description": "Sizes; -1 for one that may vary.",
            },
        },
        needed=["name", "datatype", "shape"],
    )
    timing = _object({"count": _COUNT, "ns": _COUNT}, needed=["count", "ns"])
    return {
        "Server": _object(
            {"name": _TEXT, "version": _TEXT, "extensions": _list(_TEXT)},
            needed=["name", "version", "extensions"],
        ),
        "Live": _object({"live": _FLAG}, needed=["live"]),
        "Ready": _object({"ready": _FLAG}, needed=["ready"]),
        "ModelReady": _object({"name": _TEXT, "ready": _FLAG}, needed=["name", "ready"]),
        "Port": port,
        "Model": _object(
            {
                "name": _TEXT,
                "versions": _list(_TEXT),
                "platform": _TEXT,
                "inputs": _list(schema_ref("Port")),
                "outputs": _list(schema_ref("Port")),
            },
            needed=["name", "platform", "inputs", "outputs"],
        ),
        "ModelConfig": _object(
            {"name": _TEXT, "max_batch_size": _COUNT},
            needed=["name", "max_batch_size"],
            description="In the form of Triton's model configuration.",
        ),
        "Timing": timing,
        "Statistics": _object(
            {
                "model_stats": _list(
                    _object(
                        {
                            "name": _TEXT,
                            "version": _TEXT,
                            "last_inference": {
                                **_COUNT,
                                "description": "Milliseconds since 1970; 0 if there was none.",
                            },
                            "inference_count": _COUNT,
                            "execution_count": _COUNT,
                            "inference_stats": {
                                "type": "object",
                                "additionalProperties": schema_ref("Timing"),
                            },
                            "batch_stats": {"type": "array"},
                        },
                        needed=["name", "version", "inference_stats"],
                    )
                )
            },
            needed=["model_stats"],
        ),
    }


def _inference() -> dict[str, Any]:
    needed = ["name", "datatype", "shape"]
    tensor = {
        "name": _NAME,
        "datatype": schema_ref("Datatype"),
        "shape": schema_ref("Shape"),
        "parameters": schema_ref("Parameters"),
        "data": schema_ref("Elements"),
    }
    return {
        "InputTensor": _object(
            tensor,
            needed=needed,
            description="Its elements are in `data`; or behind the JSON, and then the parameter "
            "`binary_data_size` says how many bytes they have.",
        ),
        "RequestedOutput": _object(
            {"name": _NAME, "parameters": schema_ref("Parameters")},
            needed=["name"],
            description="With the parameter `classification`, that many of the best entries come "
            "as text `score:index:label`; with `binary_data`, elements come behind the JSON.",
        ),
        "InferRequest": _object(
            {
                "id": _TEXT,
                "parameters": schema_ref("Parameters"),
                "inputs": {**_list(schema_ref("InputTensor")), "minItems": 1},
                "outputs": {
                    **_list(schema_ref("RequestedOutput")),
                    "description": "Those that are wanted; none: all.",
                },
            },
            needed=["inputs"],
        ),
        "OutputTensor": _object(tensor, needed=needed),
        "InferAnswer": _object(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "id": _TEXT,
                "parameters": schema_ref("Parameters"),
                "outputs": _list(schema_ref("OutputTensor")),
            },
            needed=["model_name", "outputs"],
        ),
        "PictureAnswer": _object(
            {
                "model_name": _TEXT,
                "model_version": _TEXT,
                "outputs": _list(
                    _object(
                        {"name": _TEXT, "classes": _list(schema_ref("ClassScore"))},
                        needed=["name", "classes"],
                    )
                ),
            },
            needed=["model_name", "outputs"],
        ),
        "ClassScore": _object(
            {
                "index": _COUNT,
                "score": {"type": "number", "description": "As the model gives it."},
                "label": _TEXT,
            },
            needed=["index", "score"],
            description="One of the best entries of an output, the best one first.",
        ),
    }


def _repository() -> dict[str, Any]:
    states = ["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
    return {
        "IndexRequest": _object(
            {"ready": {**_FLAG, "description": "Whether only those are wanted that are."}}
        ),
        "Index": _list(
            _object(
                {
                    "name": _TEXT,
                    "version": _TEXT,
                    "state": {"type": "string", "enum": states},
                    "reason": {**_TEXT, "description": "Why it is not ready."},
                },
                needed=["name"],
            )
        ),
        "RepositoryRequest": _object({"parameters": schema_ref("Parameters")}),
    }


def _object(
    properties: Mapping[str, Any], *, needed: list[str] | None = None, description: str = ""
) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties)}
    if needed:
        schema["required"] = needed
    if description:
        schema["description"] = description
    return schema


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dict(items)}
