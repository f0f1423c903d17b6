"""Inference over a Ray cluster with the API of ``atriva_inference``.

Everything that ``atriva_inference`` exports is here under the same name; `InferenceRuntime` and
`Model` are the cluster's, and a few names exist only on a cluster.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from atriva_inference import (
    AsyncRequest,
    BackendNotInstalledError,
    ClosedError,
    CompileError,
    Device,
    DeviceNotAvailableError,
    InferenceFailedError,
    InferenceRuntimeError,
    InferenceTimeoutError,
    InputDtypeError,
    InputError,
    InputNameError,
    InputShapeError,
    InputSizeError,
    LayerProfile,
    ModelError,
    ModelNotFoundError,
    ModelUnreadableError,
    OptionError,
    PerformanceHint,
    Port,
    Preprocessing,
    Profile,
    RequestBusyError,
    RequestError,
    RequestNotStartedError,
    Session,
    SessionError,
    SessionLostError,
    ShapeCacheInfo,
    StateError,
    Stream,
    Tensor,
    TooManySessionsError,
    UnknownBackendError,
    backend_names,
    register_backend,
)
from atriva_ray.errors import (
    BadRequestError,
    BatchError,
    ClusterError,
    DeadlineExceededError,
    ExtraNotInstalledError,
    FragmentFailedError,
    InputFileError,
    LaneError,
    ModelFilesMissingError,
    ModelNameConflictError,
    ModelNotLoadedError,
    ModelUnavailableError,
    NotSupportedError,
    OutputFolderError,
    OverloadedError,
    PictureError,
    ReplicaLostError,
    RepositoryError,
    RequestTooLargeError,
    ResumeError,
    ServeError,
    TooManyBadRowsError,
    UnauthorizedError,
    UnknownModelError,
)

if TYPE_CHECKING:
    from atriva_ray.dispatch import ReplicaUse
    from atriva_ray.model import Model
    from atriva_ray.router_handle import RouterHandle, get_router
    from atriva_ray.runtime import InferenceRuntime

__all__ = [
    "AsyncRequest",
    "BackendNotInstalledError",
    "BadRequestError",
    "BatchError",
    "ClosedError",
    "ClusterError",
    "CompileError",
    "DeadlineExceededError",
    "Device",
    "DeviceNotAvailableError",
    "ExtraNotInstalledError",
    "FragmentFailedError",
    "InferenceFailedError",
    "InferenceRuntime",
    "InferenceRuntimeError",
    "InferenceTimeoutError",
    "InputDtypeError",
    "InputError",
    "InputFileError",
    "InputNameError",
    "InputShapeError",
    "InputSizeError",
    "LaneError",
    "LayerProfile",
    "Model",
    "ModelError",
    "ModelFilesMissingError",
    "ModelNameConflictError",
    "ModelNotFoundError",
    "ModelNotLoadedError",
    "ModelUnavailableError",
    "ModelUnreadableError",
    "NotSupportedError",
    "OptionError",
    "OutputFolderError",
    "OverloadedError",
    "PerformanceHint",
    "PictureError",
    "Port",
    "Preprocessing",
    "Profile",
    "ReplicaLostError",
    "ReplicaUse",
    "RepositoryError",
    "RequestBusyError",
    "RequestError",
    "RequestNotStartedError",
    "RequestTooLargeError",
    "ResumeError",
    "RouterHandle",
    "ServeError",
    "Session",
    "SessionError",
    "SessionLostError",
    "ShapeCacheInfo",
    "StateError",
    "Stream",
    "Tensor",
    "TooManyBadRowsError",
    "TooManySessionsError",
    "UnauthorizedError",
    "UnknownBackendError",
    "UnknownModelError",
    "backend_names",
    "get_router",
    "register_backend",
]

_NEEDS_RAY = {
    "InferenceRuntime": "atriva_ray.runtime",
    "Model": "atriva_ray.model",
    "ReplicaUse": "atriva_ray.dispatch",
    "RouterHandle": "atriva_ray.router_handle",
    "get_router": "atriva_ray.router_handle",
}
"""Names whose modules import Ray; importing Ray takes a second, and deciding does not need it."""


def __getattr__(name: str) -> Any:
    """Import what needs Ray when it is first asked for."""
    if name not in _NEEDS_RAY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_NEEDS_RAY[name]), name)
    globals()[name] = value
    return value
