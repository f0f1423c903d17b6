"""What can go wrong only on a cluster, in the same tree as `atriva_inference.errors`.

::

    InferenceRuntimeError
    ├── ModelError
    │   ├── ModelNameConflictError   one name, two different models
    │   ├── ModelNotLoadedError      no model of this name is loaded (any more)
    │   └── ModelFilesMissingError   a node has neither the file nor a copy of it
    ├── RequestError
    │   └── ReplicaLostError         replicas died under a request, more often than it is retried
    ├── ClusterError                 the router or the cluster cannot be reached
    ├── LaneError                    a direct connection to a replica failed; requests go elsewhere
    ├── ExtraNotInstalledError       a library of one of the extras is missing (also an ImportError)
    ├── BatchError
    │   ├── OutputFolderError        it holds something that a job must not touch
    │   ├── ResumeError              what is to be gone on with is another job
    │   ├── TooManyBadRowsError      more rows went to quarantine than the caller allows
    │   └── FragmentFailedError      a part of the data set could not be done as a whole
    ├── ServeError                   what a client of a server is told
    │   ├── BadRequestError          it sent what cannot be understood
    │   ├── UnauthorizedError        it did not say who it is
    │   ├── UnknownModelError        there is no such model, or no such version of it
    │   ├── ModelUnavailableError    it is there, but cannot answer (yet)
    │   ├── RequestTooLargeError     it sent more than the server takes
    │   └── NotSupportedError        the protocol has it, this server does not
    ├── RepositoryError              a folder of models, or a file in it, is not as it should be
    ├── InputFileError               a file given to the command line cannot be used
    └── PictureError                 a file is no picture that can be decoded
"""

from __future__ import annotations

from collections.abc import Sequence

from atriva_inference.errors import (
    DeadlineExceededError,
    InferenceRuntimeError,
    ModelError,
    OverloadedError,
    RequestError,
)

__all__ = [
    "BadRequestError",
    "BatchError",
    "ClusterError",
    "DeadlineExceededError",
    "ExtraNotInstalledError",
    "FragmentFailedError",
    "InputFileError",
    "LaneError",
    "ModelFilesMissingError",
    "ModelNameConflictError",
    "ModelNotLoadedError",
    "ModelUnavailableError",
    "NotSupportedError",
    "OutputFolderError",
    "OverloadedError",
    "PictureError",
    "ReplicaLostError",
    "RepositoryError",
    "RequestTooLargeError",
    "ResumeError",
    "ServeError",
    "TooManyBadRowsError",
    "UnauthorizedError",
    "UnknownModelError",
]


class ModelNameConflictError(ModelError):
    """A model of this name is loaded, and it is not the one that was asked for."""

    def __init__(self, name: str, difference: str) -> None:
        super().__init__(name, difference)
        self.name = name
        self.difference = difference

    def __str__(self) -> str:
        return (
            f"a different model is already loaded as {self.name!r} ({self.difference}); "
            "choose another name, or unload that one first"
        )


class ModelNotLoadedError(ModelError):
    """No model of this name is loaded."""

    def __init__(self, name: str, loaded: Sequence[str]) -> None:
        super().__init__(name, tuple(loaded))
        self.name = name
        self.loaded = tuple(loaded)

    def __str__(self) -> str:
        names = ", ".join(repr(name) for name in self.loaded) or "none"
        return f"no model {self.name!r} is loaded on this cluster; loaded are {names}"


class ModelFilesMissingError(ModelError):
    """A node can read the model neither at its path nor from its store."""

    def __init__(self, path: str, node: str) -> None:
        super().__init__(path, node)
        self.path = path
        self.node = node

    def __str__(self) -> str:
        return (
            f"node {self.node} cannot read {self.path!r} and was not sent a copy; "
            "load it from a machine that has the file"
        )


class ReplicaLostError(RequestError):
    """The replicas that a request was sent to died before they answered."""

    def __init__(self, model: str, attempts: int, reason: str) -> None:
        super().__init__(model, attempts, reason)
        self.model = model
        self.attempts = attempts
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"a request to {self.model!r} lost its replica {self.attempts} time(s), the last one "
            f"with: {self.reason}; it was not answered and may be sent again"
        )


class ClusterError(InferenceRuntimeError):
    """The Ray cluster or its router cannot be reached."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason

    def __str__(self) -> str:
        return f"no connection to the Ray cluster at {self.address!r}: {self.reason}"


class LaneError(InferenceRuntimeError):
    """A direct connection between this program and a replica failed."""

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(peer, reason)
        self.peer = peer
        self.reason = reason

    def __str__(self) -> str:
        return f"the lane to {self.peer} failed: {self.reason}"


class InputFileError(InferenceRuntimeError):
    """An input file cannot be read as what its suffix says, or an output cannot be written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot use {self.path!r}: {self.reason}"


class PictureError(InferenceRuntimeError):
    """A file is no picture that can be decoded."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the picture cannot be used: {self.reason}"


class ExtraNotInstalledError(InferenceRuntimeError, ImportError):
    """What was asked for needs a library that only one of the package's extras installs."""

    def __init__(self, what: str, library: str, extra: str) -> None:
        super().__init__(what, library, extra)
        self.what = what
        self.library = library
        self.extra = extra

    def __str__(self) -> str:
        return (
            f"{self.what} need the library {self.library!r}: pip install 'atriva-ray[{self.extra}]'"
        )


class BatchError(InferenceRuntimeError):
    """A job over a whole data set cannot go on; what is done stays done."""


class OutputFolderError(BatchError):
    """The output folder holds something that this job must not touch."""

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder = folder
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot write to {self.folder!r}: {self.reason}"


class ResumeError(BatchError):
    """The output folder holds another job than the one to go on with."""

    def __init__(self, folder: str, differences: Sequence[str]) -> None:
        super().__init__(folder, tuple(differences))
        self.folder = folder
        self.differences = tuple(differences)

    def __str__(self) -> str:
        return (
            f"cannot go on with the job in {self.folder!r}: {'; '.join(self.differences)}. "
            "Ask for the same again, or choose another folder"
        )


class TooManyBadRowsError(BatchError):
    """More rows went to quarantine than the caller allows."""

    def __init__(self, bad_count: int, limit: int, example: str) -> None:
        super().__init__(bad_count, limit, example)
        self.bad_count = bad_count
        self.limit = limit
        self.example = example

    def __str__(self) -> str:
        return (
            f"{self.bad_count:,} rows could not be used, and at most {self.limit:,} are allowed; "
            f"one of them: {self.example}"
        )


class FragmentFailedError(BatchError):
    """A part of the data set could not be done, however often it was begun."""

    def __init__(self, fragment: str, attempts: int, reason: str) -> None:
        super().__init__(fragment, attempts, reason)
        self.fragment = fragment
        self.attempts = attempts
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.fragment} failed {self.attempts} time(s), the last one with: {self.reason}; "
            "everything else that was done is kept, resume the job when that is mended"
        )


class ServeError(InferenceRuntimeError):
    """What a client of a server is told; the server goes on."""


class BadRequestError(ServeError):
    """The client sent what cannot be understood, or does not fit the model."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class UnauthorizedError(ServeError):
    """The client gave no token, or none that is known."""

    def __str__(self) -> str:
        return "this server wants a token: send the header 'Authorization: Bearer <token>'"


class UnknownModelError(ServeError):
    """There is no such model, or no such version of it."""

    def __init__(self, name: str, version: str, known: Sequence[str]) -> None:
        super().__init__(name, version, tuple(known))
        self.name = name
        self.version = version
        self.known = tuple(known)

    def __str__(self) -> str:
        known = ", ".join(repr(each) for each in self.known) or "none"
        if self.version:
            return f"model {self.name!r} has no version {self.version!r}; its versions are {known}"
        return f"there is no model {self.name!r} here; there are {known}"


class ModelUnavailableError(ServeError):
    """The model is known but cannot answer, at least not now."""

    def __init__(self, name: str, version: str, state: str, reason: str = "") -> None:
        super().__init__(name, version, state, reason)
        self.name = name
        self.version = version
        self.state = state
        self.reason = reason

    def __str__(self) -> str:
        version = f" version {self.version}" if self.version else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"model {self.name!r}{version} is {self.state}{reason}"


class RequestTooLargeError(ServeError):
    """The client sent more bytes than the server takes."""

    def __init__(self, size_bytes: int | None, limit_bytes: int) -> None:
        super().__init__(size_bytes, limit_bytes)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        size = "" if self.size_bytes is None else f" of {self.size_bytes:,} bytes"
        return f"the request{size} is larger than this server takes ({self.limit_bytes:,} bytes)"


class NotSupportedError(ServeError):
    """The protocol has it, this server does not."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"this server does not have {self.what}"


class RepositoryError(InferenceRuntimeError):
    """A folder of models, or a file in it, is not as it should be."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot serve {self.path!r}: {self.reason}"
