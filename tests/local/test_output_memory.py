"""Outputs that a backend writes into memory of the caller's."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from atriva_inference.backend import make_backend
from atriva_inference.binding import BoundInputs
from atriva_inference.errors import InferenceFailedError
from atriva_inference.executor import LocalExecutor
from atriva_inference.model_files import ModelFiles
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_inference.preprocess import Preprocessing

SHAPE = (3, 40_000)


@pytest.fixture(params=["openvino", "onnxruntime"])
def executor(request, tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
        "doubling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "yz"],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "doubling.onnx")
    options = CompileOptions(PerformanceHint.THROUGHPUT, {})
    files = ModelFiles.find(tmp_path / "doubling.onnx")
    running = LocalExecutor("doubling", make_backend(request.param).compile(files, "CPU", options))
    yield running
    running.close()


def numbers(seed):
    return np.random.default_rng(seed).random(SHAPE, np.float32)


def test_outputs_are_written_where_the_caller_says(executor):
    memory = {name: np.zeros(SHAPE, np.float32) for name in "yz"}
    outputs = executor.run(BoundInputs({"x": numbers(1)}), memory)
    assert outputs is memory
    np.testing.assert_array_equal(memory["y"], 2 * numbers(1))
    np.testing.assert_array_equal(memory["z"], -numbers(1))


def test_memory_that_was_lent_once_is_not_written_again(executor):
    memory = {name: np.zeros(SHAPE, np.float32) for name in "yz"}
    for seed in range(4):  # so that every slot has borrowed
        executor.run(BoundInputs({"x": numbers(seed)}), memory)
    kept = {name: array.copy() for name, array in memory.items()}
    for seed in range(10, 14):
        outputs = executor.run(BoundInputs({"x": numbers(seed)}))
        np.testing.assert_array_equal(outputs["y"], 2 * numbers(seed))
    for name, array in kept.items():
        np.testing.assert_array_equal(memory[name], array)


def test_a_failure_on_the_way_leaves_the_next_request_right(executor):
    memory = {name: np.zeros(SHAPE, np.float32) for name in "yz"}
    with pytest.raises(InferenceFailedError):
        executor.run(BoundInputs({"x": np.zeros((2, 2), np.float32)}), memory)
    outputs = executor.run(BoundInputs({"x": numbers(5)}), memory)
    np.testing.assert_array_equal(outputs["y"], 2 * numbers(5))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_model_that_takes_pixels_writes_there_too(backend, tmp_path):
    shape = (1, 3, 40, 30)
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "negative",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "negative.onnx")
    options = CompileOptions(preprocessing=Preprocessing(layout="NCHW", mean=(100,)))
    files = ModelFiles.find(tmp_path / "negative.onnx")
    compiled = make_backend(backend).compile(files, "CPU", options)
    memory = {"y": np.zeros(shape, np.float32)}
    running = LocalExecutor("negative", compiled)
    outputs = running.run(BoundInputs({"x": np.full(shape, 30, np.uint8)}), memory)
    running.close()
    assert outputs is memory
    np.testing.assert_array_equal(memory["y"], np.full(shape, 70, np.float32))
