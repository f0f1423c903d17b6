"""Whatever is wrong ends in one clear error, and the next good request is answered as before."""

from __future__ import annotations

import asyncio

import numpy as np
import onnx
import pytest


@pytest.fixture(autouse=True)
def answers_afterwards(runtime, conv, expected):
    """After each test the same runtime and a model of it still work."""
    yield
    tensor = runtime.tensor_from_numpy(expected["x_nchw"])
    output = conv.run({"input": tensor})["output"].to_numpy()
    assert output == pytest.approx(expected["y"], abs=1e-5)


@pytest.fixture
def refuses(package):
    """Runs something that must end in exactly one class of error, whose text has some words."""

    def check(error, words, function, *args, **kwargs):
        with pytest.raises(package.InferenceRuntimeError) as caught:
            function(*args, **kwargs)
        assert type(caught.value) is getattr(package, error), repr(caught.value)
        message = str(caught.value)
        assert [word for word in words if word not in message] == [], message
        return caught.value

    return check


# -- models ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(models, tmp_path_factory):
    """A folder of files that are no models, each for another reason."""
    folder = tmp_path_factory.mktemp("broken")
    graph = (models / "onnx/conv.onnx").read_bytes()
    xml, weights = [(models / f"ir/model.{suffix}").read_bytes() for suffix in ("xml", "bin")]
    files = {
        "truncated.onnx": graph[: len(graph) // 2],
        "text.onnx": b"This is not a model.\n" * 20,
        "picture.png": b"\x89PNG",
        "no_suffix": graph,
        "empty.onnx": b"",
        "empty.xml": b"",
        "no_weights.xml": xml,
        "short_weights.xml": xml,
        "short_weights.bin": weights[:100],
        "empty_weights.xml": xml,
        "empty_weights.bin": b"",
        "truncated.xml": xml[: len(xml) // 2],
        "truncated.bin": weights,
        "other.xml": b"<html><body>Not found</body></html>",
        "other.bin": weights,
        "text.pb": b"This is not a model.\n" * 20,
        "text.tflite": b"This is not a model.\n" * 20,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "directory").mkdir()
    return folder


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("missing.onnx", "ModelNotFoundError", ["check the path"]),
        ("missing.xml", "ModelNotFoundError", ["check the path"]),
        ("missing/model.onnx", "ModelNotFoundError", ["check the path"]),
        ("directory", "ModelUnreadableError", ["saved_model.pb", "name the model file itself"]),
        ("picture.png", "ModelUnreadableError", ["'.png'", ".onnx", ".xml", ".tflite"]),
        ("no_suffix", "ModelUnreadableError", ["suffix", ".onnx"]),
        ("empty.onnx", "ModelUnreadableError", ["the file is empty"]),
        ("empty.xml", "ModelUnreadableError", ["the file is empty"]),
        ("no_weights.xml", "ModelUnreadableError", ["no_weights.bin", "missing"]),
    ],
)
def test_files_that_cannot_be_models(runtime, refuses, broken, name, error, words):
    refuses(error, [name, *words], runtime.load_model, broken / name)


@pytest.mark.parametrize(
    "name",
    [
        "truncated.onnx",
        "text.onnx",
        "short_weights.xml",
        "empty_weights.xml",
        "truncated.xml",
        "other.xml",
        "text.pb",
        "text.tflite",
    ],
)
def test_files_that_the_backend_cannot_read(runtime, backend, refuses, broken, name):
    words = [backend, "cannot read", name]
    if backend == "onnxruntime" and not name.endswith(".onnx"):
        words.append("only ONNX can be read")
    refuses("ModelUnreadableError", words, runtime.load_model, broken / name)


@pytest.mark.parametrize("path", [None, 3, b"model.onnx", ["model.onnx"]])
def test_things_that_are_no_paths(runtime, refuses, path):
    refuses(
        "OptionError", ["model_path", repr(path), "str or pathlib.Path"], runtime.load_model, path
    )


@pytest.mark.parametrize("path", ["x" * 5000 + ".onnx", "~nobody-of-this-name/model.onnx"])
def test_paths_that_the_system_refuses(package, runtime, path):
    with pytest.raises(package.ModelError, match=r"model\.onnx|too long"):
        runtime.load_model(path)


def test_a_path_with_a_zero_in_it(runtime, refuses):
    refuses("ModelNotFoundError", ["check the path"], runtime.load_model, "model\0.onnx")


def test_weights_that_are_gone_from_an_onnx_model(package, runtime, models, tmp_path):
    path = tmp_path / "hollow.onnx"
    onnx.save_model(
        onnx.load(models / "onnx/conv.onnx"),
        path,
        save_as_external_data=True,
        location="hollow.data",
        size_threshold=0,
    )
    (tmp_path / "hollow.data").unlink()

    # The backends differ in whether this makes it unreadable or not compilable.
    with pytest.raises(package.ModelError, match=r"hollow\.data"):
        runtime.load_model(path)


@pytest.mark.parametrize("device", ["AUTO", "CPU"])
def test_a_model_that_no_device_can_compile(runtime, refuses, models, device):
    error = refuses(
        "CompileError",
        ["uncompilable.onnx", f"no device of '{device}'", "CPU:", "Mystery", "choose another"],
        runtime.load_model,
        models / "onnx/uncompilable.onnx",
        device,
    )
    assert "CPU" in {label.rpartition("/")[2] for label in error.reasons}  # on a cluster node/CPU


# -- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backend_name", ["caffe", "OpenVINO", "", None, 3, ["openvino"]])
def test_unknown_backends(package, refuses, backend_name):
    words = [repr(str(backend_name)), "'openvino'", "'onnxruntime'", "'tensorrt'"]
    refuses("UnknownBackendError", words, package.InferenceRuntime, backend_name)


@pytest.mark.parametrize("device", ["XPU", "GPU.77", "AUTO:XPU", "AUTO:XPU,YPU", "xpu"])
def test_devices_that_are_not_there(runtime, refuses, models, device):
    words = ["no device", "found", "CPU", "atriva devices"]
    refuses("DeviceNotAvailableError", words, runtime.load_model, models / "onnx/conv.onnx", device)


def test_a_node_that_is_not_there(runtime, refuses, models):
    words = ["no-such-node/CPU", "found", "CPU"]
    path = models / "onnx/conv.onnx"
    refuses("DeviceNotAvailableError", words, runtime.load_model, path, "no-such-node/CPU")


def test_excluding_every_device(runtime, refuses, models):
    kinds = sorted({device.kind for device in runtime.devices()})
    expression = "AUTO:" + ",".join(f"-{kind}" for kind in kinds)
    words = [expression, "found", "CPU"]
    path = models / "onnx/conv.onnx"
    refuses("DeviceNotAvailableError", words, runtime.load_model, path, expression)


@pytest.mark.parametrize(
    "device",
    ["", "  ", "AUTO:", "AUTO:CPU,", "MULTI", "MULTI:", "CPU GPU", "/CPU", "-CPU", None, 1],
)
def test_texts_that_are_no_device_expression(runtime, refuses, models, device):
    words = ["device", repr(str(device)), "expected", "GPU"]
    refuses("OptionError", words, runtime.load_model, models / "onnx/conv.onnx", device)


@pytest.mark.parametrize("hint", ["FAST", "", None, 3])
def test_unknown_hints(runtime, refuses, models, hint):
    words = ["performance_hint", repr(str(hint)), "LATENCY, THROUGHPUT, CUMULATIVE_THROUGHPUT"]
    path = models / "onnx/conv.onnx"
    refuses("OptionError", words, runtime.load_model, path, performance_hint=hint)


@pytest.mark.parametrize("device", ["CPU", "AUTO", "MULTI:CPU", "HETERO:CPU"])
def test_an_unknown_config_key(runtime, backend, only_with, refuses, models, device):
    if ":" in device:
        only_with("openvino", "ONNX Runtime has no devices that work together")
    words = ["config", "NO_SUCH_KEY"]
    words.append("PERFORMANCE_HINT" if backend == "openvino" else "SessionOptions")
    config = {"NO_SUCH_KEY": 1}
    path = models / "onnx/conv.onnx"
    refuses("OptionError", words, runtime.load_model, path, device, config=config)


def test_a_config_value_that_the_backend_refuses(runtime, backend, refuses, models):
    key = {"openvino": "NUM_STREAMS", "onnxruntime": "intra_op_num_threads"}[backend]
    path = models / "onnx/conv.onnx"
    words = ["config", f"{key}=many"]
    refuses("OptionError", words, runtime.load_model, path, "CPU", config={key: "many"})


@pytest.mark.parametrize("config", [[1], "NUM_STREAMS", {1: 2}, 5])
def test_a_config_that_is_no_dict_of_names(runtime, refuses, models, config):
    words = ["config", "a dict of property name to value"]
    refuses("OptionError", words, runtime.load_model, models / "onnx/conv.onnx", config=config)


@pytest.mark.parametrize("device", ["HETERO:CPU", "BATCH:CPU"])
def test_devices_that_do_not_work_together(runtime, only_with, refuses, models, device):
    only_with("onnxruntime", "those of OpenVINO do")
    words = ["device", device, "one device or AUTO"]
    refuses("OptionError", words, runtime.load_model, models / "onnx/conv.onnx", device)


# -- tensors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        ([], "InputShapeError", ["has shape 0", "pass at least one"]),
        (np.empty((0, 3)), "InputShapeError", ["0×3", "pass at least one"]),
        ([[1, 2], [3]], "InputDtypeError", ["ragged", "inhomogeneous"]),
        (np.array([None, {}]), "InputDtypeError", ["object", "numeric"]),
        (None, "InputDtypeError", ["object", "numeric"]),
        (np.array(["2020-01-01"], "datetime64[D]"), "InputDtypeError", ["datetime64", "numeric"]),
        (np.zeros(3, [("x", "f4")]), "InputDtypeError", ["'x'", "numeric"]),
    ],
    ids=["empty list", "no rows", "ragged", "objects", "None", "dates", "records"],
)
def test_arrays_that_are_no_tensors(runtime, refuses, array, error, words):
    refuses(error, ["array", *words], runtime.tensor_from_numpy, array)


@pytest.mark.parametrize(
    ("shape", "error", "words"),
    [
        ((1, 3, 9, 9), "InputShapeError", ["1×3×8×8", "(1, 3, 9, 9)", "192 elements"]),
        ((1, 3, -1, 8), "InputShapeError", ["(1, 3, -1, 8)", "positive sizes"]),
        ((0,), "InputShapeError", ["(0,)", "positive sizes"]),
        ((1, 3, 8.0, 8), "OptionError", ["8.0", "whole numbers"]),
        ((1, 3, "h", "w"), "OptionError", ["'h'", "whole numbers"]),
        (192, "OptionError", ["192", "one per axis"]),
    ],
)
def test_shape_overrides_that_do_not_fit(runtime, refuses, expected, shape, error, words):
    array = expected["x_nchw"]
    refuses(error, words, runtime.tensor_from_numpy, array, shape_override=shape)


@pytest.mark.parametrize(
    ("layout", "error", "words"),
    [
        ("NCCW", "OptionError", ["'NCCW'", "distinct letters"]),
        ("N C H W", "OptionError", ["distinct letters"]),
        ("", "OptionError", ["distinct letters"]),
        (4, "OptionError", ["'4'", "distinct letters"]),
        ("HWC", "InputShapeError", ["'HWC'", "3 axes", "1×3×8×8", "one letter per axis"]),
    ],
)
def test_layouts_that_do_not_fit(runtime, refuses, expected, layout, error, words):
    refuses(error, words, runtime.tensor_from_numpy, expected["x_nchw"], layout=layout)


# -- inputs ----------------------------------------------------------------------------------

A = np.ones((2, 4), np.float32)
B = np.ones((2, 4), np.int64)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, ["missing input 'a', 'b'"]),
        ({"a": A}, ["missing input 'b'", "inputs are 'a', 'b'"]),
        ({"a": A, "c": B}, ["unknown", "'c'", "missing input 'b'", "inputs are 'a', 'b'"]),
        ({"a": A, "b": B, "c": B}, ["unknown", "'c'", "inputs are 'a', 'b'"]),
        ({"A": A, "b": B}, ["unknown", "'A'", "missing input 'a'"]),
        ({0: A, 1: B}, ["unknown", "'0', '1'", "missing input 'a', 'b'"]),
    ],
)
def test_input_names(multi, refuses, inputs, words):
    refuses("InputNameError", words, multi.run, inputs)


@pytest.mark.parametrize("inputs", [None, A, [A, B], "a", 3, [("a", A), ("b", B)]])
def test_inputs_that_are_no_dict(multi, refuses, inputs):
    words = ["inputs", type(inputs).__name__, '{"name": tensor}']
    refuses("InputDtypeError", words, multi.run, inputs)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((3, 8, 8)), ["3×8×8", "rank 4"]),
        (np.ones(3), ["has shape 3,", "rank 4"]),
        (5.0, ["scalar", "rank 4"]),
        (np.ones((1, 3, 8, 9)), ["1×3×8×9", "of that shape"]),
        (np.ones((2, 3, 8, 8)), ["2×3×8×8", "of that shape"]),
        (np.ones((1, 8, 8, 3)), ["1×8×8×3", "of that shape"]),
        (np.ones((1, 3, 0, 8)), ["1×3×0×8"]),
        ([], ["has shape 0,"]),
    ],
)
def test_shapes(conv, refuses, array, words):
    words = ["'input'", "the model takes 1×3×8×8", *words]
    refuses("InputShapeError", words, conv.run, {"input": array})


def test_an_empty_array_does_not_fit_a_dynamic_dimension_either(package, multi, refuses):
    for value in (np.ones((0, 4), np.int32), package.Tensor(np.ones((0, 4), np.int32))):
        words = ["'b'", "0×4", "no elements"]
        refuses("InputShapeError", words, multi.run, {"a": A, "b": value})


def test_a_layout_that_is_not_the_arrays_is_named(runtime, conv, refuses, expected):
    tensor = runtime.tensor_from_numpy(expected["x_nchw"], layout="NHWC")
    words = ["'input'", "1×3×8×8", "taken as NHWC", "layout='NCHW'"]
    refuses("InputShapeError", words, conv.run, {"input": tensor})


def test_a_layout_of_other_axes_is_named(runtime, conv, refuses, expected):
    tensor = runtime.tensor_from_numpy(expected["x_nchw"], layout="NTHW")
    words = ["'input'", "NTHW cannot become the model's NCHW"]
    refuses("InputShapeError", words, conv.run, {"input": tensor})


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (A, ["float32", "astype('int64')"]),
        (A.astype(np.complex64), ["complex64", "astype('int64')"]),
        (np.full((2, 4), 2**63, np.uint64), ["uint64", "9223372036854775808", "do not fit"]),
        (np.full((2, 4), "1"), ["<U1", "text and numbers"]),
        (np.full((2, 4), None), ["object"]),
        ([[1, 2], [3]], ["ragged", "inhomogeneous"]),
        (A.astype("datetime64[s]"), ["datetime64"]),
    ],
    ids=["float", "complex", "too large", "text", "objects", "ragged", "dates"],
)
def test_types_that_would_lose_something(multi, refuses, array, words):
    words = ["'b'", "the model takes int64", *words]
    refuses("InputDtypeError", words, multi.run, {"a": A, "b": array})
    assert np.array_equal(multi.run({"a": A, "b": B})["count"].to_numpy(), [4, 4])


@pytest.mark.parametrize("value", [1e39, -1e300])
def test_numbers_too_large_for_the_models_floats(conv, refuses, value):
    array = np.zeros((1, 3, 8, 8))
    array[0, 0, 0, 0] = value
    words = ["'input'", "float64", "the model takes float32", "too large", "scale them"]
    refuses("InputDtypeError", words, conv.run, {"input": array})


@pytest.mark.parametrize("array", [np.full((2, 4), 70_000), np.full((2, 4), 1e5, np.float32)])
def test_numbers_too_large_for_half_precision(half, refuses, array):
    words = ["'input'", "the model takes float16", "too large"]
    refuses("InputDtypeError", words, half.run, {"input": array})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e-300])
def test_nan_and_infinity_are_numbers_like_any_other(half, value):
    given = np.full((1, 4), value)
    output = half.run({"input": given})["output"].to_numpy()
    assert np.array_equal(output, given.astype(np.float16) * 2 + 1, equal_nan=True)


def test_an_input_larger_than_a_request_may_be(runtime, dynamic, refuses):
    # Three gigabytes by its shape; in memory it is one number.
    huge = np.broadcast_to(np.float32(1), (1, 3, 16384, 16384))
    words = ["'input'", "3,221,225,472", "2,147,483,648", "ATRIVA_MAX_INPUT_BYTES"]

    refuses("InputSizeError", words, dynamic.run, {"input": huge})
    tensor = runtime.tensor_from_numpy(huge, shape_override=huge.shape)
    refuses("InputSizeError", words, dynamic.run, {"input": tensor})


def test_the_limit_can_be_set(conv, refuses, expected, monkeypatch):
    inputs = {"input": expected["x_nchw"]}
    monkeypatch.setenv("ATRIVA_MAX_INPUT_BYTES", "767")
    refuses("InputSizeError", ["768", "767"], conv.run, inputs)
    monkeypatch.setenv("ATRIVA_MAX_INPUT_BYTES", "768")
    conv.run(inputs)
    monkeypatch.setenv("ATRIVA_MAX_INPUT_BYTES", "2GB")
    refuses("OptionError", ["ATRIVA_MAX_INPUT_BYTES", "'2GB'", "bytes"], conv.run, inputs)


def _by_request(model, inputs):
    request = model.create_async_request()
    request.start(inputs)
    return request.wait()


WAYS = {
    "run": lambda model, inputs: model.run(inputs),
    "submit": lambda model, inputs: model.submit(inputs).result(),
    "run_async": lambda model, inputs: asyncio.run(model.run_async(inputs)),
    "stream": lambda model, inputs: model.create_stream().run(inputs),
    "map": lambda model, inputs: next(model.create_stream().map([inputs])),
    "request": _by_request,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ({"picture": A}, "InputNameError", ["'picture'", "'data', 'shape'"]),
        ({"data": A, "shape": [2, 2]}, "InputShapeError", ["'data'", "2×4"]),
        ({"data": A[0], "shape": [2.0, 2.0]}, "InputDtypeError", ["'shape'", "float64"]),
        ({"data": A[0], "shape": [3, 3]}, "InferenceFailedError", ["data_dependent", "CPU"]),
    ],
    ids=["name", "shape", "dtype", "data"],
)
def test_every_way_of_running_raises_the_same(data_dependent, refuses, way, inputs, error, words):
    refuses(error, words, WAYS[way], data_dependent, inputs)

    good = {"data": np.arange(4.0), "shape": [2, 2]}
    output = WAYS[way](data_dependent, good)["output"].to_numpy()
    assert np.array_equal(output, [[0, 1], [2, 3]])


def test_a_failure_leaves_nothing_behind(package, multi):
    """A library may keep half of the shapes of the request that failed."""
    for _ in range(5):
        for _ in range(2):
            with pytest.raises(package.InferenceFailedError):
                multi.run({"a": A, "b": np.ones((3, 4), np.int64)})
        for rows in (2, 3):
            results = multi.run({"a": np.ones((rows, 4)), "b": np.ones((rows, 4), np.int64)})
            assert np.array_equal(results["sum"].to_numpy(), np.full((rows, 4), 2))


def test_a_bad_request_fails_again_when_it_is_sent_again(package, data_dependent):
    """Not with what was computed last, which a library may still have lying about."""
    data = np.arange(4.0)
    assert data_dependent.run({"data": data, "shape": [2, 2]})
    for _ in range(3):
        with pytest.raises(package.InferenceFailedError):
            data_dependent.run({"data": data, "shape": [3, 3]})


def test_failures_do_not_harm_requests_beside_them(package, multi):
    bad = {"a": A, "b": np.ones((3, 4), np.int64)}
    futures = []
    for rows in range(1, 41):
        good = {"a": np.full((rows, 4), rows), "b": np.ones((rows, 4), np.int64)}
        futures += [multi.submit(good), multi.submit(bad if rows % 8 == 0 else good)]

    for index, future in enumerate(futures):
        rows, is_second = index // 2 + 1, index % 2
        if is_second and rows % 8 == 0:
            assert isinstance(future.exception(), package.InferenceFailedError)
        else:
            output = future.result()["sum"].to_numpy()
            assert np.array_equal(output, np.full((rows, 4), rows + 1))


# -- after close -----------------------------------------------------------------------------


@pytest.mark.parametrize("way", [*WAYS, "create_stream", "create_async_request", "get_profiling"])
def test_a_closed_model(load, models, refuses, way):
    model = load(models / "onnx/conv.onnx", name="closed-soon")
    model.close()

    words = ["model 'closed-soon' is closed", "make a new one"]
    if way in WAYS:
        refuses("ClosedError", words, WAYS[way], model, {"input": np.ones((1, 3, 8, 8))})
    else:
        refuses("ClosedError", words, getattr(model, way))


def test_requests_and_streams_of_a_closed_model(load, models, refuses):
    model = load(models / "onnx/conv.onnx", name="closed-soon")
    request, stream = model.create_async_request(), model.create_stream()
    inputs = {"input": np.ones((1, 3, 8, 8))}
    model.close()

    words = ["model 'closed-soon' is closed"]
    refuses("ClosedError", words, request.start, inputs)
    refuses("ClosedError", words, stream.run, inputs)
    refuses("ClosedError", words, lambda: list(stream.map([inputs])))


def test_an_answer_outlives_its_model(load, models):
    model = load(models / "onnx/half.onnx", name="closed-soon")
    request = model.create_async_request()
    request.start({"input": A})
    result = request.wait()
    model.close()

    assert np.array_equal(result["output"].to_numpy(), 2 * A + 1)
    assert np.array_equal(request.wait()["output"].to_numpy(), 2 * A + 1)


def test_a_closed_runtime(package, backend, models, refuses, expected):
    other = package.InferenceRuntime(backend)
    other.close()

    words = ["this runtime is closed", "make a new one"]
    refuses("ClosedError", words, other.load_model, models / "onnx/conv.onnx")
    refuses("ClosedError", words, other.devices)
    refuses("ClosedError", words, other.tensor_from_numpy, expected["x_nchw"])
