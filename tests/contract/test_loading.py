"""Loading: which files, onto which devices, with which options, and what the model then says."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FORMATS = [
    "ir/model.xml",
    "ir/nhwc.xml",
    "onnx/conv.onnx",
    "tensorflow/saved_model",
    "tensorflow/frozen.pb",
    "tflite/model.tflite",
    "paddle/model.pdmodel",
]


@pytest.fixture
def answers(runtime, expected):
    """Whether a model that is a twin of `conv.onnx` computes what it should."""

    def check(model, tolerance=1e-5):
        # The layout lets the runtime turn the axes for the twins that want NHWC.
        tensor = runtime.tensor_from_numpy(expected["x_nchw"], layout="NCHW")
        (output,) = model.run({model.inputs[0].name: tensor}).values()
        return output.to_numpy() == pytest.approx(expected["y"], abs=tolerance)

    return check


@pytest.mark.parametrize("path", FORMATS)
def test_every_format_gives_the_same_answer(
    load, package, backend, models, exact_config, answers, path
):
    if backend == "onnxruntime" and not path.endswith(".onnx"):
        with pytest.raises(package.ModelUnreadableError, match="only ONNX can be read"):
            load(models / path)
    else:
        assert answers(load(models / path, config=exact_config))


@pytest.mark.parametrize("to_path", [str, lambda path: path], ids=["str", "Path"])
def test_a_path_may_be_text_or_a_path(load, models, exact_config, answers, to_path):
    assert answers(load(to_path(models / "onnx/conv.onnx"), config=exact_config))


@pytest.mark.parametrize(
    "device", ["AUTO", "auto", "CPU", "AUTO:-GPU", "AUTO:CPU", "AUTO:GPU,CPU", " cpu "]
)
def test_device_expressions(runtime, load, models, exact_config, answers, device):
    model = load(models / "onnx/conv.onnx", device, config=exact_config)

    assert model.device in {found.name for found in runtime.devices()}
    assert set(model.execution_devices) <= {found.name for found in runtime.devices()}
    assert answers(model)


@pytest.mark.parametrize("device", ["CPU", "AUTO:CPU", "AUTO:-GPU,-NPU"])
def test_the_device_is_the_one_that_really_runs(load, models, device):
    model = load(models / "onnx/conv.onnx", device)

    assert model.device == "CPU"
    assert model.execution_devices == ("CPU",)


def test_devices_come_in_the_order_auto_prefers(runtime):
    devices = runtime.devices()

    assert [device.preference for device in devices] == sorted(d.preference for d in devices)
    assert devices[-1].name == "CPU"
    assert devices[-1].kind == "CPU"
    assert devices[-1].capabilities


@pytest.mark.parametrize(
    "hint", ["LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT", "ADAPTIVE", "latency"]
)
def test_hints(load, models, exact_config, answers, hint):
    model = load(models / "onnx/conv.onnx", performance_hint=hint, config=exact_config)

    assert model.parallelism >= 1
    assert answers(model)


def test_latency_gives_the_device_to_one_request(package, load, models):
    path = models / "onnx/conv.onnx"
    latency = load(path, "CPU", performance_hint=package.PerformanceHint.LATENCY)
    throughput = load(path, "CPU", performance_hint=package.PerformanceHint.THROUGHPUT)

    assert latency.parallelism <= throughput.parallelism


def test_adaptive_models_answer_alone_and_in_company(load, models, exact_config, answers):
    model = load(models / "onnx/conv.onnx", performance_hint="ADAPTIVE", config=exact_config)
    image = np.ones((1, 3, 8, 8), np.float32)
    alone = model.run({"input": image})["output"].to_numpy()

    together = [model.submit({"input": image}) for _ in range(32)]

    for future in together:
        np.testing.assert_allclose(future.result(30)["output"].to_numpy(), alone, rtol=1e-4)
    assert answers(model)


def test_config_reaches_the_backend(load, backend, models, answers, exact_config, tmp_path):
    config = {
        "openvino": exact_config | {"CACHE_DIR": str(tmp_path)},
        "onnxruntime": {"optimized_model_filepath": str(tmp_path / "optimised.onnx")},
    }[backend]

    assert answers(load(models / "onnx/conv.onnx", "CPU", config=config))
    assert any(tmp_path.iterdir())


def test_config_takes_dotted_session_keys(load, only_with, models, answers):
    only_with("onnxruntime", "OpenVINO has no sessions")
    config = {"session.intra_op.allow_spinning": "0", "intra_op_num_threads": 1}
    assert answers(load(models / "onnx/conv.onnx", config=config))


def test_a_model_is_called_after_its_file_or_as_asked(load, models):
    assert load(models / "onnx/conv.onnx").name == "conv"
    assert load(models / "onnx/conv.onnx", name="detector").name == "detector"


def test_repr_tells_what_matters(runtime, load, models, backend):
    model = load(models / "onnx/conv.onnx", "CPU", name="shown")

    assert backend in repr(runtime)
    for word in ("'shown'", "CPU", "input", "float32", "1×3×8×8", "NCHW"):
        assert word in repr(model)
    model.close()
    assert "closed" in repr(model)


def test_a_model_is_a_context_manager(package, runtime, models, expected):
    with runtime.load_model(models / "onnx/conv.onnx") as model:
        model.run({"input": expected["x_nchw"]})

    with pytest.raises(package.ClosedError):
        model.run({"input": expected["x_nchw"]})


def test_a_runtime_closes_the_models_it_loaded(package, backend, models, expected):
    with package.InferenceRuntime(backend) as runtime:
        loaded = [runtime.load_model(models / f"onnx/{name}.onnx") for name in ("conv", "dynamic")]
        for model in loaded:
            model.run({"input": expected["x_nchw"]})

    for model in loaded:
        with pytest.raises(package.ClosedError):
            model.run({"input": expected["x_nchw"]})


def test_closing_twice_is_harmless(package, backend, models):
    runtime = package.InferenceRuntime(backend)
    model = runtime.load_model(models / "onnx/conv.onnx")
    for closable in (model, runtime):
        closable.close()
        closable.close()


def test_one_model_may_be_closed_while_others_go_on(load, models, answers, exact_config):
    path = models / "onnx/conv.onnx"
    first = load(path, config=exact_config)
    second = load(path, config=exact_config)
    first.close()

    assert answers(second)


def test_ports_can_be_asked_after_close(load, models):
    model = load(models / "onnx/conv.onnx")
    model.close()

    assert [port.name for port in model.inputs] == ["input"]
    assert [port.name for port in model.outputs] == ["output"]


def test_a_model_with_weights_in_a_folder_of_their_own(load, onnx_with_external_data, exact_config):
    model = load(onnx_with_external_data, config=exact_config)

    output = model.run({"input": np.ones((2, 4), np.float32)})["output"]
    assert np.array_equal(output.to_numpy(), np.full((2, 4), 4, np.float32))


@pytest.fixture
def onnx_with_external_data(tmp_path):
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4])
        for name in ("input", "output")
    ]
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "weight")
    node = helper.make_node("MatMul", ["input", "weight"], ["output"])
    graph = helper.make_graph([node], "external", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "weights").mkdir()
    path = tmp_path / "external.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="weights/external.data", size_threshold=0
    )
    return path
