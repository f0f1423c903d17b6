"""What HTTP and gRPC ask of a server: `InferenceServer`, and what it answers besides tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeAlias

from atriva_inference.ports import Port
from atriva_ray.serve.protocol.messages import InferAnswer, InferRequest

__all__ = [
    "ClassScore",
    "InferenceServer",
    "InstanceGroup",
    "InstanceKind",
    "ModelConfig",
    "ModelMetadata",
    "ModelState",
    "ModelStatistics",
    "PictureAnswer",
    "RepositoryValue",
    "ServerMetadata",
    "Timing",
]

RepositoryValue: TypeAlias = bool | int | str | bytes
"""A parameter of a load or an unload; bytes is the content of a file."""


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """Who answers.

    Attributes:
        name: the program.
        version: the program's.
        extensions: those of the protocol that it has.
    """

    name: str
    version: str
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model takes and gives.

    Attributes:
        name: the model's.
        versions: those that can be asked for.
        platform: what kind of model it is, ``openvino_ir`` for example.
        inputs: with shapes as clients send them, samples of a batch included.
        outputs: likewise.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class ModelState:
    """One line of the repository's index.

    Attributes:
        name: the model's.
        version: the version's; empty if it has none, as nothing of it was ever loaded.
        state: ``READY``, ``LOADING``, ``UNLOADING`` or ``UNAVAILABLE``; empty if never loaded.
        reason: why it is not ready.
    """

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """How often something was done, and how long it took all together."""

    count: int = 0
    total_ns: int = 0


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """What one version of a model has done since it was loaded.

    Attributes:
        name: the model's.
        version: the version's.
        last_inference_ms: when the last request was answered, since 1970; 0: none was.
        inference_count: samples that were answered.
        execution_count: times that the model ran.
        success: requests that were answered.
        fail: requests that ended with an error.
        queue: requests that waited for the model, or travelled; empty where it is not measured.
        compute: runs of the model; empty where that is not measured.
    """

    name: str
    version: str
    last_inference_ms: int = 0
    inference_count: int = 0
    execution_count: int = 0
    success: Timing = Timing()
    fail: Timing = Timing()
    queue: Timing = Timing()
    compute: Timing = Timing()


class InstanceKind(StrEnum):
    """Where replicas run, as far as the protocol can say it."""

    AUTO = "KIND_AUTO"
    CPU = "KIND_CPU"
    GPU = "KIND_GPU"
    MODEL = "KIND_MODEL"
    """Somewhere else, an NPU for example: the model's settings say where."""


@dataclass(frozen=True, slots=True)
class InstanceGroup:
    """Replicas of a model on one kind of device.

    Attributes:
        name: of the group, unique within the model.
        kind: of the device.
        count: how many replicas.
    """

    name: str
    kind: InstanceKind
    count: int


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """How one version of a model is served.

    Attributes:
        name: the model's.
        platform: what kind of model it is.
        backend: what runs it.
        inputs: with shapes as clients send them, samples of a batch included.
        outputs: likewise.
        max_batch_size: how many samples one request may hold along the first axis of every input.
            0: the first axis has no such meaning.
        instance_groups: where it runs.
        versions: those that are served.
        parameters: other settings, for people to read.
    """

    name: str
    platform: str
    backend: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    max_batch_size: int = 0
    instance_groups: tuple[InstanceGroup, ...] = ()
    versions: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One of the best entries of an output.

    Attributes:
        index: which entry.
        score: what the model gives; nothing is normalised.
        label: its name; empty if it has none.
    """

    index: int
    score: float
    label: str = ""


@dataclass(frozen=True, slots=True)
class PictureAnswer:
    """What a model makes of a picture.

    Attributes:
        model_name: which model.
        model_version: which version of it.
        classes: the best entries by output; outputs that are not numbers are left out.
    """

    model_name: str
    model_version: str
    classes: Mapping[str, Sequence[ClassScore]]


class InferenceServer(Protocol):
    """A server, however its clients reach it. All methods are called on one event loop.

    An empty version means the one that the server prefers. Every method that takes a name raises
    `UnknownModelError` where there is no such model or version, and errors that
    `atriva_ray.serve.statuses` does not know are not told to clients.
    """

    def is_live(self) -> bool:
        """Whether the process works at all."""
        ...

    def is_ready(self) -> bool:
        """Whether everything that should be loaded is."""
        ...

    async def is_model_ready(self, name: str, version: str) -> bool:
        """Whether a model would answer now."""
        ...

    def metadata(self) -> ServerMetadata:
        """Return who answers."""
        ...

    async def model_metadata(self, name: str, version: str) -> ModelMetadata:
        """Return what a model takes and gives."""
        ...

    async def infer(self, name: str, version: str, request: InferRequest) -> InferAnswer:
        """Run a model. Cancelled when the client does not wait any longer.

        Raises:
            BadRequestError, InputError: the request does not fit the model.
            ModelUnavailableError: it is known, but not ready.
            OverloadedError: too much waits already.
            DeadlineExceededError: `request.timeout_s` is over.
        """
        ...

    async def classify(
        self,
        name: str,
        version: str,
        picture: bytes | memoryview,
        count: int | None = None,
        timeout_s: float | None = None,
    ) -> PictureAnswer:
        """Run a model on a JPEG or PNG file. Cancelled when the client does not wait any longer.

        Args:
            name: the model's.
            version: the version's.
            picture: the file.
            count: how many of the best entries of each output; None: as the model's settings say.
            timeout_s: how long the client will wait.

        Raises:
            BadRequestError: `count` is not positive.
            InputError: the model does not take a picture and nothing else.
            PictureError: the file is no picture.
            InferenceRuntimeError: what `infer` raises.
        """
        ...

    async def repository_index(self, ready_only: bool) -> tuple[ModelState, ...]:
        """Return every version of every model, or only those that are ready."""
        ...

    async def load(self, name: str, parameters: Mapping[str, RepositoryValue]) -> None:
        """Load a model of the repository, or load it anew; return when it is ready.

        Raises:
            RepositoryError: it cannot be loaded.
            NotSupportedError: a parameter asks for what this server does not have.
        """
        ...

    async def unload(self, name: str, parameters: Mapping[str, RepositoryValue]) -> None:
        """Unload a model; requests that run are answered."""
        ...

    async def statistics(self, name: str, version: str) -> tuple[ModelStatistics, ...]:
        """Return what models did. An empty name: all models; an empty version: all versions."""
        ...

    async def config(self, name: str, version: str) -> ModelConfig:
        """Return how a model is served."""
        ...
