"""Options of AUTO: their values, and OpenVINO's properties of the same names."""

from __future__ import annotations

import pytest

from atriva_inference.device import DeviceSpec
from atriva_inference.errors import OptionError
from atriva_ray.routing.auto import AutoOptions, ModelPriority, SchedulePolicy

PROPERTIES = {
    "ENABLE_STARTUP_FALLBACK": "NO",
    "ENABLE_RUNTIME_FALLBACK": False,
    "SCHEDULE_POLICY": "SchedulePolicy.ROUND_ROBIN",
    "MODEL_PRIORITY": "Priority.LOW",
    "INFERENCE_PRECISION_HINT": "f32",
}


def test_values_are_taken_in_any_case():
    options = AutoOptions.parse(
        startup_fallback=False, schedule_policy="round_robin", model_priority="high"
    )
    assert options == AutoOptions(False, True, SchedulePolicy.ROUND_ROBIN, ModelPriority.HIGH)


@pytest.mark.parametrize("device", ["AUTO", "AUTO:GPU,CPU", "node/AUTO:-CPU", "MULTI:GPU,CPU"])
def test_openvinos_properties_go_before_the_arguments(device):
    options, rest = AutoOptions.parse(model_priority="HIGH").with_properties(
        PROPERTIES, DeviceSpec.parse(device)
    )
    assert options == AutoOptions(False, False, SchedulePolicy.ROUND_ROBIN, ModelPriority.LOW)
    assert rest == {"INFERENCE_PRECISION_HINT": "f32"}


@pytest.mark.parametrize("device", ["GPU", "CPU", "HETERO:GPU,CPU", "BATCH:GPU"])
def test_other_devices_get_their_properties_themselves(device):
    options, rest = AutoOptions().with_properties(PROPERTIES, DeviceSpec.parse(device))
    assert (options, rest) == (AutoOptions(), PROPERTIES)


def test_openvinos_own_values_are_understood():
    ov = pytest.importorskip("openvino")
    hint, auto = ov.properties.hint, ov.properties.intel_auto
    config = {
        hint.model_priority(): hint.Priority.HIGH,
        auto.schedule_policy(): auto.SchedulePolicy.DEVICE_PRIORITY,
        auto.enable_startup_fallback(): False,
    }
    options, rest = AutoOptions().with_properties(config, DeviceSpec.parse("AUTO"))
    assert options.model_priority is ModelPriority.HIGH
    assert options.schedule_policy is SchedulePolicy.DEVICE_PRIORITY
    assert (options.startup_fallback, rest) == (False, {})


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("startup_fallback", "perhaps", "True or False"),
        ("schedule_policy", "FASTEST", "one of EARLIEST, DEVICE_PRIORITY, ROUND_ROBIN"),
        ("model_priority", None, "one of HIGH, MEDIUM, LOW"),
    ],
)
def test_other_values_are_refused(option, value, expected):
    with pytest.raises(OptionError, match=f"{option}='{value}' .* {expected}"):
        AutoOptions.parse(**{option: value})
