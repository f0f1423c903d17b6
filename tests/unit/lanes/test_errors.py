"""Errors on a lane: the same class with the same fields at the other end, and nothing else."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import atriva_inference.errors as inference_errors
import atriva_ray.errors as cluster_errors
from atriva_inference.errors import InferenceFailedError, InferenceRuntimeError
from atriva_ray.lanes.errors import MAX_ERROR_BYTES, FrameError, decode_error, encode_error

ARGUMENTS = {
    "BackendNotInstalledError": ("openvino", "libopenvino", "pip install openvino"),
    "ClosedError": ("model 'm'",),
    "CompileError": ("m.onnx", "AUTO", {"NPU": "too large", "CPU": "no"}),
    "DeviceNotAvailableError": ("GPU.7", ("CPU", "NPU"), "on node 3"),
    "InferenceFailedError": ("m", "CPU", "Größe × 2 passt nicht 😀"),
    "InferenceTimeoutError": ("m", 0.25),
    "InputDtypeError": ("x", "float64", "int8", "scale it"),
    "InputError": ("nothing fits",),
    "InputNameError": (("z",), ("x", "y"), ("x", "y")),
    "InputShapeError": ("x", (1, 2), (1, -1), "pass another"),
    "InputSizeError": ("x", 5 * 2**30, 2**31),
    "ModelError": ("broken",),
    "ModelNotFoundError": ("m.onnx", "anywhere"),
    "ModelUnreadableError": ("m.onnx", "openvino", "no model"),
    "OptionError": ("layout", "NCXX", "letters"),
    "RequestBusyError": ("m",),
    "RequestError": ("broken",),
    "RequestNotStartedError": ("m",),
    "SessionError": ("broken",),
    "SessionLostError": ("m", 4, "node/CPU", "it died", "create a new one"),
    "StateError": ("total", "has shape 3", "float32 1×3"),
    "TooManySessionsError": ("m", "CPU", 256),
    "UnknownBackendError": ("tpu", ("openvino", "onnxruntime")),
    "ClusterError": ("10.0.0.1:6379", "nobody there"),
    "InputFileError": ("a.png", "no picture"),
    "LaneError": ("a replica", "closed"),
    "ModelFilesMissingError": ("m.onnx", "node-1"),
    "ModelNameConflictError": ("m", "other weights"),
    "ModelNotLoadedError": ("m", ("a", "b")),
    "BatchError": ("rows do not add up",),
    "ExtraNotInstalledError": ("whole data sets", "pyarrow", "batch"),
    "FragmentFailedError": ("fragment 7", 3, "the disk is full"),
    "OutputFolderError": ("out", "it is a file"),
    "ResumeError": ("out", ("model was 1 and is 2",)),
    "TooManyBadRowsError": (4, 3, "a.png: no picture"),
    "PictureError": ("no picture",),
    "DeadlineExceededError": ("conv", 0.25),
    "ServeError": ("it cannot be served",),
    "BadRequestError": ("the body is not JSON",),
    "UnauthorizedError": (),
    "UnknownModelError": ("conv", "3", ("1", "2")),
    "ModelUnavailableError": ("conv", "3", "loading", "it warms up"),
    "RequestTooLargeError": (9, 8),
    "OverloadedError": (9, 8, 1.5),
    "NotSupportedError": ("tea",),
    "RepositoryError": ("models/conv", "it is empty"),
    "ReplicaLostError": ("m", 3, "killed"),
}

CLASSES = {
    name: value
    for module in (inference_errors, cluster_errors)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, InferenceRuntimeError)
}


def over(error):
    text = encode_error(error, "the model", "a device")
    assert len(text) <= MAX_ERROR_BYTES
    return decode_error(text)


def test_every_error_class_is_tried_here():
    assert set(CLASSES) - {"InferenceRuntimeError"} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_an_error_arrives_with_its_class_and_its_fields(name):
    error = CLASSES[name](*ARGUMENTS[name])
    received = over(error)
    assert type(received) is type(error)
    assert received.args == error.args
    assert vars(received) == vars(error)
    assert str(received) == str(error)


def test_a_shape_without_expectation_arrives():
    error = CLASSES["InputShapeError"]("x", (), None, "no")
    assert vars(over(error)) == vars(error)


class HomemadeError(Exception):
    """Of a program, not of this project."""


class HomemadeRequestError(cluster_errors.ReplicaLostError):
    """A subclass that the other end does not know."""


@pytest.mark.parametrize(
    "error",
    [
        HomemadeError("broken"),
        HomemadeRequestError("m", 1, "broken"),
        ValueError("broken"),
        MemoryError("broken"),
        KeyboardInterrupt("broken"),
        InferenceRuntimeError("broken"),
        FrameError("broken"),
        CLASSES["ClusterError"](object(), "broken"),
        CLASSES["ClusterError"]({1, 2}, "broken"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_other_error_arrives_as_a_failed_inference_that_says_it(error):
    received = over(error)
    assert type(received) is InferenceFailedError
    assert (received.model, received.device) == ("the model", "a device")
    assert type(error).__name__ in received.reason
    assert "broken" in received.reason


class SilentError(Exception):
    """Cannot even say what it is."""

    def __str__(self):
        raise ValueError("not even that")


def test_an_error_that_cannot_be_written_arrives_by_its_class_name():
    received = over(SilentError())
    assert type(received) is InferenceFailedError
    assert "SilentError" in received.reason


@pytest.mark.parametrize("letter", ["x", "\\", "\n", "é", "漢", "😀", "\ud800"])
@pytest.mark.parametrize("length", [3_000, 40_000, 1_000_000])
@pytest.mark.parametrize("make", [ValueError, lambda text: InferenceFailedError("m", "CPU", text)])
def test_an_error_with_a_huge_text_fits_and_arrives(make, length, letter):
    received = over(make(letter * length))
    assert type(received) is InferenceFailedError
    assert letter in received.reason


def test_a_model_with_a_huge_name_does_not_make_its_errors_too_large():
    text = encode_error(ValueError("broken"), "m" * 100_000, "d" * 100_000)
    assert len(text) <= MAX_ERROR_BYTES
    assert isinstance(decode_error(text), InferenceFailedError)


# -- hostile texts -------------------------------------------------------------------------------

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400)])
    | st.floats()
    | st.text(max_size=6),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=3)
    ),
    max_leaves=8,
)


def decode_or_refuse(text):
    try:
        error = decode_error(text)
    except FrameError:
        return
    assert isinstance(error, InferenceRuntimeError)
    assert isinstance(str(error), str)


@given(st.sampled_from([*CLASSES, "Exception", "FrameError"]), values)
@example("InferenceTimeoutError", ["m", 10**400])
@example("InputSizeError", ["m", 1.5, float("inf")])
def test_any_arguments_make_an_error_or_are_refused(name, arguments):
    decode_or_refuse(json.dumps([name, arguments]).encode())


@given(values)
def test_any_json_is_an_error_or_is_refused(value):
    decode_or_refuse(json.dumps(value).encode())


@given(st.binary(max_size=60))
def test_any_bytes_are_an_error_or_are_refused(text):
    decode_or_refuse(text)


@pytest.mark.parametrize(
    "value",
    [
        ["SystemExit", [0]],
        ["ValueError", ["x"]],
        ["InferenceRuntimeError", ["x"]],
        ["Sequence", []],
        ["format_shape", [[1, 2]]],
        ["__builtins__", []],
        [["ClosedError"], ["x"]],
        [None, ["x"]],
        ["ClosedError", []],
        ["ClosedError", ["x", "y"]],
        ["ClosedError", 1],
        ["ClosedError"],
        ["ClosedError", ["x"], 1],
        ["InputShapeError", ["x", "12", None, "h"]],
        ["InputShapeError", ["x", 12, None, "h"]],
        ["CompileError", ["x", "y", "reasons"]],
        ["DeviceNotAvailableError", ["x", [1], "y"]],
        {"ClosedError": ["x"]},
        "ClosedError",
        1,
        None,
    ],
    ids=str,
)
def test_what_is_no_error_of_this_project_is_refused(value):
    with pytest.raises(FrameError):
        decode_error(json.dumps(value).encode())


@pytest.mark.parametrize("text", [b"", b"[", b"\xff", b"[" * 30_000, b"9" * 10_000])
def test_what_cannot_be_read_is_refused(text):
    with pytest.raises(FrameError):
        decode_error(text)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_an_error_is_read_from_any_kind_of_bytes(wrap):
    text = encode_error(CLASSES["ClosedError"]("x"), "m", "d")
    assert decode_error(wrap(text)).what == "x"
