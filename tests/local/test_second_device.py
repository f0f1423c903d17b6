"""Two devices on a machine that has one: OpenVINO's CPU plug-in, registered a second time.

Both devices are real to OpenVINO. Its AUTO and MULTI tell the processor from other devices by the
letters CPU in the name, though, and take the last of several; and a plug-in for the processor must
have them in its name. So they execute on one of the two here, and the tests ask that the model says
on which.
"""

from __future__ import annotations

import numpy as np
import pytest

from atriva_inference import DeviceNotAvailableError, InferenceRuntime, OptionError

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.fixture
def runtime(monkeypatch):
    monkeypatch.setenv("ATRIVA_OPENVINO_PLUGINS", "FASTCPU=openvino_intel_cpu_plugin")
    with InferenceRuntime("openvino") as opened:
        yield opened


@pytest.fixture
def load(runtime, models):
    """Loads the image model and makes sure that it computes the right thing."""
    expected = np.load(models / "expected.npz")

    def load_model(device, config=EXACT, **options):
        model = runtime.load_model(models / "onnx/conv.onnx", device, config=config, **options)
        requests = [model.create_async_request() for _ in range(10)]
        for request in requests:
            request.start({"input": expected["x_nchw"]})
        for request in requests:
            output = request.wait()["output"].to_numpy()
            np.testing.assert_allclose(output, expected["y"], atol=1e-5)
        return model

    return load_model


def test_both_are_listed(runtime):
    assert [device.name for device in runtime.devices()][-2:] == ["FASTCPU", "CPU"]
    fast, cpu = runtime.devices()[-2:]
    assert fast.full_name == cpu.full_name
    assert fast.kind == "FASTCPU"


@pytest.mark.parametrize(
    ("expression", "device"),
    [
        ("AUTO:-GPU,-NPU", "FASTCPU"),
        ("AUTO:FASTCPU,CPU", "FASTCPU"),
        ("AUTO:CPU,FASTCPU", "CPU"),
        ("AUTO:-GPU,-NPU,-FASTCPU", "CPU"),
        ("AUTO:-GPU,-NPU,-CPU", "FASTCPU"),
        ("FASTCPU", "FASTCPU"),
        ("fastcpu", "FASTCPU"),
        ("CPU", "CPU"),
    ],
)
def test_which_one_is_chosen(load, expression, device):
    model = load(expression)
    assert model.device == device
    assert model.execution_devices == (device,)


def test_excluding_both_leaves_nothing(load):
    with pytest.raises(DeviceNotAvailableError) as caught:
        load("AUTO:-GPU,-NPU,-CPU,-FASTCPU")
    assert {"CPU", "FASTCPU"} <= set(caught.value.available)


@pytest.mark.parametrize("expression", ["MULTI:FASTCPU,CPU", "MULTI:CPU,FASTCPU"])
def test_multi_is_given_both(load, expression):
    model = load(expression)
    assert model.device == expression
    assert model.execution_devices
    assert set(model.execution_devices) <= {"FASTCPU", "CPU"}


def test_cumulative_throughput_is_given_both(load):
    model = load("AUTO:-GPU,-NPU", performance_hint="CUMULATIVE_THROUGHPUT")
    assert model.device == "AUTO:FASTCPU,CPU"
    assert model.execution_devices
    assert set(model.execution_devices) <= {"FASTCPU", "CPU"}


def test_cumulative_throughput_of_one_device_is_that_device(load):
    model = load("FASTCPU", performance_hint="CUMULATIVE_THROUGHPUT")
    assert (model.device, model.execution_devices) == ("FASTCPU", ("FASTCPU",))


def test_hetero_puts_what_it_can_on_the_first(load):
    model = load("HETERO:FASTCPU,CPU")
    assert model.device == "HETERO:FASTCPU,CPU"
    assert model.execution_devices[0] == "FASTCPU"


def test_batch_runs_several_requests_as_one(load):
    model = load("BATCH:FASTCPU(4)", config=EXACT | {"AUTO_BATCH_TIMEOUT": "10"})
    assert model.device == "BATCH:FASTCPU(4)"
    assert model.execution_devices == ("FASTCPU",)
    assert model.parallelism >= 4


@pytest.mark.parametrize("expression", ["MULTI:FASTCPU,GPU.9", "HETERO:GPU.9,CPU"])
def test_where_devices_work_together_none_may_be_missing(load, expression):
    with pytest.raises(DeviceNotAvailableError, match=r"GPU\.9"):
        load(expression)


@pytest.mark.parametrize("expression", ["MULTI:FASTCPU,CPU", "HETERO:FASTCPU,CPU", "FASTCPU"])
def test_profiles_of_any_device(load, expression):
    assert load(expression).get_profiling(runs=1).device == expression


def test_config_is_checked_for_devices_that_work_together(load):
    with pytest.raises(OptionError, match="NO_SUCH_KEY"):
        load("MULTI:FASTCPU,CPU", config={"NO_SUCH_KEY": 1})


@pytest.mark.parametrize(
    "plugin",
    [
        "BADCPU=no_such_library",
        "BADCPU=/no/such/folder/plugin.so",
        "NOTCALLEDSO=openvino_intel_cpu_plugin",
    ],
)
def test_a_plugin_that_cannot_be_used_is_not_listed(monkeypatch, models, plugin):
    monkeypatch.setenv("ATRIVA_OPENVINO_PLUGINS", plugin)
    name = plugin.partition("=")[0]
    with InferenceRuntime("openvino") as runtime:
        assert name not in {device.name for device in runtime.devices()}
        assert runtime.load_model(models / "onnx/conv.onnx", f"AUTO:{name},CPU").device == "CPU"
        with pytest.raises(DeviceNotAvailableError, match=name):
            runtime.load_model(models / "onnx/conv.onnx", name)


@pytest.mark.parametrize(
    "text", ["FASTCPU", "=library", "FASTCPU=", "CPU=openvino_intel_cpu_plugin"]
)
def test_a_variable_that_says_nothing_useful_is_refused(monkeypatch, text):
    monkeypatch.setenv("ATRIVA_OPENVINO_PLUGINS", text)
    with pytest.raises(OptionError, match="ATRIVA_OPENVINO_PLUGINS"):
        InferenceRuntime("openvino")


def test_several_plugins_and_blanks(monkeypatch):
    library = "openvino_intel_cpu_plugin"
    monkeypatch.setenv("ATRIVA_OPENVINO_PLUGINS", f" CPUA = {library} , CPUB={library},")
    with InferenceRuntime("openvino") as runtime:
        assert {"CPUA", "CPUB", "CPU"} <= {device.name for device in runtime.devices()}
