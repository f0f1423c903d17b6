"""Every error this project raises on purpose, as one tree.

::

    InferenceRuntimeError
    ├── OptionError                 an argument has a value that is not one of the choices
    │   └── UnknownBackendError
    ├── BackendNotInstalledError    the backend exists, its library does not
    ├── ModelError
    │   ├── ModelNotFoundError
    │   ├── ModelUnreadableError
    │   └── CompileError            no candidate device could compile the model
    ├── DeviceNotAvailableError
    ├── InputError
    │   ├── InputNameError
    │   ├── InputShapeError
    │   ├── InputDtypeError
    │   ├── InputSizeError
    │   └── StateError              what a session is to remember does not fit the model
    ├── RequestError
    │   ├── RequestBusyError
    │   ├── RequestNotStartedError
    │   ├── InferenceTimeoutError   (also a TimeoutError)
    │   ├── InferenceFailedError    the backend itself failed while it ran
    │   └── SessionError
    │       ├── SessionLostError    what a session remembered is gone
    │       └── TooManySessionsError
    └── ClosedError

Every constructor argument reaches ``Exception.args``, so an error that crosses a process keeps
its class and its fields; the message is built from the fields on demand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = [
    "BackendNotInstalledError",
    "ClosedError",
    "CompileError",
    "DeviceNotAvailableError",
    "InferenceFailedError",
    "InferenceRuntimeError",
    "InferenceTimeoutError",
    "InputDtypeError",
    "InputError",
    "InputNameError",
    "InputShapeError",
    "InputSizeError",
    "ModelError",
    "ModelNotFoundError",
    "ModelUnreadableError",
    "OptionError",
    "RequestBusyError",
    "RequestError",
    "RequestNotStartedError",
    "SessionError",
    "SessionLostError",
    "StateError",
    "TooManySessionsError",
    "UnknownBackendError",
    "format_shape",
]


def format_shape(shape: Sequence[int]) -> str:
    """Write a shape for a person: ``1×3×?×?``, with ``?`` for a dynamic dimension."""
    return "×".join("?" if dim < 0 else str(dim) for dim in shape) or "scalar"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"


class InferenceRuntimeError(Exception):
    """The root: catching this catches everything the project raises on purpose."""


class OptionError(InferenceRuntimeError):
    """An argument has a value that is not acceptable.

    Attributes:
        option: name of the argument.
        value: what was passed, as text.
        expected: what would have been accepted, as a phrase.
    """

    def __init__(self, option: str, value: str, expected: str) -> None:
        super().__init__(option, value, expected)
        self.option = option
        self.value = value
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.option}={self.value!r} is not acceptable; expected {self.expected}"


class UnknownBackendError(OptionError):
    """No backend of this name is registered."""

    def __init__(self, value: str, backends: Sequence[str]) -> None:
        super().__init__("backend", value, f"one of {_listed(backends)}")
        self.args = (value, tuple(backends))
        self.backends = tuple(backends)


class BackendNotInstalledError(InferenceRuntimeError):
    """The backend is known, but the library behind it cannot be imported or has no such support.

    Attributes:
        backend: the backend that was asked for.
        missing: what is not there.
        install: the command that installs it.
    """

    def __init__(self, backend: str, missing: str, install: str) -> None:
        super().__init__(backend, missing, install)
        self.backend = backend
        self.missing = missing
        self.install = install

    def __str__(self) -> str:
        return (
            f"backend {self.backend!r} needs {self.missing}, which is not installed; "
            f"install it with: {self.install}"
        )


class ModelError(InferenceRuntimeError):
    """Something is wrong with a model, rather than with a request to it."""


class ModelNotFoundError(ModelError):
    """There is no such file.

    Attributes:
        path: the path that was asked for.
        where: the places that were looked at, as a phrase.
    """

    def __init__(self, path: str, where: str = "here") -> None:
        super().__init__(path, where)
        self.path = path
        self.where = where

    def __str__(self) -> str:
        return f"no model file {self.path!r} {self.where}; check the path"


class ModelUnreadableError(ModelError):
    """The file is there, but it is not a model that this backend can read."""

    def __init__(self, path: str, backend: str, reason: str) -> None:
        super().__init__(path, backend, reason)
        self.path = path
        self.backend = backend
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.backend} cannot read {self.path!r} as a model: {self.reason}"


class CompileError(ModelError):
    """Devices are there, but none of the candidates could compile the model.

    Attributes:
        path: the model.
        requested: the device expression that was asked for.
        reasons: what each candidate device answered.
    """

    def __init__(self, path: str, requested: str, reasons: Mapping[str, str]) -> None:
        super().__init__(path, requested, dict(reasons))
        self.path = path
        self.requested = requested
        self.reasons = dict(reasons)

    def __str__(self) -> str:
        tried = "; ".join(f"{device}: {reason}" for device, reason in self.reasons.items())
        return (
            f"no device of {self.requested!r} can compile {self.path!r} ({tried}); "
            "choose another device or another model"
        )


class DeviceNotAvailableError(InferenceRuntimeError):
    """The device that was asked for is not among those that are there."""

    def __init__(self, requested: str, available: Sequence[str], where: str = "here") -> None:
        super().__init__(requested, tuple(available), where)
        self.requested = requested
        self.available = tuple(available)
        self.where = where

    def __str__(self) -> str:
        return (
            f"no device {self.requested!r} {self.where}; "
            f"found {', '.join(self.available) or 'none'} (`atriva devices` lists them)"
        )


class InputError(InferenceRuntimeError):
    """A request's inputs do not fit the model; nothing was run."""


class InputNameError(InputError):
    """An input is missing, or a name is not one of the model's."""

    def __init__(
        self, unknown: Sequence[str], missing: Sequence[str], names: Sequence[str]
    ) -> None:
        super().__init__(tuple(unknown), tuple(missing), tuple(names))
        self.unknown = tuple(unknown)
        self.missing = tuple(missing)
        self.names = tuple(names)

    def __str__(self) -> str:
        parts = []
        if self.unknown:
            parts.append(f"unknown or repeated input name {_listed(self.unknown)}")
        if self.missing:
            parts.append(f"missing input {_listed(self.missing)}")
        return f"{' and '.join(parts)}; the model's inputs are {_listed(self.names)}"


class InputShapeError(InputError):
    """An input's shape does not fit the model's.

    Attributes:
        name: the input, or the argument where no model is known yet.
        shape: the shape that was passed.
        expected: the model's shape with -1 for a dynamic dimension; None where it sets none.
        hint: what to do.
    """

    def __init__(
        self, name: str, shape: Sequence[int], expected: Sequence[int] | None, hint: str
    ) -> None:
        wanted = None if expected is None else tuple(expected)
        super().__init__(name, tuple(shape), wanted, hint)
        self.name = name
        self.shape = tuple(shape)
        self.expected = wanted
        self.hint = hint

    def __str__(self) -> str:
        takes = "" if self.expected is None else f", the model takes {format_shape(self.expected)}"
        return f"input {self.name!r} has shape {format_shape(self.shape)}{takes}; {self.hint}"


class InputDtypeError(InputError):
    """An input's element type cannot become the model's without losing values."""

    def __init__(self, name: str, dtype: str, expected: str, hint: str) -> None:
        super().__init__(name, dtype, expected, hint)
        self.name = name
        self.dtype = dtype
        self.expected = expected
        self.hint = hint

    def __str__(self) -> str:
        return f"input {self.name!r} is {self.dtype}, the model takes {self.expected}; {self.hint}"


class InputSizeError(InputError):
    """An input is larger than one request may be."""

    def __init__(self, name: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(name, size_bytes, limit_bytes)
        self.name = name
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"input {self.name!r} has {self.size_bytes:,} bytes, a request may have at most "
            f"{self.limit_bytes:,}; split it, or raise ATRIVA_MAX_INPUT_BYTES"
        )


class StateError(InputError):
    """What a session is to remember does not fit the model; nothing was changed.

    Attributes:
        name: the variable that was named.
        problem: what is wrong with it, as a phrase.
        expected: what would have been accepted, as a phrase.
    """

    def __init__(self, name: str, problem: str, expected: str) -> None:
        super().__init__(name, problem, expected)
        self.name = name
        self.problem = problem
        self.expected = expected

    def __str__(self) -> str:
        return f"state {self.name!r} {self.problem}; expected {self.expected}"


class RequestError(InferenceRuntimeError):
    """A request could not be started, awaited or finished."""


class RequestBusyError(RequestError):
    """`start` was called on a request that still runs."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return (
            f"this request to {self.model!r} still runs; wait() for it first, "
            "or create another request to run several at once"
        )


class RequestNotStartedError(RequestError):
    """`wait` was called on a request that was never started."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model

    def __str__(self) -> str:
        return f"this request to {self.model!r} was not started; call start(inputs) before wait()"


class InferenceTimeoutError(RequestError, TimeoutError):
    """The answer did not come in time; the request itself goes on."""

    def __init__(self, model: str, timeout_s: float) -> None:
        super().__init__(model, timeout_s)
        self.model = model
        self.timeout_s = timeout_s

    def __str__(self) -> str:
        return (
            f"no answer from {self.model!r} within {self.timeout_s:g} s; "
            "the request still runs and can be awaited again"
        )


class InferenceFailedError(RequestError):
    """The backend accepted the inputs and then failed while it ran the model."""

    def __init__(self, model: str, device: str, reason: str) -> None:
        super().__init__(model, device, reason)
        self.model = model
        self.device = device
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.model!r} failed on {self.device}: {self.reason}"


class SessionError(RequestError):
    """Something is wrong with a session, rather than with a request of it."""


class SessionLostError(SessionError):
    """What a session remembered is gone, and no request goes on without it.

    Attributes:
        model: the model's name.
        session: the session's number.
        where: the replica, or the device in one process.
        reason: why.
        remedy: what to do.
    """

    def __init__(self, model: str, session: int, where: str, reason: str, remedy: str) -> None:
        super().__init__(model, session, where, reason, remedy)
        self.model = model
        self.session = session
        self.where = where
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return (
            f"session {self.session} of {self.model!r} on {self.where} is lost: {self.reason}; "
            f"{self.remedy}"
        )


class TooManySessionsError(SessionError):
    """A model has as many sessions as it may."""

    def __init__(self, model: str, where: str, limit: int) -> None:
        super().__init__(model, where, limit)
        self.model = model
        self.where = where
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.model!r} may have {self.limit:,} sessions open at once on {self.where}, and "
            "has; close some, load more replicas, or raise ATRIVA_MAX_SESSIONS there"
        )


class ClosedError(InferenceRuntimeError):
    """Something was used after it was closed."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is closed; make a new one"
