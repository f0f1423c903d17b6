"""Which status a client gets for an error, over HTTP and over gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from atriva_inference.errors import (
    DeviceNotAvailableError,
    InferenceRuntimeError,
    InputError,
    ModelError,
    OptionError,
)
from atriva_ray.errors import (
    BadRequestError,
    ClusterError,
    DeadlineExceededError,
    ModelNotLoadedError,
    ModelUnavailableError,
    NotSupportedError,
    OverloadedError,
    PictureError,
    ReplicaLostError,
    RepositoryError,
    RequestTooLargeError,
    UnauthorizedError,
    UnknownModelError,
)

__all__ = ["INTERNAL", "Code", "Status", "status_of"]


class Code(Enum):
    """The codes of gRPC that are used here, by their numbers."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """What an error is to a client.

    Attributes:
        http: status over HTTP.
        code: status over gRPC.
        retry_after_s: when it is worth another try; None if it is not, or nobody knows.
    """

    http: int
    code: Code
    retry_after_s: float | None = None


_SOON_S = 1.0

_STATUSES: tuple[tuple[type[InferenceRuntimeError], Status], ...] = (
    (BadRequestError, Status(400, Code.INVALID_ARGUMENT)),
    (InputError, Status(400, Code.INVALID_ARGUMENT)),
    (OptionError, Status(400, Code.INVALID_ARGUMENT)),
    (PictureError, Status(400, Code.INVALID_ARGUMENT)),
    (RepositoryError, Status(400, Code.INVALID_ARGUMENT)),
    (UnauthorizedError, Status(401, Code.UNAUTHENTICATED)),
    (UnknownModelError, Status(404, Code.NOT_FOUND)),
    (RequestTooLargeError, Status(413, Code.RESOURCE_EXHAUSTED)),
    (NotSupportedError, Status(501, Code.UNIMPLEMENTED)),
    (ModelUnavailableError, Status(503, Code.UNAVAILABLE, _SOON_S)),
    (ModelNotLoadedError, Status(503, Code.UNAVAILABLE, _SOON_S)),
    (ReplicaLostError, Status(503, Code.UNAVAILABLE, _SOON_S)),
    (ClusterError, Status(503, Code.UNAVAILABLE, _SOON_S)),
    (DeviceNotAvailableError, Status(503, Code.UNAVAILABLE)),
    (DeadlineExceededError, Status(504, Code.DEADLINE_EXCEEDED)),
    (ModelError, Status(400, Code.INVALID_ARGUMENT)),
)

INTERNAL = Status(500, Code.INTERNAL)
"""Of whatever nobody expected."""


def status_of(error: BaseException) -> Status:
    """Return what an error is to a client; `INTERNAL` unless it is one that we raise on purpose."""
    if isinstance(error, OverloadedError):
        return Status(503, Code.RESOURCE_EXHAUSTED, error.retry_after_s)
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), INTERNAL)
