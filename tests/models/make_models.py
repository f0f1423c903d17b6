"""Make the small model files in this directory, which the format tests read.

`conv.onnx`, the IR files, the TensorFlow, TensorFlow Lite and Paddle models all compute

    y = softmax(dense(flatten(relu(conv3x3(x)))))

with the same weights, drawn from a fixed seed, so they agree with `expected.npz` to 1e-5 in
float32: `x_nchw` float32 `[1, 3, 8, 8]` and `y` float32 `[1, 4]`. The TensorFlow models, the
TensorFlow Lite model and `ir/nhwc.xml` take the image as `[1, 8, 8, 3]`, the others as
`[1, 3, 8, 8]`. All name their tensors `input` and `output`, except that OpenVINO calls those of
`tensorflow/frozen.pb` `input:0` and `output:0`. `y_dynamic` is what `onnx/dynamic.onnx` gives for
`x_nchw`.

`ir/total.xml` remembers: `x` float32 `[1, 3]` → `sum` float32 `[1, 3]`, all of a session so far.

TensorFlow and PaddlePaddle are not dependencies of the project, and the three steps may run in
separate environments. The files were made with Python 3.11 and these versions:

    python tests/models/make_models.py onnx        # onnx 1.23.2, openvino 2026.4.1, numpy 2.4.6
    python tests/models/make_models.py state       # openvino 2026.4.1, numpy 2.4.6
    python tests/models/make_models.py tensorflow  # tensorflow-cpu 2.21.0, numpy 2.4.6
    python tests/models/make_models.py paddle      # paddlepaddle 3.3.1, numpy 2.4.6
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[np.float32]

DIRECTORY = Path(__file__).resolve().parent
SEED = 20
CHANNELS, HEIGHT, WIDTH = 3, 8, 8
FILTERS, CLASSES = 4, 4
OPSET_VERSION = 17
IR_VERSION = 8


@dataclass(frozen=True)
class Weights:
    """The weights that all frameworks share.

    Attributes:
        conv: `[filter, channel, row, column]`.
        conv_bias: `[filter]`.
        dense: `[filter * row * column, class]`, for a map flattened in that order.
        dense_bias: `[class]`.
        pooled: `[filter, class]`, replaces `dense` in `onnx/dynamic.onnx`.
    """

    conv: Array
    conv_bias: Array
    dense: Array
    dense_bias: Array
    pooled: Array

    @property
    def conv_hwio(self) -> Array:
        """The convolution weights as TensorFlow wants them."""
        return self.conv.transpose(2, 3, 1, 0)

    @property
    def dense_hwc(self) -> Array:
        """The dense weights for a map flattened in `[row, column, filter]` order."""
        maps = self.dense.reshape(FILTERS, HEIGHT, WIDTH, CLASSES)
        return maps.transpose(1, 2, 0, 3).reshape(-1, CLASSES)


def make_weights() -> tuple[Weights, Array]:
    """Returns the weights and the test input, always the same."""
    rng = np.random.default_rng(SEED)

    def draw(scale: float, *shape: int) -> Array:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    weights = Weights(
        conv=draw(0.3, FILTERS, CHANNELS, 3, 3),
        conv_bias=draw(0.1, FILTERS),
        dense=draw(0.06, FILTERS * HEIGHT * WIDTH, CLASSES),
        dense_bias=draw(0.1, CLASSES),
        pooled=draw(0.8, FILTERS, CLASSES),
    )
    return weights, rng.random((1, CHANNELS, HEIGHT, WIDTH), dtype=np.float32)


def reference(weights: Weights, x_nchw: Array) -> tuple[Array, Array]:
    """Returns `y` and `y_dynamic`, computed in float64 with NumPy alone."""
    padded = np.pad(x_nchw.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    maps = np.einsum("nchwij,ocij->nohw", windows, weights.conv)
    maps = np.maximum(maps + weights.conv_bias[:, np.newaxis, np.newaxis], 0.0)

    def probabilities(features: npt.NDArray[np.float64], dense: Array) -> Array:
        logits = features @ dense + weights.dense_bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: Array = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return result

    flat = maps.reshape(len(maps), -1)
    return probabilities(flat, weights.dense), probabilities(maps.mean((2, 3)), weights.pooled)


def save_onnx(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: dict[str, npt.NDArray[Any]] | None = None,
    custom_domain: str | None = None,
) -> Path:
    """Writes `onnx/<name>.onnx` and returns its path."""
    import onnx
    from onnx import helper, numpy_helper

    tensors = [numpy_helper.from_array(a, key) for key, a in (initializers or {}).items()]
    opsets = [helper.make_opsetid("", OPSET_VERSION)]
    if custom_domain is not None:
        opsets.append(helper.make_opsetid(custom_domain, 1))
    model = helper.make_model(
        helper.make_graph(nodes, name, inputs, outputs, tensors),
        opset_imports=opsets,
        ir_version=IR_VERSION,
        producer_name="make_models.py",
    )
    onnx.checker.check_model(model, full_check=True)
    path = DIRECTORY / "onnx" / f"{name}.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def make_conv_onnx(weights: Weights) -> Path:
    """Writes the two image models, `conv.onnx` and `dynamic.onnx`; returns the first's path."""
    from onnx import TensorProto, helper

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    head = [
        helper.make_node("Conv", ["input", "conv", "conv_bias"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["maps"]),
    ]
    tail = [
        helper.make_node("Flatten", ["features"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "dense", "dense_bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["output"], axis=1),
    ]
    arrays = {"conv": weights.conv, "conv_bias": weights.conv_bias}
    arrays["dense_bias"] = weights.dense_bias
    save_onnx(
        "dynamic",
        [*head, helper.make_node("GlobalAveragePool", ["maps"], ["features"]), *tail],
        [value("input", "batch", CHANNELS, "height", "width")],
        [value("output", "batch", CLASSES)],
        {**arrays, "dense": weights.pooled},
    )
    return save_onnx(
        "conv",
        [*head, helper.make_node("Identity", ["maps"], ["features"]), *tail],
        [value("input", 1, CHANNELS, HEIGHT, WIDTH)],
        [value("output", 1, CLASSES)],
        {**arrays, "dense": weights.dense},
    )


def make_odd_onnx() -> None:
    """Writes the models for several tensors, half precision, and the two kinds of failure."""
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    # sum = a + b; count = how many of each row of b are positive.
    save_onnx(
        "multi",
        [
            helper.make_node("Cast", ["b"], ["b_float"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["a", "b_float"], ["sum"]),
            helper.make_node("Greater", ["b", "zero"], ["positive"]),
            helper.make_node("Cast", ["positive"], ["positive_int"], to=TensorProto.INT64),
            helper.make_node("ReduceSum", ["positive_int", "axes"], ["count"], keepdims=0),
        ],
        [value("a", TensorProto.FLOAT, ["N", 4]), value("b", TensorProto.INT64, ["N", 4])],
        [value("sum", TensorProto.FLOAT, ["N", 4]), value("count", TensorProto.INT64, ["N"])],
        {"zero": np.array(0, np.int64), "axes": np.array([1], np.int64)},
    )
    # The model doubles its input and adds one.
    save_onnx(
        "half",
        [
            helper.make_node("Mul", ["input", "two"], ["doubled"]),
            helper.make_node("Add", ["doubled", "one"], ["output"]),
        ],
        [value("input", TensorProto.FLOAT16, ["batch", 4])],
        [value("output", TensorProto.FLOAT16, ["batch", 4])],
        {"two": np.array(2, np.float16), "one": np.array(1, np.float16)},
    )
    # Compiles, but inference fails when the product of `shape` is not the length of `data`.
    save_onnx(
        "data_dependent",
        [helper.make_node("Reshape", ["data", "shape"], ["output"])],
        [value("data", TensorProto.FLOAT, ["N"]), value("shape", TensorProto.INT64, [2])],
        [value("output", TensorProto.FLOAT, ["rows", "columns"])],
    )
    # A well-formed file with an operator that no runtime implements.
    save_onnx(
        "uncompilable",
        [helper.make_node("Mystery", ["input"], ["output"], domain="ai.example")],
        [value("input", TensorProto.FLOAT, ["batch", 4])],
        [value("output", TensorProto.FLOAT, ["batch", 4])],
        custom_domain="ai.example",
    )


def make_ir(conv_onnx: Path) -> None:
    """Writes `ir/model.xml` (NCHW) and `ir/nhwc.xml`, both with the input layout stored."""
    import openvino as ov
    from openvino.preprocess import PrePostProcessor

    directory = DIRECTORY / "ir"
    directory.mkdir(exist_ok=True)
    model = ov.convert_model(conv_onnx)
    model.get_parameters()[0].set_layout(ov.Layout("NCHW"))
    ov.save_model(model, directory / "model.xml", compress_to_fp16=False)

    steps = PrePostProcessor(model)
    steps.input().tensor().set_layout(ov.Layout("NHWC"))
    ov.save_model(steps.build(), directory / "nhwc.xml", compress_to_fp16=False)


def make_state() -> None:
    """Write `ir/total.xml`, which adds up its inputs in a variable."""
    import openvino as ov
    from openvino import opset13
    from openvino.op.util import Variable, VariableInfo

    x = opset13.parameter([1, 3], np.float32, name="x")
    info = VariableInfo()
    info.variable_id = "total"
    info.data_shape = ov.PartialShape([1, 3])
    info.data_type = ov.Type.f32
    variable = Variable(info)
    before = opset13.read_value(opset13.constant(np.zeros((1, 3), np.float32)), variable)
    total = opset13.add(before, x)
    x.output(0).set_names({"x"})
    total.output(0).set_names({"sum"})
    model = ov.Model([opset13.result(total)], [opset13.assign(total, variable)], [x], "total")
    ov.save_model(model, DIRECTORY / "ir" / "total.xml", compress_to_fp16=False)


def make_tensorflow(weights: Weights) -> None:
    """Writes the SavedModel, the frozen graph and the TensorFlow Lite model."""
    tf: Any = importlib.import_module("tensorflow")
    shape = [1, HEIGHT, WIDTH, CHANNELS]

    def classify(image: Any, conv: Any, conv_bias: Any, dense: Any, dense_bias: Any) -> Any:
        maps = tf.nn.relu(tf.nn.conv2d(image, conv, 1, "SAME") + conv_bias)
        return tf.nn.softmax(tf.reshape(maps, [1, -1]) @ dense + dense_bias, name="output")

    arrays = [weights.conv_hwio, weights.conv_bias, weights.dense_hwc, weights.dense_bias]

    module = tf.Module()
    module.parameters = [tf.Variable(array) for array in arrays]
    function = tf.function(
        lambda image: {"output": classify(image, *module.parameters)},
        input_signature=[tf.TensorSpec(shape, tf.float32, "input")],
    )
    directory = DIRECTORY / "tensorflow"
    shutil.rmtree(directory, ignore_errors=True)
    options = tf.saved_model.SaveOptions(save_debug_info=False)
    tf.saved_model.save(
        module, directory / "saved_model", {"serving_default": function}, options=options
    )

    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        image = tf.compat.v1.placeholder(tf.float32, shape, "input")
        output = classify(image, *map(tf.constant, arrays))
        graph_bytes = graph.as_graph_def().SerializeToString(deterministic=True)
        (directory / "frozen.pb").write_bytes(graph_bytes)

        # Unlike the converter for SavedModels, this one keeps the tensor names.
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, [image], [output])
        lite_directory = DIRECTORY / "tflite"
        lite_directory.mkdir(exist_ok=True)
        (lite_directory / "model.tflite").write_bytes(converter.convert())


def make_paddle(weights: Weights) -> None:
    """Writes `paddle/model.pdmodel` and `paddle/model.pdiparams`."""
    # The newer program format is written as JSON, which OpenVINO does not read.
    os.environ.update(FLAGS_enable_pir_api="0")
    paddle: Any = importlib.import_module("paddle")
    paddle.enable_static()
    program = paddle.static.Program()
    startup = paddle.static.Program()
    with paddle.static.program_guard(program, startup):

        def parameter(name: str, array: Array) -> Any:
            initializer = paddle.nn.initializer.Assign(array)
            return paddle.static.create_parameter(
                list(array.shape), "float32", name=name, default_initializer=initializer
            )

        functional = paddle.nn.functional
        image = paddle.static.data("input", [1, CHANNELS, HEIGHT, WIDTH], "float32")
        maps = functional.conv2d(
            image,
            parameter("conv", weights.conv),
            parameter("conv_bias", weights.conv_bias),
            padding=1,
        )
        logits = functional.linear(
            paddle.flatten(functional.relu(maps), 1),
            parameter("dense", weights.dense),
            parameter("dense_bias", weights.dense_bias),
        )
        block = program.global_block()
        output = block.create_var(name="output", dtype=logits.dtype, shape=logits.shape)
        block.append_op(
            type="softmax", inputs={"X": logits}, outputs={"Out": output}, attrs={"axis": -1}
        )
    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(startup)
    program = paddle.static.normalize_program(program, [image], [output])
    for operator in program.global_block().ops:
        # Holds the Python call stack, with the paths of the machine that ran this script.
        operator._remove_attr("op_callstack")
    directory = DIRECTORY / "paddle"
    directory.mkdir(exist_ok=True)
    (directory / "model.pdmodel").write_bytes(program.desc.serialize_to_string())
    parameters = paddle.static.serialize_persistables([image], [output], executor, program=program)
    (directory / "model.pdiparams").write_bytes(parameters)


def main() -> None:
    """Runs the step named on the command line."""
    parser = argparse.ArgumentParser(description="Make the model files for the format tests.")
    parser.add_argument("step", choices=["onnx", "state", "tensorflow", "paddle"])
    step = parser.parse_args().step
    weights, x_nchw = make_weights()
    if step == "onnx":
        y, y_dynamic = reference(weights, x_nchw)
        np.savez(DIRECTORY / "expected.npz", x_nchw=x_nchw, y=y, y_dynamic=y_dynamic)
        make_odd_onnx()
        make_ir(make_conv_onnx(weights))
    elif step == "state":
        make_state()
    elif step == "tensorflow":
        make_tensorflow(weights)
    else:
        make_paddle(weights)


if __name__ == "__main__":
    main()
