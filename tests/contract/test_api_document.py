"""Every snippet of the API document, run as it is written there."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="module")
def model_path(backend, models):
    return models / {"openvino": "ir/model.xml", "onnxruntime": "onnx/conv.onnx"}[backend]


@pytest.fixture(scope="module")
def model(runtime, model_path):
    with runtime.load_model(model_path=model_path, device="AUTO") as loaded:
        yield loaded


@pytest.fixture
def np_array(expected):
    return expected["x_nchw"]


@pytest.fixture
def tensor(runtime, np_array):
    return runtime.tensor_from_numpy(np_array, layout="NCHW")


@pytest.fixture
def y(expected):
    # The document leaves the precision to the device, and bfloat16 has eight bits.
    return pytest.approx(expected["y"], abs=5e-3)


def test_initialize_runtime(package, backend):
    InferenceRuntime = package.InferenceRuntime  # noqa: N806 - as the document imports it

    runtime = InferenceRuntime(backend="openvino")
    assert runtime.backend == "openvino"
    runtime.close()

    with InferenceRuntime(backend) as positional:
        assert positional.backend == backend

    with InferenceRuntime() as default:
        assert default.backend == "openvino"


def test_load_a_model(runtime, model_path, monkeypatch):
    monkeypatch.chdir(model_path.parent.parent)

    model = runtime.load_model(
        model_path=f"{model_path.parent.name}/{model_path.name}",
        device="AUTO",  # CPU / GPU / NPU / AUTO
    )

    assert model.device in {device.name for device in runtime.devices()}
    model.close()


def test_prepare_input_tensors(runtime, np_array):
    tensor = runtime.tensor_from_numpy(np_array, layout="NCHW")

    assert tensor.shape == (1, 3, 8, 8)
    assert tensor.layout == "NCHW"


def test_execute_synchronously(model, tensor, y):
    output = model.run({"input": tensor})

    output_np = output["output"].to_numpy()

    assert isinstance(output_np, np.ndarray)
    assert output_np == y


def test_execute_asynchronously(model, tensor, y):
    request = model.create_async_request()

    request.start({"input": tensor})
    result = request.wait()

    assert result["output"].to_numpy() == y


def test_reusable_execution_stream(model, runtime, np_array, y):
    frames = [np_array, np_array.astype(np.float64), np_array[:, ::-1][:, ::-1]]

    stream = model.create_stream()

    for frame in frames:
        inp = runtime.tensor_from_numpy(frame)
        out = stream.run({"input": inp})
        assert out["output"].to_numpy() == y


def test_working_with_dynamic_shapes(dynamic, runtime, np_array, expected):
    h, w = 8, 8

    tensor = runtime.tensor_from_numpy(np_array, shape_override=(1, 3, h, w))

    output = dynamic.run({"input": tensor})
    assert output["output"].to_numpy() == pytest.approx(expected["y_dynamic"], abs=1e-5)


def test_performance_profiling(model, capsys):
    profile = model.get_profiling()
    print(profile)

    table = capsys.readouterr().out
    assert "memory transfers" in table
    assert "device overhead" in table
    assert profile.layers


def test_error_handling(package, model, capsys):
    InferenceRuntimeError = package.InferenceRuntimeError  # noqa: N806 - as in the document
    inputs = {"picture": np.zeros((1, 3, 8, 8), np.float32)}

    try:
        model.run(inputs)
    except InferenceRuntimeError as e:
        print("Inference error:", e)

    printed = capsys.readouterr().out
    assert printed.startswith("Inference error: ")
    assert "'picture'" in printed
    assert "'input'" in printed
