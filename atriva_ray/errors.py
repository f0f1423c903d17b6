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
    └── InputFileError               a file given to the command line cannot be used
"""

from __future__ import annotations

from collections.abc import Sequence

from atriva_inference.errors import InferenceRuntimeError, ModelError, RequestError

__all__ = [
    "ClusterError",
    "InputFileError",
    "LaneError",
    "ModelFilesMissingError",
    "ModelNameConflictError",
    "ModelNotLoadedError",
    "ReplicaLostError",
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
