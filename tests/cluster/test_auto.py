"""AUTO over a cluster with a second real OpenVINO device, a plug-in of its own."""

from __future__ import annotations

import pytest

from tests.cluster.tools import DriverError, wait_until
from tests.conftest import EXAMPLES

DIGITS = str(EXAMPLES / "models" / "digits.onnx")


@pytest.fixture(scope="module")
def program(module_drivers):
    """A program with an embedded cluster whose node has CPU and FASTCPU."""
    driver = module_drivers.start({"ATRIVA_OPENVINO_PLUGINS": "FASTCPU=openvino_intel_cpu_plugin"})
    driver.do(f"""
        import numpy as np
        from atriva_ray import *
        runtime = InferenceRuntime(address="local")
        def where(device, **options):
            with runtime.load_model({DIGITS!r}, device, startup_fallback=False, **options) as model:
                shape = model.run({{"input": np.zeros((1, 1, 8, 8), "f4")}})["output"].shape
                assert shape == (1, 10)
                devices = sorted(use.info.device for use in model.replicas)
                return model.device, sorted(model.execution_devices), devices
    """)
    return driver


def test_both_devices_are_found(program):
    assert program.get("[device.name for device in runtime.devices()]") == ["FASTCPU", "CPU"]


@pytest.mark.parametrize(
    ("device", "chosen"),
    [
        ("AUTO", "FASTCPU"),
        ("AUTO:FASTCPU,CPU", "FASTCPU"),
        ("AUTO:CPU,FASTCPU", "CPU"),
        ("AUTO:-FASTCPU", "CPU"),
        ("AUTO:-CPU", "FASTCPU"),
        ("CPU", "CPU"),
        ("FASTCPU", "FASTCPU"),
    ],
)
def test_one_device_is_chosen(program, device, chosen):
    assert program.get(f"where({device!r})") == [chosen, [chosen], [chosen]]


def test_the_preferred_device_answers_in_the_end(program):
    program.do(f"""
        model = runtime.load_model({DIGITS!r})
        shape = model.run({{"input": np.zeros((1, 1, 8, 8), "f4")}})["output"].shape
    """)
    assert program.get("shape") == [1, 10]
    wait_until(lambda: program.get("model.execution_devices") == ["FASTCPU"])
    program.do("model.close()")


def test_multi_and_cumulative_throughput_use_both(program):
    both = ["CPU", "FASTCPU"]
    assert program.get("where('MULTI:CPU,FASTCPU')[1:]") == [both, both]
    assert program.get("where('AUTO', performance_hint='CUMULATIVE_THROUGHPUT')[1:]") == [
        both,
        both,
    ]


def test_hetero_splits_inside_one_node(program):
    device, _, replicas = program.get("where('HETERO:FASTCPU,CPU')")
    assert device == "HETERO:FASTCPU,CPU"
    assert len(replicas) == 1


def test_a_node_can_be_named(program):
    node = program.get("runtime.devices()[0].node")
    assert program.get(f"where('{node}/CPU')[0]") == "CPU"
    with pytest.raises(DriverError, match=f"no device 'elsewhere/CPU'.*{node}/CPU"):
        program.get("where('elsewhere/CPU')")


def test_what_is_not_there_is_said(program):
    with pytest.raises(DriverError, match="no device 'GPU' on this cluster; found FASTCPU, CPU"):
        program.get("where('GPU')")
    with pytest.raises(DriverError, match="DeviceNotAvailableError"):
        program.get("where('AUTO:-CPU,-FASTCPU')")
