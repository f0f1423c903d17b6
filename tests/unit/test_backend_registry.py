"""Backends: how one is added, found by its name, and made to fall back from device to device."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys

import numpy as np
import pytest

from atriva_inference import InferenceRuntime, backend, backend_names, register_backend
from atriva_inference.device import Device
from atriva_inference.errors import (
    BackendNotInstalledError,
    CompileError,
    DeviceNotAvailableError,
    InferenceRuntimeError,
    UnknownBackendError,
)

from .fakes import FakeBackend


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """What a test registers is gone after it."""
    for name in ("openvino", "onnxruntime", "tensorrt"):
        importlib.import_module(f"atriva_inference.backends.{name}")
    monkeypatch.setattr(backend, "_factories", dict(backend._factories))


@pytest.fixture
def fake():
    made = FakeBackend()
    register_backend("fake", lambda: made)
    return made


@pytest.fixture
def model_path(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the fake backend does not look inside")
    return path


def test_the_three_backends_are_known_whether_installed_or_not():
    assert backend_names()[:3] == ("openvino", "onnxruntime", "tensorrt")


def test_a_registered_backend_can_be_used_by_name(fake, model_path):
    assert backend_names()[-1] == "fake"
    with InferenceRuntime("fake") as runtime, runtime.load_model(model_path) as model:
        assert runtime.backend == "fake"
        assert np.array_equal(model.run({"x": [1, 2, 3]})["y"].to_numpy(), [2, 4, 6])


def test_a_backend_is_made_for_every_runtime():
    made = []
    register_backend("counted", lambda: made.append(FakeBackend()) or made[-1])
    for _ in range(3):
        InferenceRuntime("counted").close()
    assert len(made) == 3


def test_a_backend_can_take_the_place_of_another(fake):
    register_backend("openvino", lambda: fake)
    with InferenceRuntime("openvino") as runtime:
        assert runtime.backend == "fake"
    assert len(backend_names()) == len(set(backend_names()))


@pytest.mark.parametrize("name", ["caffe", "Fake", "", None, 1, ["fake"]])
def test_an_unknown_name_is_answered_with_those_that_are_known(fake, name):
    with pytest.raises(UnknownBackendError) as caught:
        InferenceRuntime(name)
    assert caught.value.backends == ("openvino", "onnxruntime", "tensorrt", "fake")
    assert "'fake'" in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is there")
def test_tensorrt_says_what_to_install():
    with pytest.raises(BackendNotInstalledError) as caught:
        InferenceRuntime("tensorrt")
    assert caught.value.backend == "tensorrt"
    message = str(caught.value)
    assert "'tensorrt' needs the library 'tensorrt', which is not installed" in message
    assert "pip install onnxruntime-gpu tensorrt" in message


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_library_that_is_missing_is_named(monkeypatch, name):
    monkeypatch.delitem(backend._factories, name)
    monkeypatch.delitem(sys.modules, f"atriva_inference.backends.{name}")
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed

    with pytest.raises(BackendNotInstalledError, match=f"pip install {name}") as caught:
        InferenceRuntime(name)
    assert (caught.value.backend, caught.value.missing) == (name, f"the library {name!r}")


def test_tensorrt_without_the_right_onnxruntime_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendNotInstalledError, match="TensorrtExecutionProvider") as caught:
        InferenceRuntime("tensorrt")
    assert "onnxruntime-gpu" in str(caught.value)


# -- falling back ----------------------------------------------------------------------------


def test_auto_compiles_on_the_device_it_prefers(fake, model_path):
    with InferenceRuntime("fake") as runtime:
        assert runtime.load_model(model_path).device == "GPU.0"
    assert fake.asked == ["GPU.0"]


def test_auto_falls_back_until_a_device_can(fake, model_path, caplog):
    fake.refusing = {"GPU.0": "no kernel for Mystery", "NPU": "no memory"}
    with caplog.at_level(logging.WARNING), InferenceRuntime("fake") as runtime:
        model = runtime.load_model(model_path)

    assert model.device == "CPU"
    assert model.execution_devices == ("CPU",)
    assert fake.asked == ["GPU.0", "NPU", "CPU"]
    # Falling back is not done in silence.
    assert "GPU.0 cannot compile" in caplog.text
    assert "no kernel for Mystery" in caplog.text
    assert "no memory" in caplog.text


def test_when_no_device_can_every_one_says_why(fake, model_path, caplog):
    fake.refusing = {"GPU.0": "no kernel", "NPU": "no memory", "CPU": "no idea"}
    with InferenceRuntime("fake") as runtime, pytest.raises(CompileError) as caught:
        runtime.load_model(model_path)

    assert caught.value.requested == "AUTO"
    assert caught.value.reasons == fake.refusing
    for words in ("'AUTO'", "model.onnx", "GPU.0: no kernel", "NPU: no memory", "CPU: no idea"):
        assert words in str(caught.value)
    # What is raised is not logged as well.
    assert caplog.text == ""


def test_a_named_device_is_never_replaced_by_another(fake, model_path):
    fake.refusing = {"NPU": "no memory"}
    with InferenceRuntime("fake") as runtime, pytest.raises(CompileError):
        runtime.load_model(model_path, "NPU")
    assert fake.asked == ["NPU"]


def test_a_node_is_no_device_of_one_process(fake, model_path):
    runtime = InferenceRuntime("fake")
    with pytest.raises(DeviceNotAvailableError, match="needs a cluster") as caught:
        runtime.load_model(model_path, "node-1/CPU")
    assert set(caught.value.available) == {"CPU", "NPU", "GPU.0"}


def test_without_any_device_nothing_can_be_loaded(fake, model_path):
    fake.present = ()
    with InferenceRuntime("fake") as runtime:
        assert runtime.devices() == []
        with pytest.raises(DeviceNotAvailableError, match="found none"):
            runtime.load_model(model_path)


def test_devices_are_listed_as_auto_prefers_them(fake):
    fake.present = (Device("CPU"), Device("GPU.0"), Device("GPU.1", is_discrete=True))
    with InferenceRuntime("fake") as runtime:
        assert [device.name for device in runtime.devices()] == ["GPU.1", "GPU.0", "CPU"]


def test_a_registered_backend_meets_the_same_errors(fake, model_path):
    with InferenceRuntime("fake") as runtime, pytest.raises(InferenceRuntimeError, match="'z'"):
        runtime.load_model(model_path).run({"z": [1]})
