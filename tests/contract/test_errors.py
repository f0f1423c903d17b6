"""The error tree: every class tells its story, and tells the same one in another process."""

from __future__ import annotations

import copy
import pickle

import pytest

# One way to make each class; a class that is missing here fails the first test.
EXAMPLES = {
    "InferenceRuntimeError": (),
    "OptionError": ("layout", "NCCW", "distinct letters"),
    "UnknownBackendError": ("caffe", ("openvino", "onnxruntime")),
    "BackendNotInstalledError": ("tensorrt", "the library 'tensorrt'", "pip install tensorrt"),
    "ModelError": (),
    "ModelNotFoundError": ("model.onnx", "on node n1"),
    "ModelUnreadableError": ("model.onnx", "openvino", "the file is empty"),
    "CompileError": ("model.onnx", "AUTO", {"GPU": "no kernel", "CPU": "no memory"}),
    "DeviceNotAvailableError": ("GPU", ("CPU", "NPU"), "on this cluster"),
    "InputError": (),
    "InputNameError": (("picture",), ("input",), ("input", "mask")),
    "InputShapeError": ("input", (1, 3, 8), (1, 3, -1, -1), "pass an array of rank 4"),
    "InputDtypeError": ("input", "complex128", "float32", "convert it yourself"),
    "InputSizeError": ("input", 3_000_000_000, 2_147_483_648),
    "RequestError": (),
    "RequestBusyError": ("conv",),
    "RequestNotStartedError": ("conv",),
    "InferenceTimeoutError": ("conv", 0.25),
    "InferenceFailedError": ("conv", "GPU.1", "out of memory"),
    "SessionError": (),
    "SessionLostError": ("conv", 7, "edge/CPU", "its replica died", "create a new session"),
    "TooManySessionsError": ("conv", "edge/CPU", 256),
    "StateError": ("total", "has no such variable", "one of sum"),
    "ClosedError": ("model 'conv'",),
    "InputFileError": ("digit.npy", "there is no such file"),
    "BatchError": ("rows do not add up",),
    "ExtraNotInstalledError": ("whole data sets", "pyarrow", "batch"),
    "FragmentFailedError": ("fragment 7", 3, "the disk is full"),
    "OutputFolderError": ("out", "it is a file"),
    "ResumeError": ("out", ("model was 1 and is 2",)),
    "TooManyBadRowsError": (4, 3, "a.png: no picture"),
    "PictureError": ("it is neither JPEG nor PNG",),
    "DeadlineExceededError": ("conv", 0.25, 0.75, ""),
    "ServeError": ("it cannot be served",),
    "BadRequestError": ("the body is not JSON",),
    "UnauthorizedError": (),
    "UnknownModelError": ("conv", "3", ("1", "2")),
    "ModelUnavailableError": ("conv", "3", "loading", "it warms up"),
    "RequestTooLargeError": (None, 8),
    "OverloadedError": (9, 8, 1.5),
    "NotSupportedError": ("tea",),
    "RepositoryError": ("models/conv", "it is empty"),
    "ClusterError": ("ray://head:10001", "connection refused"),
    "LaneError": ("m#1", "it cannot listen"),
    "ModelFilesMissingError": ("model.onnx", "n1"),
    "ModelNameConflictError": ("conv", "another device"),
    "ModelNotLoadedError": ("conv", ("digits", "faces")),
    "ReplicaLostError": ("conv", 3, "the node died"),
}


def _tree(root):
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


@pytest.fixture
def classes(package):
    """Every error class of the package and of what it builds on."""
    packages = {"atriva_inference", package.__name__}
    tree = _tree(package.InferenceRuntimeError)
    return {cls.__name__: cls for cls in tree if cls.__module__.partition(".")[0] in packages}


@pytest.fixture
def examples(classes):
    return [cls(*EXAMPLES[name]) for name, cls in classes.items()]


def test_every_class_has_an_example(classes):
    assert set(classes) - set(EXAMPLES) == set()


def test_every_class_can_be_imported_from_the_package(package, classes):
    for name, cls in classes.items():
        assert getattr(package, name) is cls
        assert name in package.__all__


@pytest.mark.parametrize(
    "send",
    [
        *(lambda e, v=v: pickle.loads(pickle.dumps(e, v)) for v in range(6)),  # noqa: S301 - our own
        copy.copy,
        copy.deepcopy,
    ],
    ids=[*(f"pickle {version}" for version in range(6)), "copy", "deepcopy"],
)
def test_an_error_stays_itself_on_its_way_to_another_process(examples, send):
    for error in examples:
        arrived = send(error)
        assert type(arrived) is type(error)
        assert vars(arrived) == vars(error)
        assert str(arrived) == str(error)


def test_one_class_catches_them_all(package, examples):
    assert all(isinstance(error, package.InferenceRuntimeError) for error in examples)


def test_a_timeout_is_a_timeout(package):
    assert issubclass(package.InferenceTimeoutError, TimeoutError)


@pytest.mark.parametrize(
    ("name", "parents"),
    [
        ("UnknownBackendError", ["OptionError"]),
        ("CompileError", ["ModelError"]),
        ("ModelNotFoundError", ["ModelError"]),
        ("ModelUnreadableError", ["ModelError"]),
        ("InputNameError", ["InputError"]),
        ("InputShapeError", ["InputError"]),
        ("InputDtypeError", ["InputError"]),
        ("InputSizeError", ["InputError"]),
        ("RequestBusyError", ["RequestError"]),
        ("RequestNotStartedError", ["RequestError"]),
        ("InferenceTimeoutError", ["RequestError"]),
        ("InferenceFailedError", ["RequestError"]),
    ],
)
def test_kin_can_be_caught_together(package, name, parents):
    for parent in parents:
        assert issubclass(getattr(package, name), getattr(package, parent))


def test_a_message_holds_everything_the_error_was_made_from(classes):
    for name, arguments in EXAMPLES.items():
        if name not in classes:
            continue
        message = str(classes[name](*arguments))
        assert "object at" not in message
        assert "None" not in message
        for words in _words(arguments):
            assert words in message, f"{name}: {words!r} is not in {message!r}"


def _words(value):
    match value:
        case str():
            yield value
        case dict():
            for key, entry in value.items():
                yield from (key, entry)
        case (int(), *_) if all(isinstance(number, int) for number in value):
            yield "×".join(str(number) if number > 0 else "?" for number in value)
        case tuple():
            for entry in value:
                yield from _words(entry)
        case int() | float():
            yield f"{value:,}"


def test_a_shape_error_where_no_model_is_known_names_none(package):
    error = package.InputShapeError("array", (0,), None, "pass at least one element")
    assert str(error) == "input 'array' has shape 0; pass at least one element"
    assert error.expected is None
