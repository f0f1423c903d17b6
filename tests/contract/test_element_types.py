"""Elements other than the usual numbers, and ranks other than the usual ones."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture
def one_node_model(tmp_path):
    """Writes a model of one node from `input` to `output`."""

    def write(operator, element_type, shape, *constants):
        ports = [helper.make_tensor_value_info(n, element_type, shape) for n in ("input", "output")]
        initializers = [
            numpy_helper.from_array(np.asarray(value), f"c{index}")
            for index, value in enumerate(constants)
        ]
        names = ["input", *(initializer.name for initializer in initializers)]
        node = helper.make_node(operator, names, ["output"])
        graph = helper.make_graph([node], operator, ports[:1], ports[1:], initializers)
        opsets = [helper.make_opsetid("", 17)]
        path = tmp_path / f"{operator.lower()}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path

    return write


@pytest.mark.parametrize(
    "given",
    [np.array(["one", "zwölf", ""]), ["one", "zwölf", ""], np.array([b"one", b"two", b"three"])],
    ids=["str array", "list of str", "bytes array"],
)
def test_text(load, one_node_model, given):
    model = load(one_node_model("Gather", TensorProto.STRING, [3], np.array([2, 1, 0])))
    output = model.run({"input": given})["output"].to_numpy()

    wanted = [item.decode() if isinstance(item, bytes) else str(item) for item in given]
    assert output.tolist() == wanted[::-1]


def test_text_and_numbers_do_not_mix(package, load, one_node_model):
    model = load(one_node_model("Gather", TensorProto.STRING, [3], np.array([2, 1, 0])))
    with pytest.raises(package.InputDtypeError, match="text"):
        model.run({"input": np.zeros(3)})
    assert model.run({"input": ["a", "b", "c"]})["output"].to_numpy().tolist() == ["c", "b", "a"]


def test_bool(package, load, one_node_model):
    model = load(one_node_model("Not", TensorProto.BOOL, [4]))
    given = np.array([True, False, True, True])

    assert np.array_equal(model.run({"input": given})["output"].to_numpy(), ~given)
    with pytest.raises(package.InputDtypeError, match="bool"):
        model.run({"input": given.astype(np.int64)})


def test_bfloat16_is_passed_as_float32(load, only_with, one_node_model):
    only_with("openvino", "ONNX Runtime has no kernels for it on the CPU")
    model = load(one_node_model("Neg", TensorProto.BFLOAT16, [4]))
    output = model.run({"input": np.array([1, -2.5, 0, 1e30])})["output"].to_numpy()

    assert model.inputs[0].dtype == np.float32
    assert output == pytest.approx(np.array([-1, 2.5, 0, -1e30]), rel=2**-8)


def test_a_scalar(load, one_node_model):
    model = load(one_node_model("Neg", TensorProto.FLOAT, []))
    for given in (3, 3.0, np.float32(3), np.array(3)):
        output = model.run({"input": given})["output"]
        assert output.to_numpy() == -3
        assert output.shape == ()


def test_an_unknown_rank(load, only_with, one_node_model):
    only_with("onnxruntime", "OpenVINO's CPU plug-in refuses such a model")
    model = load(one_node_model("Neg", TensorProto.FLOAT, None))

    assert model.inputs[0].shape is None
    assert "any rank" in str(model.inputs[0])
    for shape in ((3,), (2, 3), (1, 2, 3)):
        output = model.run({"input": np.ones(shape)})["output"].to_numpy()
        assert np.array_equal(output, np.full(shape, -1))


def test_profiling_makes_up_inputs_of_the_right_type(load, one_node_model):
    model = load(one_node_model("Not", TensorProto.BOOL, [4]))
    assert model.get_profiling(runs=1).layers
