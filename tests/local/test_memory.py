"""Memory in one process: nothing is copied that need not be, and results are the caller's."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import psutil
import pytest

from atriva_inference.binding import bind_inputs


def test_a_tensor_is_a_view(runtime):
    array = np.ones((1, 3, 8, 8), np.float32)
    tensor = runtime.tensor_from_numpy(array)

    assert tensor.to_numpy() is array
    assert np.asarray(tensor) is array
    flat = runtime.tensor_from_numpy(array, shape_override=(1, 3, 4, 16))
    assert np.shares_memory(flat.to_numpy(), array)


def test_a_contiguous_float32_array_reaches_the_model_uncopied(runtime, models):
    model = runtime.load_model(models / "onnx/conv.onnx")
    array = np.ones((1, 3, 8, 8), np.float32)

    for value in (array, runtime.tensor_from_numpy(array), runtime.tensor_from_numpy(array, None)):
        assert np.shares_memory(bind_inputs(model.inputs, {"input": value}).arrays["input"], array)


def test_results_are_fresh_and_writable(runtime, models):
    model = runtime.load_model(models / "onnx/half.onnx")
    inputs = {"input": np.ones((2, 4), np.float16)}
    first, second = (model.run(inputs)["output"].to_numpy() for _ in range(2))

    assert not np.shares_memory(first, second)
    first[:] = 0
    assert np.array_equal(second, np.full((2, 4), 3))


def test_a_result_keeps_nothing_else_alive(runtime, models):
    model = runtime.load_model(models / "onnx/half.onnx")
    result = model.run({"input": np.ones((2, 4))})["output"].to_numpy()
    alive = weakref.ref(model)
    model.close()
    del model
    gc.collect()

    assert alive() is None
    assert np.array_equal(result, np.full((2, 4), 3))


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_stream_of_large_inputs_does_not_pile_up(runtime, models, dtype):
    model = runtime.load_model(models / "onnx/dynamic.onnx")
    array = np.ones((1, 3, 512, 512), dtype)
    with model.create_stream() as stream:
        for _ in range(5):
            stream.run({"input": array})
        before = psutil.Process().memory_info().rss
        for _ in range(50):
            stream.run({"input": array})
        grown = psutil.Process().memory_info().rss - before

    # Fifty inputs in float32 would be 150 MiB.
    assert grown < 50 * 2**20
