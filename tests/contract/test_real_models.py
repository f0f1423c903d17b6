"""Real architectures: the runtime computes what the bare libraries compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import numpy_helper

NAMES = ["light_squeezenet", "light_resnet50"]


@pytest.fixture(scope="session")
def seeded(light_models, tmp_path_factory):
    """Gives the models weights: those of the onnx package are all equal, and so are the scores."""
    folder = tmp_path_factory.mktemp("seeded")

    def path(name):
        target = folder / f"{name}.onnx"
        if not target.exists():
            onnx.save(_with_weights(onnx.load(light_models / f"{name}.onnx")), target)
        return target

    return path


def _with_weights(model):
    rng = np.random.default_rng(0)
    graph = model.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            nodes.append(node)
            continue
        shape = arrays.pop(node.input[0])
        # Vectors are biases, scales, means and variances: small and positive suits them all.
        is_vector = len(shape) == 1
        spread = np.sqrt(2 / np.prod(shape[1:]))
        values = rng.uniform(0.1, 0.3, shape) if is_vector else rng.normal(0, spread, shape)
        arrays[node.output[0]] = values.astype(np.float32)
    inputs = [value for value in graph.input if not value.name.endswith("__SHAPE")]
    inputs = [value for value in inputs if value.name not in arrays]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in arrays.items())
    graph.input.extend(inputs)
    model.ir_version = 8  # from version 4 on, weights need not be inputs as well
    return model


def picture(port, seed):
    return np.random.default_rng(seed).standard_normal(port.shape).astype(np.float32)


@pytest.fixture(scope="session")
def bare():
    """What OpenVINO in float32 and ONNX Runtime make of a model and an input, each on its own."""

    def run(library, path, array):
        if library == "onnxruntime":
            session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
            return session.run(None, {session.get_inputs()[0].name: array})[0]
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        return ov.Core().compile_model(path, "CPU", config)(array)[0]

    return run


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_those_of_both_bare_libraries(load, exact_config, seeded, bare, name):
    model = load(seeded(name), "CPU", config=exact_config)
    (port,) = model.inputs
    scores = {seed: _scores(model, picture(port, seed)) for seed in (1, 2)}

    # Else the comparison would say nothing.
    assert np.std(scores[1]) > 1e-3
    assert np.abs(scores[1] - scores[2]).max() > 1e-3

    # Both compute in float32 but sum in different orders, over up to 4,608 products a number.
    for seed, library in ((1, "openvino"), (2, "onnxruntime")):
        wanted = bare(library, seeded(name), picture(port, seed))
        np.testing.assert_allclose(scores[seed], wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_at_the_default_precision_the_best_class_is_the_same(load, seeded, bare, name):
    model = load(seeded(name), "CPU")
    array = picture(model.inputs[0], 3)
    scores, wanted = _scores(model, array), bare("openvino", seeded(name), array)

    # OpenVINO computes in bfloat16 where the processor has it: eight bits, in dozens of layers.
    np.testing.assert_allclose(scores, wanted, rtol=0.3, atol=5e-3)
    assert scores.argmax() == wanted.argmax()


@pytest.mark.parametrize("name", NAMES)
def test_models_as_they_ship_give_what_they_ship_with(load, exact_config, light_models, name):
    model = load(light_models / f"{name}.onnx", "CPU", config=exact_config)
    (port,) = model.inputs
    wanted = onnx.TensorProto()
    wanted.ParseFromString((light_models / f"{name}_output_0.pb").read_bytes())

    scores = _scores(model, np.ones(port.shape, port.dtype))
    np.testing.assert_allclose(scores, numpy_helper.to_array(wanted), rtol=1e-3)


def _scores(model, array):
    (output,) = model.run({model.inputs[0].name: array}).values()
    return output.to_numpy()
