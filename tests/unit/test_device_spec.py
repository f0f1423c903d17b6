"""Device expressions: what they may say, and which of the present devices they choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.device import Device, DeviceSpec, Selection, device_kind, device_rank
from atriva_inference.errors import DeviceNotAvailableError, OptionError

CPU = Device("CPU")
NPU = Device("NPU")
IGPU = Device("GPU.0")
CARD = Device("GPU.1", is_discrete=True)
OTHER = Device("XPU")
ALL = [CPU, IGPU, OTHER, NPU, CARD]

PIECES = ["AUTO", "MULTI", "BATCH", "CPU", "GPU.1", "npu", ":", ",", "-", "/", "(4)", ".", " ", "é"]
expressions = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))


def chosen(text, devices=ALL):
    return [device.name for device in DeviceSpec.parse(text).choose(devices)]


@given(expressions)
def test_any_text_is_a_device_expression_or_an_option_error(text):
    try:
        spec = DeviceSpec.parse(text)
    except OptionError:
        return
    assert spec.text == text
    assert not any(name.startswith("-") for name in (*spec.candidates, *spec.excluded))
    assert spec.node != ""


@pytest.mark.parametrize("value", [None, 3, b"CPU", ["CPU"]])
def test_anything_but_text_is_an_option_error(value):
    with pytest.raises(OptionError, match="device="):
        DeviceSpec.parse(value)


@pytest.mark.parametrize(
    ("text", "selection", "candidates", "excluded", "node"),
    [
        ("CPU", Selection.EXACT, ("CPU",), (), None),
        (" gpu.1 ", Selection.EXACT, ("GPU.1",), (), None),
        ("XPU_2", Selection.EXACT, ("XPU_2",), (), None),
        ("AUTO", Selection.AUTO, (), (), None),
        ("auto:gpu, cpu", Selection.AUTO, ("GPU", "CPU"), (), None),
        ("AUTO:-CPU,-GPU.0", Selection.AUTO, (), ("CPU", "GPU.0"), None),
        ("AUTO:GPU,-GPU.0", Selection.AUTO, ("GPU",), ("GPU.0",), None),
        ("MULTI:GPU,CPU", Selection.MULTI, ("GPU", "CPU"), (), None),
        ("HETERO:NPU,CPU", Selection.HETERO, ("NPU", "CPU"), (), None),
        ("BATCH:GPU(4)", Selection.BATCH, ("GPU(4)",), (), None),
        ("node-1/CPU", Selection.EXACT, ("CPU",), (), "node-1"),
        ("rack/7/GPU.0", Selection.EXACT, ("GPU.0",), (), "rack/7"),
        ("Node/auto:-cpu", Selection.AUTO, (), ("CPU",), "Node"),
    ],
)
def test_what_expressions_mean(text, selection, candidates, excluded, node):
    spec = DeviceSpec.parse(text)
    assert spec == DeviceSpec(text, selection, candidates, excluded, node)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ":", ",", "/", "/CPU", "node/", "CPU/", "CPU GPU", "CPU:GPU", "CPU,GPU", "-CPU"),
        *("AUTO:", "AUTO:,", "AUTO:CPU,", "AUTO:--CPU", "AUTO:C PU", "AUTO,CPU", "GPU.", "1CPU"),
        *("MULTI", "MULTI:", "MULTI:-CPU", "HETERO:GPU,-CPU", "BATCH", "BATCH:", "EXACT:CPU"),
    ],
)
def test_what_is_no_expression(text):
    with pytest.raises(OptionError, match="GPU,CPU") as caught:
        DeviceSpec.parse(text)
    assert (caught.value.option, caught.value.value) == ("device", text)


def test_auto_prefers_gpu_then_npu_then_others_then_cpu():
    assert chosen("AUTO") == ["GPU.1", "GPU.0", "NPU", "XPU", "CPU"]
    assert [device_rank(name) for name in ("GPU.1", "NPU", "XPU", "CPU")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("CPU", ["CPU"]),
        ("cpu", ["CPU"]),
        ("GPU", ["GPU.1"]),
        ("GPU.0", ["GPU.0"]),
        ("AUTO:GPU", ["GPU.1", "GPU.0"]),
        ("AUTO:GPU.0,GPU", ["GPU.0", "GPU.1"]),
        ("AUTO:CPU,GPU", ["CPU", "GPU.1", "GPU.0"]),
        ("AUTO:-CPU", ["GPU.1", "GPU.0", "NPU", "XPU"]),
        ("AUTO:-GPU", ["NPU", "XPU", "CPU"]),
        ("AUTO:-GPU.1", ["GPU.0", "NPU", "XPU", "CPU"]),
        ("AUTO:GPU,-GPU.1", ["GPU.0"]),
        ("AUTO:DPU,CPU", ["CPU"]),
        ("MULTI:CPU,GPU", ["CPU", "GPU.1", "GPU.0"]),
        ("MULTI:GPU.0,CPU", ["GPU.0", "CPU"]),
        ("HETERO:NPU,CPU", ["NPU", "CPU"]),
        ("BATCH:GPU(8)", ["GPU.1", "GPU.0"]),
    ],
)
def test_what_is_chosen(text, names):
    assert chosen(text) == names


@pytest.mark.parametrize(
    ("text", "devices", "missing"),
    [
        ("GPU", [CPU], "GPU"),
        ("GPU.7", ALL, "GPU.7"),
        ("CPU.0", [CPU], "CPU.0"),
        ("AUTO", [], "AUTO"),
        ("AUTO:GPU,NPU", [CPU], "AUTO:GPU,NPU"),
        ("AUTO:-CPU", [CPU], "AUTO:-CPU"),
        ("MULTI:NPU,CPU", [CPU, CARD], "NPU"),
        ("HETERO:CPU,GPU.2", ALL, "GPU.2"),
    ],
)
def test_what_is_not_there_is_named_together_with_what_is(text, devices, missing):
    with pytest.raises(DeviceNotAvailableError) as caught:
        chosen(text, devices)
    assert caught.value.requested == missing
    assert set(caught.value.available) == {device.name for device in devices}


@given(st.lists(st.sampled_from(ALL), unique=True), st.sets(st.sampled_from(["GPU", "CPU", "NPU"])))
def test_auto_keeps_the_order_of_preference_whatever_is_left_out(devices, excluded):
    names = ",".join(f"-{name}" for name in excluded)
    spec = DeviceSpec.parse(f"AUTO:{names}" if excluded else "AUTO")
    allowed = {device for device in devices if device.kind not in excluded}
    if allowed:
        assert spec.choose(devices) == sorted(allowed, key=lambda device: device.preference)
    else:
        with pytest.raises(DeviceNotAvailableError):
            spec.choose(devices)


@given(
    st.sampled_from(["AUTO:", "MULTI:", "HETERO:", ""]),
    st.lists(st.sampled_from(["GPU", "GPU.0", "CPU", "NPU"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(ALL), unique=True),
)
def test_a_choice_is_present_and_named_and_without_repetition(head, names, devices):
    spec = DeviceSpec.parse(head + ",".join(names) if head else names[0])
    try:
        picked = spec.choose(devices)
    except DeviceNotAvailableError:
        return
    assert picked
    assert len(set(picked)) == len(picked)
    assert set(picked) <= set(devices)
    assert all({device.name, device.kind} & set(names) for device in picked)


@pytest.mark.parametrize(
    ("name", "kind"), [("CPU", "CPU"), ("GPU.1", "GPU"), ("GPU(4)", "GPU"), ("NPU.3720", "NPU")]
)
def test_the_kind_of_a_device(name, kind):
    assert device_kind(name) == kind
    assert Device(name).kind == kind
