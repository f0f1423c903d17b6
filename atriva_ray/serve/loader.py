"""What the catalog has done by threads: looking at the shelf, loading models and closing them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from atriva_inference.errors import InferenceRuntimeError
from atriva_ray.errors import ModelNotLoadedError
from atriva_ray.model import Model
from atriva_ray.runtime import InferenceRuntime
from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.version_files import ModelVersion
from atriva_ray.serve.table import Offer, OfferState
from atriva_ray.serve.warm_up import warm_up

__all__ = ["Loader", "Shelf"]

_logger = logging.getLogger(__name__)

_LOADERS = 4


class Shelf(Protocol):
    """Where models come from. Its methods block."""

    def look(self) -> tuple[RepositoryModel, ...]:
        """Return what is there now."""
        ...

    def fetch(self, model: RepositoryModel, version: ModelVersion) -> Path:
        """Return a path of this machine from which a version can be loaded."""
        ...

    def close(self) -> None:
        """Remove copies of what was fetched."""
        ...


class Loader:
    """Loads a few models at a time, each with the runtime of its backend."""

    def __init__(self, shelf: Shelf, make_runtime: Callable[[str], InferenceRuntime]) -> None:
        """Make one that has nothing loaded.

        Args:
            shelf: where models come from.
            make_runtime: returns the runtime of a backend; blocks.
        """
        self._shelf = shelf
        self._make_runtime = make_runtime
        self._runtimes: dict[str, InferenceRuntime] = {}
        self._runtimes_lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_LOADERS, thread_name_prefix="atriva-load")
        # Of its own: loaders may all be busy for long.
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="atriva-look")

    async def look(self) -> tuple[RepositoryModel, ...]:
        """Return what is on the shelf.

        Raises:
            RepositoryError: it cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._looker, self._shelf.look)

    async def load(
        self, found: RepositoryModel, version: ModelVersion
    ) -> tuple[Offer, Model | None]:
        """Load a version and warm it up; the offer says so if that fails."""
        offer = Offer(
            found.name,
            str(version.version),
            version.fingerprint,
            OfferState.UNAVAILABLE,
            platform=_platform(found.settings.backend, version),
            settings=found.settings,
        )
        try:
            runtime = await self._runtime(found.settings.backend)
            loop = asyncio.get_running_loop()
            model = await loop.run_in_executor(self._threads, self._load, runtime, found, version)
        except InferenceRuntimeError as error:
            return replace(offer, reason=str(error)), None
        return offer.ready(uuid.uuid4().hex, model.origin), model

    async def open(self, offer: Offer) -> Model:
        """Take part in a model that others have open, or load it if nobody has any more.

        Raises:
            InferenceRuntimeError: it is gone, and cannot be loaded.
        """
        runtime = await self._runtime(offer.settings.backend)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _opened, runtime, offer, False)

    async def load_again(self, offer: Offer) -> Model:
        """Load what was lost, and warm it up.

        Raises:
            InferenceRuntimeError: it cannot be loaded now.
        """
        runtime = await self._runtime(offer.settings.backend)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _opened, runtime, offer, True)

    async def close_model(self, model: Model) -> None:
        """Give a model back; one whose router is gone has nothing left to give back."""
        try:
            await asyncio.to_thread(model.close)
        except InferenceRuntimeError as error:
            _logger.info("model %s could not be given back: %s", model.name, error)

    async def close(self) -> None:
        """Give every model back, and remove what was fetched; loads that are under way go on."""
        for runtime in self._runtimes.values():
            await asyncio.to_thread(runtime.close)
        await asyncio.to_thread(self._shelf.close)
        for threads in (self._threads, self._looker):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _runtime(self, backend: str) -> InferenceRuntime:
        async with self._runtimes_lock:
            if backend not in self._runtimes:
                self._runtimes[backend] = await asyncio.to_thread(self._make_runtime, backend)
            return self._runtimes[backend]

    def _load(
        self, runtime: InferenceRuntime, found: RepositoryModel, version: ModelVersion
    ) -> Model:
        settings = found.settings
        model = runtime.load_model(
            self._shelf.fetch(found, version),
            settings.device,
            performance_hint=settings.hint,
            config=settings.config,
            preprocessing=settings.preprocessing,
            batching=settings.batching == "auto",
            replicas=settings.replicas,
            cpus_per_replica=settings.cpus_per_replica,
            idle_s=settings.idle_s,
            reserve_cpus=False,  # a server's models take turns on the processors
        )
        return _warm(model)


def _opened(runtime: InferenceRuntime, offer: Offer, is_to_be_warm: bool) -> Model:
    assert offer.origin is not None, "what was loaded once has one"  # noqa: S101
    model = runtime.open_model(offer.origin)
    if is_to_be_warm:
        _warm(model)
    if not model.is_loaded:  # the runtime may have heard only meanwhile that its router is gone
        model.close()
        raise ModelNotLoadedError(offer.name, ())
    return model


def _warm(model: Model) -> Model:
    try:
        warm_up(model)
    except BaseException:
        model.close()
        raise
    return model


def _platform(backend: str, version: ModelVersion) -> str:
    """Return what kind of model it is, in Triton's manner."""
    kinds = {".xml": "ir", ".onnx": "onnx", ".pb": "graphdef", ".tflite": "tflite"}
    kind = kinds.get(Path(version.entry).suffix, "savedmodel")
    return f"{backend}_{'paddle' if version.entry.endswith('.pdmodel') else kind}"
