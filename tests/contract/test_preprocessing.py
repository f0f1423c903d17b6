"""Preprocessing: models that take pixels give what they give for what numpy makes of them."""

from __future__ import annotations

import pickle

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

MEAN, SCALE = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CHANNELS_FIRST, CHANNELS_LAST = (1, 3, 6, 5), (1, 6, 5, 3)
OPEN = ("batch", 3, "height", "width")


@pytest.fixture
def turning(tmp_path):
    """Writes a model that gives what it takes, its axes in reverse order."""

    def write(*inputs, element_type=TensorProto.FLOAT):
        names = [f"x{number}" for number in range(len(inputs))]
        takes = [
            helper.make_tensor_value_info(name, element_type, shape)
            for name, shape in zip(names, inputs, strict=True)
        ]
        gives = [
            helper.make_tensor_value_info(f"y{number}", element_type, shape[::-1])
            for number, shape in enumerate(inputs)
        ]
        nodes = [
            helper.make_node("Transpose", [name], [f"y{number}"], perm=range(len(shape))[::-1])
            for number, (name, shape) in enumerate(zip(names, inputs, strict=True))
        ]
        graph = helper.make_graph(nodes, "turning", takes, gives)
        opsets = [helper.make_opsetid("", 17)]
        path = tmp_path / "turning.onnx"
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
        return path

    return write


@pytest.fixture
def declare(package, load, exact_config):
    """Loads a model with a preprocessing of these fields."""
    return lambda path, **fields: load(
        path, "CPU", config=exact_config, preprocessing=package.Preprocessing(**fields)
    )


def pixels_of(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def prepared(pixels, mean=0, scale=1, *, is_bgr=False, to="NCHW"):
    """What a model in training was given for these NHWC pixels."""
    values = pixels.astype(np.float32)
    if is_bgr:
        values = values[..., ::-1]
    values = (values - np.float32(mean)) / np.float32(scale)
    return values.transpose(0, 3, 1, 2) if to == "NCHW" else values


def taken(outputs, name="y0"):
    """What reached the model."""
    return outputs[name].to_numpy().T


def ports_of(model):
    return [(port.name, port.dtype, port.shape, port.layout) for port in model.inputs]


@pytest.mark.parametrize(
    ("shape", "declared", "wanted"),
    [
        (CHANNELS_FIRST, {}, {}),
        (CHANNELS_FIRST, {"mean": MEAN, "scale": SCALE}, {"mean": MEAN, "scale": SCALE}),
        (CHANNELS_FIRST, {"mean": (127.5,), "layout": "NCHW"}, {"mean": 127.5}),
        (
            CHANNELS_FIRST,
            {"mean": MEAN[::-1], "scale": (0.5,), "color": "bgr"},
            {"mean": MEAN[::-1], "scale": 0.5, "is_bgr": True},
        ),
        (CHANNELS_FIRST, {"color": "bgr", "layout": "NCHW"}, {"is_bgr": True}),
        (CHANNELS_LAST, {"mean": MEAN, "scale": SCALE}, {"mean": MEAN, "scale": SCALE}),
        (
            CHANNELS_LAST,
            {"scale": SCALE, "color": "bgr", "layout": "NCHW"},
            {"scale": SCALE, "is_bgr": True},
        ),
        (
            (1, 1, 6, 5),
            {"color": "gray", "mean": (100,), "scale": (-50,)},
            {"mean": 100, "scale": -50},
        ),
        ((1, 6, 5, 1), {"color": "gray", "layout": "NCHW", "mean": (9,)}, {"mean": 9}),
    ],
)
def test_the_model_gets_what_numpy_makes_of_the_pixels(
    runtime, declare, turning, shape, declared, wanted
):
    model = declare(turning(shape), **declared)
    is_first = shape[1] in (1, 3)
    channels = shape[1 if is_first else 3]
    travels = declared.get("layout", "NHWC")
    sizes = {"N": 1, "H": 6, "W": 5, "C": channels}
    assert ports_of(model) == [("x0", np.uint8, tuple(sizes[each] for each in travels), travels)]

    pixels = pixels_of(1, 6, 5, channels)
    expected = prepared(pixels, **wanted, to="NCHW" if is_first else "NHWC")
    travelling = pixels if travels == "NHWC" else pixels.transpose(0, 3, 1, 2)
    for given in (travelling, runtime.tensor_from_numpy(pixels, layout="NHWC")):
        outputs = model.run({"x0": given})
        assert outputs["y0"].shape == shape[::-1]
        assert taken(outputs) == pytest.approx(expected, abs=1e-3)


def test_a_real_model(load, declare, models, exact_config):
    pixels = pixels_of(1, 8, 8, 3)
    path = models / "onnx/conv.onnx"
    plain = load(path, "CPU", config=exact_config)
    expected = plain.run({"input": prepared(pixels, MEAN, SCALE, is_bgr=True)})["output"]

    model = declare(path, mean=MEAN, scale=SCALE, color="bgr")
    output = model.run({"input": pixels})["output"].to_numpy()
    assert output == pytest.approx(expected.to_numpy(), abs=1e-3)

    other = declare(path, mean=MEAN, scale=SCALE)  # loaded in another way, so not shared
    assert other.run({"input": pixels})["output"].to_numpy() != pytest.approx(output, abs=1e-3)
    again = plain.run({"input": prepared(pixels, MEAN, SCALE, is_bgr=True)})["output"]
    assert np.array_equal(again.to_numpy(), expected.to_numpy())


def test_it_travels_as_a_value(package, load, turning):
    one = package.Preprocessing(mean=list(MEAN), color="bgr")
    same = pickle.loads(pickle.dumps(one))  # noqa: S301 - it was written here
    assert same == one
    assert len({one, same}) == 1
    assert load(turning(CHANNELS_FIRST), preprocessing=same).inputs[0].dtype == np.uint8


def test_it_may_be_declared_as_a_mapping(load, turning, exact_config):
    declared = {"layout": "nchw", "mean": "1,2,3", "scale": 2, "color": "BGR", "resize": "6x5"}
    model = load(turning(CHANNELS_FIRST), "CPU", config=exact_config, preprocessing=declared)
    pixels = pixels_of(1, 6, 5, 3)

    outputs = model.run({"x0": pixels.transpose(0, 3, 1, 2)})
    assert taken(outputs) == pytest.approx(prepared(pixels, (1, 2, 3), 2, is_bgr=True), abs=1e-3)


def test_a_free_size_becomes_the_declared_one(package, declare, turning):
    model = declare(turning(OPEN), resize=(6, 5), mean=MEAN)
    assert ports_of(model) == [("x0", np.uint8, (-1, 6, 5, 3), "NHWC")]
    for batch in (1, 3):
        pixels = pixels_of(batch, 6, 5, 3)
        assert taken(model.run({"x0": pixels})) == pytest.approx(prepared(pixels, MEAN), abs=1e-3)

    with pytest.raises(package.InputShapeError, match="the model takes"):
        model.run({"x0": pixels_of(1, 5, 6, 3)})
    assert model.outputs[0].shape == (5, 6, 3, -1)


def test_a_free_size_stays_free(runtime, package, declare, turning):
    model = declare(turning(OPEN), scale=SCALE, color="bgr")
    assert ports_of(model) == [("x0", np.uint8, (-1, -1, -1, 3), "NHWC")]
    for shape in ((1, 6, 5, 3), (2, 3, 9, 3), (1, 6, 5, 3)):
        pixels = pixels_of(*shape)
        expected = pytest.approx(prepared(pixels, 0, SCALE, is_bgr=True), abs=1e-3)
        assert taken(model.run({"x0": pixels})) == expected
        tensor = runtime.tensor_from_numpy(pixels, layout="NHWC", shape_override=shape)
        assert taken(model.run({"x0": tensor})) == expected
    assert (model.shape_cache.misses, model.shape_cache.hits) == (2, 1)
    with pytest.raises(package.InputShapeError):
        model.run({"x0": pixels_of(1, 6, 5, 4)})


def test_a_declared_size_and_a_batch_that_is_compiled_for(runtime, declare, turning):
    model = declare(turning(OPEN), resize=(6, 5))
    pixels = pixels_of(4, 6, 5, 3)
    tensor = runtime.tensor_from_numpy(pixels, layout="NHWC", shape_override=(4, 6, 5, 3))
    assert taken(model.run({"x0": tensor})) == pytest.approx(prepared(pixels), abs=1e-3)
    assert model.shape_cache.size == 1


def test_a_layout_that_only_the_user_knows(package, declare, turning):
    path = turning(("n", "a", "b", "c"))
    with pytest.raises(package.OptionError, match="NHWC:NHWC or NHWC:NCHW"):
        declare(path)

    model = declare(path, layout="NHWC:NCHW", mean=MEAN)
    assert ports_of(model) == [("x0", np.uint8, (-1, -1, -1, 3), "NHWC")]
    pixels = pixels_of(1, 4, 7, 3)
    assert taken(model.run({"x0": pixels})) == pytest.approx(prepared(pixels, MEAN), abs=1e-3)


def test_dimensions_without_a_name(declare, turning):
    model = declare(turning((None, 3, None, None)), resize=(6, 5))
    assert ports_of(model) == [("x0", np.uint8, (-1, 6, 5, 3), "NHWC")]
    pixels = pixels_of(2, 6, 5, 3)
    assert taken(model.run({"x0": pixels})) == pytest.approx(prepared(pixels), abs=1e-3)


def test_the_layout_an_ir_states(load, declare, only_with, models, exact_config):
    only_with("openvino", "ONNX states no layout")
    pixels = pixels_of(1, 8, 8, 3)
    plain = load(models / "ir/nhwc.xml", config=exact_config)
    expected = plain.run({"input": prepared(pixels, MEAN, SCALE, to="NHWC")})["output"]

    model = declare(models / "ir/nhwc.xml", layout="NCHW", mean=MEAN, scale=SCALE)
    output = model.run({"input": pixels.transpose(0, 3, 1, 2)})["output"].to_numpy()
    assert output == pytest.approx(expected.to_numpy(), abs=1e-3)


def test_one_of_two_inputs(package, declare, turning):
    model = declare(turning(CHANNELS_FIRST, ("batch", 2)), mean=MEAN)
    assert ports_of(model)[1] == ("x1", np.float32, (-1, 2), None)
    pixels, vector = pixels_of(1, 6, 5, 3), np.float32([[1.5, -2]])
    outputs = model.run({"x0": pixels, "x1": vector})
    assert taken(outputs) == pytest.approx(prepared(pixels, MEAN), abs=1e-3)
    assert np.array_equal(taken(outputs, "y1"), vector)


def test_one_of_two_pictures(package, declare, turning):
    path = turning(CHANNELS_FIRST, OPEN)
    with pytest.raises(package.OptionError, match="takes the pixels, of 'x0', 'x1'"):
        declare(path)

    model = declare(path, input="x1", resize=(7, 4), color="bgr")
    assert [port.dtype for port in model.inputs] == [np.float32, np.uint8]
    values, pixels = prepared(pixels_of(1, 6, 5, 3), 7), pixels_of(2, 7, 4, 3)
    outputs = model.run({"x0": values, "x1": pixels})
    assert np.array_equal(taken(outputs), values)
    assert taken(outputs, "y1") == pytest.approx(prepared(pixels, is_bgr=True), abs=1e-3)


def test_half_precision(declare, turning):
    path = turning(CHANNELS_FIRST, element_type=TensorProto.FLOAT16)
    model = declare(path, mean=MEAN, scale=SCALE)
    assert ports_of(model) == [("x0", np.uint8, (1, 6, 5, 3), "NHWC")]
    pixels = pixels_of(1, 6, 5, 3)
    output = taken(model.run({"x0": pixels}))
    assert output.dtype == np.float16
    # Only the result is rounded to eleven bits, not the mean: pixels close to it would show that.
    assert output == pytest.approx(prepared(pixels, MEAN, SCALE), rel=2**-10)


def test_whole_numbers(package, declare, turning):
    path = turning(CHANNELS_FIRST, element_type=TensorProto.UINT8)
    pixels = pixels_of(1, 6, 5, 3)
    output = taken(declare(path, color="bgr").run({"x0": pixels}))
    assert np.array_equal(output, pixels[..., ::-1].transpose(0, 3, 1, 2))

    with pytest.raises(package.OptionError, match=r"mean=.* the model takes integers"):
        declare(path, mean=MEAN)


@pytest.mark.parametrize(
    ("shape", "declared", "words"),
    [
        (CHANNELS_FIRST, {"resize": (5, 6)}, r"resize='5x6' .* expected 6x5 \(height x width\)"),
        (CHANNELS_FIRST, {"color": "gray"}, "color='gray' .* rgb or bgr"),
        ((1, 1, 6, 5), {"mean": MEAN}, "color='rgb' .* expected gray"),
        ((1, 4), {}, "a model with an input of rank 4; this one takes x0: float32 1×4"),
        (
            CHANNELS_FIRST,
            {"input": "picture"},
            "input='picture' .* one of the model's inputs: 'x0'",
        ),
    ],
)
def test_models_that_it_does_not_fit(package, declare, turning, shape, declared, words):
    with pytest.raises(package.OptionError, match=words):
        declare(turning(shape), **declared)


def test_a_size_that_the_model_cannot_have(package, declare, backend, tmp_path):
    path = tmp_path / "square.onnx"
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, "side", "side"))
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, "side", "side"))
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "square", [takes], [gives])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)

    error, words = {
        "openvino": (package.CompileError, "preprocessing cannot be built into it: .*MatMul"),
        "onnxruntime": (package.OptionError, r"resize=.* dimension 'side' is also 6"),
    }[backend]
    with pytest.raises(error, match=words):
        declare(path, resize=(6, 5))
    assert declare(path, resize=(6, 6)).inputs[0].shape == (1, 6, 6, 3)


@pytest.mark.parametrize(
    "declared",
    [
        {"color": "cmyk"},
        {"color": "gray", "mean": [1, 2, 3]},
        {"scale": 0},
        {"resize": "large"},
        {"std": 1},
        "rgb",
    ],
)
def test_what_makes_no_sense_is_refused_before_a_model_is_read(package, runtime, declared):
    with pytest.raises(package.OptionError):
        runtime.load_model("none.onnx", preprocessing=declared)


def test_floats_are_no_pixels(package, declare, turning):
    model = declare(turning(CHANNELS_FIRST))
    with pytest.raises(package.InputDtypeError, match="uint8"):
        model.run({"x0": np.zeros((1, 6, 5, 3), np.float32)})
    with pytest.raises(package.InputDtypeError, match="do not fit"):
        model.run({"x0": np.full((1, 6, 5, 3), 256)})
    assert model.run({"x0": np.full((1, 6, 5, 3), 255)})["y0"].to_numpy().max() == 255


def test_results_stay_what_they_are(package, declare, turning):
    model = declare(turning(CHANNELS_FIRST), mean=(128,))
    pictures = [pixels_of(1, 6, 5, 3, seed=seed) for seed in range(12)]
    with model.create_stream() as stream:
        streamed = list(stream.map({"x0": each} for each in pictures))
    submitted = [future.result() for future in [model.submit({"x0": each}) for each in pictures]]
    for results in (streamed, submitted):
        for pixels, outputs in zip(pictures, results, strict=True):
            assert taken(outputs) == pytest.approx(prepared(pixels, 128), abs=1e-3)


def test_a_picture_larger_than_what_travels_in_a_message(declare, turning):
    model = declare(turning(OPEN), resize=(224, 320), mean=MEAN, scale=SCALE)
    pixels = pixels_of(1, 224, 320, 3)
    expected = prepared(pixels, MEAN, SCALE)
    for _ in range(2):
        assert taken(model.run({"x0": pixels})) == pytest.approx(expected, abs=1e-3)


def test_profiling(declare, turning):
    model = declare(turning(OPEN), mean=MEAN)
    made_up = model.get_profiling(runs=2)
    assert made_up.layers
    pixels = pixels_of(1, 224, 224, 3)
    profile = model.get_profiling({"x0": pixels}, runs=2)
    layers_us = sum(layer.time_us for layer in profile.layers)
    assert profile.inference_us > made_up.inference_us
    assert profile.overhead_us == pytest.approx(max(0, profile.inference_us - layers_us))


def test_the_profile_shows_what_numpy_did(declare, only_with, turning):
    only_with("onnxruntime", "OpenVINO makes layers of its own of it")
    profile = declare(turning(CHANNELS_FIRST), mean=MEAN).get_profiling(runs=2)
    assert profile.layers[0].kind == "Preprocessing"
    assert profile.layers[0].time_us > 0
