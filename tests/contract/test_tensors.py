"""Tensors: what the caller may pass, and that the model gets the same values whatever it was."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def classify(conv):
    """Runs the image model on one tensor or array."""

    def run(value):
        return conv.run({"input": value})["output"].to_numpy()

    return run


@pytest.fixture
def whole_numbers():
    """An image that every numeric type can hold."""
    return (np.arange(192, dtype=np.float32) % 7).reshape(1, 3, 8, 8)


def test_a_tensor_says_what_it_holds(runtime):
    array = np.zeros((1, 3, 8, 8), np.uint8)
    tensor = runtime.tensor_from_numpy(array)

    assert tensor.shape == (1, 3, 8, 8)
    assert tensor.dtype == np.uint8
    assert tensor.layout == "NCHW"
    assert np.array_equal(tensor.to_numpy(), array)
    assert repr(tensor) == "Tensor(shape=(1, 3, 8, 8), dtype=uint8, layout=NCHW)"


def test_numpy_takes_a_tensor_directly(runtime):
    tensor = runtime.tensor_from_numpy(np.arange(8.0).reshape(2, 4))

    assert np.mean(tensor) == 3.5
    assert np.asarray(tensor, np.int32).dtype == np.int32
    assert np.array_equal(np.asarray(tensor), tensor.to_numpy())


@pytest.mark.parametrize("array", [np.ones(3), np.ones((2, 4)), np.ones((1, 8, 8))])
def test_the_default_layout_is_for_images_only(runtime, array):
    assert runtime.tensor_from_numpy(array).layout is None


def test_a_matrix_runs_with_the_default_layout(runtime, half):
    tensor = runtime.tensor_from_numpy(np.ones((2, 4), np.float16))
    assert np.array_equal(half.run({"input": tensor})["output"].to_numpy(), np.full((2, 4), 3))


@pytest.mark.parametrize("layout", ["NHWC", "nhwc", "CHWN", "HWNC"])
def test_axes_are_put_into_the_models_order(runtime, classify, expected, layout):
    order = ["NCHW".index(letter) for letter in layout.upper()]
    tensor = runtime.tensor_from_numpy(expected["x_nchw"].transpose(order), layout=layout)

    assert tensor.layout == layout.upper()
    assert classify(tensor) == pytest.approx(expected["y"], abs=1e-5)


def test_axes_are_put_into_the_order_of_a_model_that_wants_them_last(
    runtime, load, only_with, models, exact_config, expected
):
    only_with("openvino", "no ONNX model here wants the channels last")
    model = load(models / "ir/nhwc.xml", config=exact_config)
    for layout, axes in (("NCHW", (0, 1, 2, 3)), ("NHWC", (0, 2, 3, 1))):
        tensor = runtime.tensor_from_numpy(expected["x_nchw"].transpose(axes), layout=layout)
        output = model.run({"input": tensor})["output"].to_numpy()
        assert output == pytest.approx(expected["y"], abs=1e-5)


def test_without_a_layout_the_axes_stay_as_they_are(runtime, classify, expected):
    tensor = runtime.tensor_from_numpy(expected["x_nchw"], layout=None)
    assert classify(tensor) == pytest.approx(expected["y"], abs=1e-5)
    assert classify(expected["x_nchw"]) == pytest.approx(expected["y"], abs=1e-5)


@pytest.mark.parametrize(
    "dtype",
    [
        "bool",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "float64",
        ">f4",
        ">i2",
    ],
)
def test_numbers_of_every_type_mean_the_same(classify, whole_numbers, dtype):
    given = whole_numbers.astype(dtype)
    assert np.array_equal(classify(given), classify(given.astype(np.float32)))


def test_lists_are_arrays_too(classify, whole_numbers):
    assert np.array_equal(classify(whole_numbers.tolist()), classify(whole_numbers))


@pytest.mark.parametrize(
    "arrange",
    [
        np.asfortranarray,
        lambda x: x[:, ::-1].copy()[:, ::-1],
        lambda x: np.repeat(x, 2, axis=3)[..., ::2],
        lambda x: np.pad(x, ((0, 0), (0, 0), (2, 2), (1, 3)))[:, :, 2:-2, 1:-3],
        lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, 3)), 3, 1),
    ],
    ids=["fortran", "negative strides", "every other", "window", "moved axis"],
)
def test_memory_may_lie_in_any_order(classify, expected, arrange):
    given = arrange(expected["x_nchw"])
    assert not given.flags.c_contiguous
    assert classify(given) == pytest.approx(expected["y"], abs=1e-5)


def test_repeated_memory(classify):
    row = np.linspace(0, 1, 8, dtype=np.float32)
    given = np.broadcast_to(row, (1, 3, 8, 8))
    assert np.array_equal(classify(given), classify(given.copy()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_are_only_read(classify, expected, dtype):
    given = expected["x_nchw"].astype(dtype)
    given.flags.writeable = False
    before = given.copy()

    assert classify(given) == pytest.approx(expected["y"], abs=1e-5)
    assert np.array_equal(given, before)


def test_floats_become_half_precision(half):
    given = np.array([[0.1, -2.5, 1000, 0]])
    output = half.run({"input": given})["output"].to_numpy()

    assert output.dtype == np.float16
    assert np.array_equal(output, (given.astype(np.float16) * 2 + 1).astype(np.float16))


def test_several_inputs_and_outputs_of_different_types(multi):
    a = np.array([[0.5, 1, 2, 3], [4, 5, 6, 7]])
    b = np.array([[1, -1, 0, 2], [3, 4, 5, 6]], np.int16)
    results = multi.run({"a": a, "b": b})

    assert np.array_equal(results["sum"].to_numpy(), (a + b).astype(np.float32))
    assert np.array_equal(results["count"].to_numpy(), [2, 4])
    assert results["sum"].dtype == np.float32
    assert results["count"].dtype == np.int64
    assert results["count"].shape == (2,)


def test_a_result_can_be_the_next_input(multi, half):
    summed = multi.run({"a": np.ones((2, 4)), "b": np.ones((2, 4), np.int64)})["sum"]
    assert np.array_equal(half.run({"input": summed})["output"].to_numpy(), np.full((2, 4), 5))


@pytest.mark.parametrize("way", ["run", "stream", "request", "submit"])
def test_results_stay_valid_after_the_next_run(half, way):
    stream, request = half.create_stream(), half.create_async_request()

    def by_request(inputs):
        request.start(inputs)
        return request.wait()

    run = {
        "run": half.run,
        "stream": stream.run,
        "request": by_request,
        "submit": lambda inputs: half.submit(inputs).result(),
    }[way]
    kept = [run({"input": np.full((2, 4), value)})["output"] for value in range(10)]

    for value, output in enumerate(kept):
        assert np.array_equal(output.to_numpy(), np.full((2, 4), 2 * value + 1))
