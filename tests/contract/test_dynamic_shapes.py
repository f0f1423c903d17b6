"""Dynamic shapes: run as they come, or compiled once for each shape that is asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest


@pytest.fixture
def fresh(load, models, exact_config):
    """A model whose shape cache nobody has used; its own name keeps it apart on a cluster."""
    return load(models / "onnx/dynamic.onnx", "CPU", config=exact_config, name="fresh-dynamic")


def picture(*shape):
    return np.random.default_rng(sum(shape)).random(shape, np.float32)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 5, 7), (4, 3, 1, 1), (1, 3, 33, 2)])
def test_every_shape_runs_without_being_compiled_for(dynamic, shape):
    misses = dynamic.shape_cache.misses
    output = dynamic.run({"input": picture(*shape)})["output"]

    assert output.shape == (shape[0], 4)
    assert dynamic.shape_cache.misses == misses


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 5, 7), (1, 3, 33, 2)])
def test_a_compiled_shape_gives_what_the_dynamic_model_gives(runtime, dynamic, shape):
    array = picture(*shape)
    tensor = runtime.tensor_from_numpy(array, shape_override=shape)
    specialised = dynamic.run({"input": tensor})["output"].to_numpy()

    assert specialised == pytest.approx(dynamic.run({"input": array})["output"].to_numpy(), 1e-5)


def test_the_override_says_what_shape_flat_data_has(runtime, dynamic):
    array = picture(1, 3, 6, 4)
    tensor = runtime.tensor_from_numpy(array.ravel(), shape_override=(1, 3, 6, 4))

    assert tensor.shape == (1, 3, 6, 4)
    assert tensor.layout == "NCHW"
    specialised = dynamic.run({"input": tensor})["output"].to_numpy()
    assert specialised == pytest.approx(dynamic.run({"input": array})["output"].to_numpy(), 1e-5)


def test_the_override_is_in_the_order_of_the_layout(runtime, dynamic):
    array = picture(1, 3, 6, 4)
    tensor = runtime.tensor_from_numpy(
        array.transpose(0, 2, 3, 1), layout="NHWC", shape_override=(1, 6, 4, 3)
    )
    specialised = dynamic.run({"input": tensor})["output"].to_numpy()
    assert specialised == pytest.approx(dynamic.run({"input": array})["output"].to_numpy(), 1e-5)


def test_a_shape_is_compiled_on_first_use_and_then_cached(runtime, fresh):
    def run(height, width):
        shape = (1, 3, height, width)
        tensor = runtime.tensor_from_numpy(picture(*shape), shape_override=shape)
        fresh.run({"input": tensor})
        info = fresh.shape_cache
        return info.hits, info.misses, info.size

    assert run(8, 8) == (0, 1, 1)
    assert run(8, 8) == (1, 1, 1)
    assert run(8, 9) == (1, 2, 2)
    assert run(8, 8) == (2, 2, 2)
    assert run(8, 9) == (3, 2, 2)


def test_the_cache_forgets_the_shape_not_used_for_longest(runtime, fresh):
    capacity = fresh.shape_cache.capacity
    assert capacity == 16

    def is_hit(width):
        misses = fresh.shape_cache.misses
        shape = (1, 3, 4, width)
        tensor = runtime.tensor_from_numpy(picture(*shape), shape_override=shape)
        fresh.run({"input": tensor})
        return fresh.shape_cache.misses == misses

    widths = range(1, capacity + 1)
    assert not any(is_hit(width) for width in widths)
    assert is_hit(1)
    assert not is_hit(capacity + 1)
    assert fresh.shape_cache.size == capacity

    assert is_hit(1)
    assert not is_hit(2)
    assert is_hit(capacity + 1)
    assert fresh.shape_cache.size == capacity


def test_every_way_of_running_uses_the_cache(runtime, fresh):
    shape = (1, 3, 8, 8)
    inputs = {"input": runtime.tensor_from_numpy(picture(*shape), shape_override=shape)}
    request = fresh.create_async_request()
    request.start(inputs)

    with fresh.create_stream() as stream:
        outputs = [
            request.wait()["output"],
            fresh.run(inputs)["output"],
            fresh.submit(inputs).result()["output"],
            stream.run(inputs)["output"],
            *(result["output"] for result in stream.map([inputs, inputs])),
        ]

    assert (fresh.shape_cache.misses, fresh.shape_cache.hits) == (1, 5)
    for one, other in itertools.pairwise(outputs):
        assert np.array_equal(one.to_numpy(), other.to_numpy())


def test_a_static_model_has_only_one_shape(runtime, conv, expected):
    misses = conv.shape_cache.misses
    tensor = runtime.tensor_from_numpy(expected["x_nchw"].ravel(), shape_override=(1, 3, 8, 8))

    output = conv.run({"input": tensor})["output"].to_numpy()
    assert output == pytest.approx(expected["y"], abs=1e-5)
    assert conv.shape_cache.misses == misses


def test_one_override_compiles_for_all_inputs(runtime, load, models):
    model = load(models / "onnx/multi.onnx", "CPU", name="fresh-multi")
    a = runtime.tensor_from_numpy(np.ones((3, 4)), shape_override=(3, 4))
    results = model.run({"a": a, "b": np.ones((3, 4), np.int64)})

    assert np.array_equal(results["count"].to_numpy(), [4, 4, 4])
    assert model.shape_cache.misses == 1
