"""One suite, every runtime: this is what keeps "change one import" true."""

from __future__ import annotations

import numpy as np
import pytest

import atriva_inference
import atriva_ray

PACKAGES = {package.__name__: package for package in (atriva_inference, atriva_ray)}
BACKENDS = ["openvino", "onnxruntime"]


@pytest.fixture(scope="session", params=PACKAGES)
def package(request):
    """The package under test; everything the tests use is imported from it."""
    if request.param == "atriva_ray":
        request.getfixturevalue("embedded_cluster")
    return PACKAGES[request.param]


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


@pytest.fixture(scope="session")
def only_with(backend):
    """Skips a test about something that the other backend does not have."""

    def skip_unless(name, reason):
        if backend != name:
            pytest.skip(reason)

    return skip_unless


@pytest.fixture(scope="session")
def exact_config(backend):
    """What makes results comparable to 1e-5: by default OpenVINO may compute in bfloat16."""
    return {"INFERENCE_PRECISION_HINT": "f32"} if backend == "openvino" else {}


@pytest.fixture(scope="session")
def expected(models):
    """`x_nchw`, and what the models make of it: `y`, and `y_dynamic` for `dynamic.onnx`."""
    return dict(np.load(models / "expected.npz"))


@pytest.fixture(scope="session")
def conv(runtime, models, exact_config):
    """`input` float32 1×3×8×8 → `output` float32 1×4. For tests that leave it as it is."""
    with runtime.load_model(models / "onnx/conv.onnx", config=exact_config) as model:
        yield model


@pytest.fixture(scope="session")
def dynamic(runtime, models, exact_config):
    """`input` float32 ?×3×?×? → `output` float32 ?×4. For tests that leave it as it is."""
    with runtime.load_model(models / "onnx/dynamic.onnx", config=exact_config) as model:
        yield model


@pytest.fixture(scope="session")
def multi(runtime, models, exact_config):
    """`a` float32 ?×4, `b` int64 ?×4 → `sum` float32 ?×4, `count` int64 ?: positives in b."""
    with runtime.load_model(models / "onnx/multi.onnx", config=exact_config) as model:
        yield model


@pytest.fixture(scope="session")
def half(runtime, models, exact_config):
    """`input` float16 ?×4 → `output` float16 ?×4: two times the input, plus one."""
    with runtime.load_model(models / "onnx/half.onnx", config=exact_config) as model:
        yield model


@pytest.fixture(scope="session")
def data_dependent(runtime, models, exact_config):
    """`data` float32 ?, `shape` int64 2 → `output`; fails at run time where they disagree."""
    with runtime.load_model(models / "onnx/data_dependent.onnx", config=exact_config) as model:
        yield model


@pytest.fixture(scope="session")
def slow(runtime, light_models, exact_config):
    """ResNet-50: tens of milliseconds a request. For tests that need one still under way."""
    with runtime.load_model(light_models / "light_resnet50.onnx", config=exact_config) as model:
        yield model


@pytest.fixture(scope="session")
def image(slow):
    """One input of the slow model."""
    port = slow.inputs[0]
    return {port.name: np.ones(port.shape, port.dtype)}


@pytest.fixture(scope="session")
def queue(slow, image):
    """Starts requests to the slow model, so many that the last one waits for a good while."""

    def start():
        requests = [slow.create_async_request() for _ in range(8 * slow.parallelism)]
        for request in requests:
            request.start(image)
        return requests

    return start
