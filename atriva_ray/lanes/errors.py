"""What can go wrong on a lane itself, and how a request's own error travels on one."""

from __future__ import annotations

import json

import atriva_inference.errors as inference_errors
import atriva_ray.errors as cluster_errors
from atriva_inference.errors import InferenceFailedError, InferenceRuntimeError

__all__ = ["FrameError", "decode_error", "encode_error"]

MAX_ERROR_BYTES = 32 * 1024
_MAX_TEXT_LENGTH = 800
"""Of each of three texts; a character takes up to 12 bytes of JSON."""


class FrameError(Exception):
    """The other end sent what no sound peer sends; its lane is closed, and no user sees this."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def encode_error(error: BaseException, model: str, device: str) -> bytes:
    """Write an error as JSON: its class's name and its arguments.

    One that is not of this project, or too large to send, becomes an `InferenceFailedError`.
    """
    if isinstance(error, InferenceRuntimeError) and type(error).__name__ in _classes():
        try:
            text = json.dumps([type(error).__name__, error.args]).encode()
        except (TypeError, ValueError):
            text = b""
        if 0 < len(text) <= MAX_ERROR_BYTES:
            return text
    texts = [text[:_MAX_TEXT_LENGTH] for text in (model, device, _described(error))]
    return json.dumps([InferenceFailedError.__name__, texts]).encode()


def decode_error(text: bytes | bytearray | memoryview) -> InferenceRuntimeError:
    """Make the error again; only this project's classes, and only from plain values.

    Raises:
        FrameError: it is none.
    """
    try:
        name, arguments = json.loads(bytes(text))
        error = _classes()[name](*arguments)
        str(error)  # fields of the wrong types show here
    except (
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as e:
        raise FrameError(f"an error that cannot be read ({type(e).__name__})") from None
    return error


def _described(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - other people's errors may do anything in their messages
        return type(error).__name__


def _classes() -> dict[str, type[InferenceRuntimeError]]:
    return {
        name: value
        for module in (inference_errors, cluster_errors)
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, InferenceRuntimeError)
        and value is not InferenceRuntimeError
    }
