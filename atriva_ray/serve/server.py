"""What one ingress answers: inference by itself, the repository through the catalog."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from importlib import metadata
from typing import Protocol

from atriva_inference.ports import Port, batch_axis
from atriva_ray.errors import ModelUnavailableError, NotSupportedError
from atriva_ray.serve.open_models import OpenModels
from atriva_ray.serve.page import ModelCard
from atriva_ray.serve.picture_answer import classify_picture, takes_pictures
from atriva_ray.serve.protocol.messages import InferAnswer, InferRequest
from atriva_ray.serve.protocol.metadata import TensorMetadata
from atriva_ray.serve.server_face import (
    InstanceGroup,
    InstanceKind,
    ModelConfig,
    ModelMetadata,
    ModelState,
    ModelStatistics,
    PictureAnswer,
    RepositoryValue,
    ServerMetadata,
    Timing,
)
from atriva_ray.serve.table import Offer
from atriva_ray.serve.tally import Tally

__all__ = ["CatalogFace", "Server"]

_EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "statistics",
)


class CatalogFace(Protocol):
    """What an ingress asks of the catalog, over Ray or in the same process."""

    def index(self) -> Awaitable[tuple[ModelState, ...]]:
        """Return every version of every model."""
        ...

    def load(self, name: str) -> Awaitable[None]:
        """Load a model, or what is new of it."""
        ...

    def unload(self, name: str) -> Awaitable[None]:
        """Take a model away."""
        ...

    def tallies(
        self, ingress_id: str, mine: Mapping[tuple[str, str], Tally]
    ) -> Awaitable[Mapping[tuple[str, str], Tally]]:
        """Return what all ingresses counted, given what this one counted just now."""
        ...


class Server:
    """The `InferenceServer` of one ingress."""

    def __init__(
        self, ingress_id: str, models: OpenModels, catalog: CatalogFace, *, is_controllable: bool
    ) -> None:
        """Answer for models.

        Args:
            ingress_id: which ingress this is.
            models: what it has open.
            catalog: who decides what is served.
            is_controllable: whether clients may load and unload models.
        """
        self._ingress_id = ingress_id
        self._models = models
        self._catalog = catalog
        self._is_controllable = is_controllable

    def is_live(self) -> bool:
        """Whether the process works at all."""
        return True

    def is_ready(self) -> bool:
        """Whether everything that should be loaded at the beginning is."""
        return self._models.table.is_settled

    async def is_model_ready(self, name: str, version: str) -> bool:
        """Whether a model would answer now."""
        try:
            self._models.find(name, version)
        except ModelUnavailableError:
            return False
        return True

    def metadata(self) -> ServerMetadata:
        """Return who answers."""
        return ServerMetadata("atriva-ray", metadata.version("atriva-ray"), _EXTENSIONS)

    async def model_metadata(self, name: str, version: str) -> ModelMetadata:
        """Return what a model takes and gives."""
        found = self._models.find(name, version)
        versions = (version,) if version else self._models.table.versions(name)
        model = found.model
        return ModelMetadata(name, versions, found.offer.platform, model.inputs, model.outputs)

    async def infer(self, name: str, version: str, request: InferRequest) -> InferAnswer:
        """Run a model; cancelled when the client does not wait any longer."""
        return await self._models.find(name, version).infer(request)

    async def classify(
        self,
        name: str,
        version: str,
        picture: bytes | memoryview,
        count: int | None = None,
        timeout_s: float | None = None,
    ) -> PictureAnswer:
        """Run a model on a JPEG or PNG file."""
        with self._models.find(name, version).kept() as found:  # while the picture is decoded
            return await classify_picture(found, picture, count, timeout_s)

    def cards(self) -> tuple[ModelCard, ...]:
        """Return what the page shows of every version of every model."""
        return tuple(map(self._card, self._models.table.offers))

    async def repository_index(self, ready_only: bool) -> tuple[ModelState, ...]:
        """Return every version of every model, or only those that are ready."""
        states = await self._catalog.index()
        return tuple(state for state in states if not ready_only or state.state == "READY")

    async def load(self, name: str, parameters: Mapping[str, RepositoryValue]) -> None:
        """Load a model of the repository, or what is new of it; return when it is ready."""
        self._check_control()
        refused = [key for key in parameters if key == "config" or key.startswith("file:")]
        if refused:
            raise NotSupportedError(f"the load parameter {refused[0]!r}; change the repository")
        await self._catalog.load(name)

    async def unload(
        self,
        name: str,
        parameters: Mapping[str, RepositoryValue],  # noqa: ARG002 - nothing depends on models
    ) -> None:
        """Unload a model; requests that run are answered."""
        self._check_control()
        await self._catalog.unload(name)

    async def statistics(self, name: str, version: str) -> tuple[ModelStatistics, ...]:
        """Return what models did, on all ingresses together."""
        if name:
            self._models.table.find(name, version)
        tallies = await self._catalog.tallies(self._ingress_id, self._models.tallies)
        return tuple(
            _statistics(key, tally)
            for key, tally in sorted(tallies.items())
            if name in ("", key[0]) and version in ("", key[1])
        )

    async def config(self, name: str, version: str) -> ModelConfig:
        """Return how a model is served."""
        found = self._models.find(name, version)
        model, settings = found.model, found.offer.settings
        has_batch = all(
            batch_axis(port) and port.shape and port.shape[0] == -1 for port in model.inputs
        )
        groups = tuple(
            InstanceGroup(use.route.label, _kind(use.info.device), 1) for use in model.replicas
        )
        return ModelConfig(
            name,
            found.offer.platform,
            settings.backend,
            model.inputs,
            model.outputs,
            max_batch_size=(settings.max_batch_size or 0) if has_batch else 0,
            instance_groups=groups,
            versions=self._models.table.versions(name),
            parameters={"device": settings.device, "performance_hint": str(settings.hint)},
        )

    def _card(self, offer: Offer) -> ModelCard:
        name, version, state = offer.name, offer.version, offer.state.value
        try:
            found = self._models.find(name, version)
        except ModelUnavailableError:
            return ModelCard(name, version, state, reason=offer.reason)
        model = found.model
        return ModelCard(
            name,
            version,
            state,
            devices=tuple(dict.fromkeys(use.route.label for use in model.replicas)),
            inputs=tuple(map(_line, model.inputs)),
            outputs=tuple(map(_line, model.outputs)),
            takes_pictures=takes_pictures(found),
            reason=offer.reason,
        )

    def _check_control(self) -> None:
        if not self._is_controllable:
            raise NotSupportedError("loading and unloading by clients; it was started without")


def _line(port: Port) -> str:
    tensor = TensorMetadata.of(port)
    return f"{tensor.name} {tensor.datatype} {list(tensor.shape)}"


def _kind(device: str) -> InstanceKind:
    family = device.partition(".")[0]
    if family in ("CPU", "GPU"):
        return InstanceKind[family]
    return InstanceKind.MODEL


def _statistics(key: tuple[str, str], tally: Tally) -> ModelStatistics:
    success = Timing(tally.success_count, tally.success_ns)
    compute_ns = min(tally.compute_ns, tally.success_ns)  # it may have run some that failed, too
    return ModelStatistics(
        *key,
        last_inference_ms=tally.last_inference_ms,
        inference_count=tally.inference_count,
        execution_count=tally.success_count,
        success=success,
        fail=Timing(tally.fail_count, tally.fail_ns),
        queue=Timing(tally.success_count, tally.success_ns - compute_ns),
        compute=Timing(tally.success_count, compute_ns),
    )
