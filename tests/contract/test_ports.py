"""Ports: what a model says about its inputs and outputs, and the names they answer to."""

from __future__ import annotations

import numpy as np
import openvino as ov
import pytest


def test_an_image_model(conv):
    (port,) = conv.inputs
    assert port.name == "input"
    assert "input" in port.names
    assert port.dtype == np.float32
    assert port.shape == (1, 3, 8, 8)
    assert port.layout == "NCHW"
    assert not port.is_dynamic
    assert str(port) == "input: float32 1×3×8×8 NCHW"

    (port,) = conv.outputs
    assert port.name == "output"
    assert port.dtype == np.float32
    assert port.shape == (1, 4)
    assert port.layout is None


def test_dynamic_dimensions_are_minus_one(dynamic):
    (port,) = dynamic.inputs
    assert port.shape == (-1, 3, -1, -1)
    assert port.is_dynamic
    assert port.layout == "NCHW"
    assert "?×3×?×?" in str(port)
    assert dynamic.outputs[0].shape == (-1, 4)


def test_several_inputs_and_outputs_keep_their_order(multi):
    assert [(port.name, port.dtype, port.shape) for port in multi.inputs] == [
        ("a", np.float32, (-1, 4)),
        ("b", np.int64, (-1, 4)),
    ]
    assert [(port.name, port.dtype, port.shape) for port in multi.outputs] == [
        ("sum", np.float32, (-1, 4)),
        ("count", np.int64, (-1,)),
    ]


def test_results_are_keyed_by_output_name_in_order(multi):
    a, b = np.zeros((2, 4), np.float32), np.ones((2, 4), np.int64)
    assert list(multi.run({"b": b, "a": a})) == ["sum", "count"]


def test_half_precision(half):
    assert half.inputs[0].dtype == np.float16
    assert half.outputs[0].dtype == np.float16


@pytest.fixture
def renamed(backend, models, tmp_path):
    """An OpenVINO model whose only input goes by several names; ONNX has one name for each."""
    if backend == "onnxruntime":
        return models / "onnx/conv.onnx"
    model = ov.Core().read_model(models / "ir/model.xml")
    model.inputs[0].tensor.add_names({"image", "pixels"})
    model.outputs[0].tensor.add_names({"scores"})
    ov.save_model(model, tmp_path / "renamed.xml", compress_to_fp16=False)
    return tmp_path / "renamed.xml"


def test_any_name_of_a_port_is_accepted(load, renamed, expected, exact_config, backend):
    model = load(renamed, config=exact_config)
    (port,) = model.inputs
    assert set(port.names) >= ({"input", "image", "pixels"} if backend == "openvino" else {"input"})
    assert port.name == port.names[0]

    for name in port.names:
        (output,) = model.run({name: expected["x_nchw"]}).values()
        assert output.to_numpy() == pytest.approx(expected["y"], abs=1e-5)


def test_one_port_given_under_two_names_is_refused(load, package, only_with, renamed, expected):
    only_with("openvino", "ONNX has one name for each input")
    model = load(renamed)
    (port,) = model.inputs
    first, second, *_ = port.names

    with pytest.raises(package.InputNameError, match="repeated") as caught:
        model.run({first: expected["x_nchw"], second: expected["x_nchw"]})
    assert caught.value.unknown == (second,)


def test_the_layout_an_ir_states_is_kept(load, only_with, models):
    only_with("openvino", "ONNX states no layout")
    assert load(models / "ir/nhwc.xml").inputs[0].layout == "NHWC"
    assert load(models / "ir/model.xml").inputs[0].layout == "NCHW"
