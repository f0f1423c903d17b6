"""One suite, every runtime: this is what keeps "change one import" true."""

from __future__ import annotations

import pytest

import atriva_inference

PACKAGES = ["atriva_inference"]
BACKENDS = ["openvino", "onnxruntime"]


@pytest.fixture(scope="session", params=PACKAGES)
def package(request):
    """The package under test; everything the tests use is imported from it."""
    return {"atriva_inference": atriva_inference}[request.param]


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(scope="session")
def runtime(package, backend):
    """A runtime shared by all tests; tests close the models they load."""
    with package.InferenceRuntime(backend) as opened:
        yield opened


@pytest.fixture
def load(runtime):
    """`runtime.load_model` whose models are closed when the test ends."""
    models = []

    def load_model(*args, **kwargs):
        model = runtime.load_model(*args, **kwargs)
        models.append(model)
        return model

    yield load_model
    for model in models:
        model.close()
