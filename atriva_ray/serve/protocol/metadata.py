"""What a server says of itself and of its models, and whether they are ready."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from atriva_inference.ports import Port
from atriva_ray.serve.protocol.datatypes import datatype_of

__all__ = [
    "EXTENSIONS",
    "TensorMetadata",
    "live_json",
    "model_metadata_json",
    "model_ready_json",
    "ready_json",
    "server_metadata_json",
]

EXTENSIONS = ("binary_tensor_data", "classification", "parameters", "schedule_policy")
"""Those of Triton's extensions that requests and answers are read and written with."""


@dataclass(frozen=True, slots=True)
class TensorMetadata:
    """One input or output, as the protocol describes it.

    Attributes:
        name: which one.
        datatype: as the protocol names it.
        shape: sizes, -1 for a dynamic one. The protocol has nothing for a rank that is dynamic
            itself; such a shape is a single -1.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    @classmethod
    def of(cls, port: Port) -> TensorMetadata:
        """Describe a port.

        Raises:
            NotSupportedError: the protocol has no name for its dtype.
        """
        return cls(port.name, datatype_of(port.dtype), (-1,) if port.shape is None else port.shape)


def server_metadata_json(name: str, version: str, extensions: Sequence[str] = EXTENSIONS) -> bytes:
    """Return what the server is, and which extensions of the protocol it has."""
    return _to_json({"name": name, "version": version, "extensions": list(extensions)})


def model_metadata_json(
    name: str,
    versions: Sequence[str],
    platform: str,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
) -> bytes:
    """Return what a model is.

    Args:
        name: the model's.
        versions: those that there are.
        platform: what runs it, ``onnxruntime_onnx`` for example.
        inputs: what it takes.
        outputs: what it gives.

    Raises:
        NotSupportedError: the protocol has no name for the dtype of an input or output.
    """
    return _to_json(
        {
            "name": name,
            "versions": list(versions),
            "platform": platform,
            "inputs": [_tensor(port) for port in inputs],
            "outputs": [_tensor(port) for port in outputs],
        }
    )


def live_json(*, is_live: bool) -> bytes:
    """Return whether the server is there."""
    return _to_json({"live": is_live})


def ready_json(*, is_ready: bool) -> bytes:
    """Return whether the server takes requests."""
    return _to_json({"ready": is_ready})


def model_ready_json(name: str, *, is_ready: bool) -> bytes:
    """Return whether a model takes requests."""
    return _to_json({"name": name, "ready": is_ready})


def _tensor(port: Port) -> dict[str, object]:
    tensor = TensorMetadata.of(port)
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def _to_json(document: dict[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
