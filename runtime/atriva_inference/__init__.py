"""Inference in one process: one API over OpenVINO, ONNX Runtime and TensorRT.

The same program runs on a cluster when ``atriva_inference`` is replaced by ``atriva_ray``.
"""

from atriva_inference.backend import backend_names, register_backend
from atriva_inference.device import Device
from atriva_inference.errors import (
    BackendNotInstalledError,
    ClosedError,
    CompileError,
    DeviceNotAvailableError,
    InferenceFailedError,
    InferenceRuntimeError,
    InferenceTimeoutError,
    InputDtypeError,
    InputError,
    InputNameError,
    InputShapeError,
    InputSizeError,
    ModelError,
    ModelNotFoundError,
    ModelUnreadableError,
    OptionError,
    RequestBusyError,
    RequestError,
    RequestNotStartedError,
    SessionError,
    SessionLostError,
    StateError,
    TooManySessionsError,
    UnknownBackendError,
)
from atriva_inference.model import Model
from atriva_inference.options import PerformanceHint
from atriva_inference.ports import Port
from atriva_inference.preprocess import Preprocessing
from atriva_inference.profiling import LayerProfile, Profile
from atriva_inference.request import AsyncRequest
from atriva_inference.runtime import InferenceRuntime
from atriva_inference.session import Session
from atriva_inference.shape_cache import ShapeCacheInfo
from atriva_inference.stream import Stream
from atriva_inference.tensor import Tensor

__all__ = [
    "AsyncRequest",
    "BackendNotInstalledError",
    "ClosedError",
    "CompileError",
    "Device",
    "DeviceNotAvailableError",
    "InferenceFailedError",
    "InferenceRuntime",
    "InferenceRuntimeError",
    "InferenceTimeoutError",
    "InputDtypeError",
    "InputError",
    "InputNameError",
    "InputShapeError",
    "InputSizeError",
    "LayerProfile",
    "Model",
    "ModelError",
    "ModelNotFoundError",
    "ModelUnreadableError",
    "OptionError",
    "PerformanceHint",
    "Port",
    "Preprocessing",
    "Profile",
    "RequestBusyError",
    "RequestError",
    "RequestNotStartedError",
    "Session",
    "SessionError",
    "SessionLostError",
    "ShapeCacheInfo",
    "StateError",
    "Stream",
    "Tensor",
    "TooManySessionsError",
    "UnknownBackendError",
    "backend_names",
    "register_backend",
]
