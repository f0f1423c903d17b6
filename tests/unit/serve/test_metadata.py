"""What a server says of itself and of its models."""

from __future__ import annotations

import json

import numpy as np
import pytest

from atriva_inference.ports import Port
from atriva_ray.errors import NotSupportedError
from atriva_ray.serve.protocol.metadata import (
    TensorMetadata,
    live_json,
    model_metadata_json,
    model_ready_json,
    ready_json,
    server_metadata_json,
)


def port_of(name, dtype, shape):
    return Port(name, (name,), np.dtype(dtype), shape)


def test_a_server():
    assert json.loads(server_metadata_json("atriva", "0.1.0")) == {
        "name": "atriva",
        "version": "0.1.0",
        "extensions": ["binary_tensor_data", "classification", "parameters", "schedule_policy"],
    }
    assert json.loads(server_metadata_json("a", "1", ()))["extensions"] == []


def test_a_model():
    inputs = [port_of("image", np.float32, (-1, 3, 224, 224)), port_of("text", "U", None)]
    outputs = [port_of("größe", np.int64, ())]
    body = model_metadata_json("m", ["1", "2"], "onnxruntime_onnx", inputs, outputs)
    assert json.loads(body) == {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [
            {"name": "image", "datatype": "FP32", "shape": [-1, 3, 224, 224]},
            {"name": "text", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [{"name": "größe", "datatype": "INT64", "shape": []}],
    }


def test_a_tensor():
    assert TensorMetadata.of(port_of("x", np.bool_, (2,))) == TensorMetadata("x", "BOOL", (2,))
    with pytest.raises(NotSupportedError, match="complex64"):
        TensorMetadata.of(port_of("x", np.complex64, (2,)))


@pytest.mark.parametrize("is_so", [True, False])
def test_whether_it_is_ready(is_so):
    assert json.loads(live_json(is_live=is_so)) == {"live": is_so}
    assert json.loads(ready_json(is_ready=is_so)) == {"ready": is_so}
    assert json.loads(model_ready_json("m", is_ready=is_so)) == {"name": "m", "ready": is_so}
