"""The one place where Ray's exceptions become ours."""

from __future__ import annotations

import copy

from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from atriva_inference.errors import InferenceFailedError, InferenceRuntimeError
from atriva_ray.errors import ReplicaLostError

__all__ = ["LOST", "translated", "without_traceback"]

LOST = (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    WorkerCrashedError,
)
"""What a call raises when the process that should have answered it is gone."""


def translated(error: BaseException, what: str) -> BaseException:
    """Return the error as the caller should see it.

    Args:
        error: what a Ray call raised.
        what: the model (or backend) that the call was about.

    Returns:
        An error that was raised on a replica, as it was there, with its fields; a
        `ReplicaLostError` where the process died; anything that is not Ray's, unchanged.
    """
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, InferenceRuntimeError):
            cause.__cause__ = None
            return cause
        return InferenceFailedError(what, "its replica", str(cause) or type(cause).__name__)
    if isinstance(error, LOST):
        return ReplicaLostError(what, 1, _first_line(error))
    if isinstance(error, RayError):
        return InferenceFailedError(what, "its replica", _first_line(error))
    return error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def without_traceback(error: InferenceRuntimeError) -> InferenceRuntimeError:
    """Return an equal error without a traceback, which would keep every caller's frames alive."""
    copied: InferenceRuntimeError = copy.copy(error)
    return copied.with_traceback(None)
