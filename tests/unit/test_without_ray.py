"""One process needs no Ray."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
sys.modules["ray"] = None  # from now on, importing it fails

import numpy as np
from atriva_inference import InferenceRuntime

backend, path = sys.argv[1:]
with InferenceRuntime(backend) as runtime, runtime.load_model(path, device="CPU") as model:
    output = model.run({"input": runtime.tensor_from_numpy(np.ones((1, 3, 8, 8)))})
    print(output["output"].shape)

assert not [name for name in sys.modules if name.startswith(("ray.", "atriva_ray"))]
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_model_runs_where_ray_cannot_be_imported(models, backend):
    command = [sys.executable, "-c", PROGRAM, backend, str(models / "onnx/conv.onnx")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert result.returncode == 0, result.stderr
    assert result.stdout == "(1, 4)\n"
