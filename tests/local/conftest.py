"""For what is true in one process only."""

from __future__ import annotations

import pytest

from atriva_inference import InferenceRuntime


@pytest.fixture(scope="session", params=["openvino", "onnxruntime"])
def backend(request):
    return request.param


@pytest.fixture
def runtime(backend):
    with InferenceRuntime(backend) as opened:
        yield opened
