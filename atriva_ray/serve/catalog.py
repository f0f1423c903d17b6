"""The catalog: one per server, it decides which models are served, and ingresses follow it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from atriva_inference.errors import InferenceRuntimeError
from atriva_ray.errors import RepositoryError, UnknownModelError
from atriva_ray.model import Model
from atriva_ray.runtime import InferenceRuntime
from atriva_ray.serve.repository.changes import targets
from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.version_files import ModelVersion
from atriva_ray.serve.server_face import ModelState
from atriva_ray.serve.shelf_watch import follow_shelf, taken_over
from atriva_ray.serve.table import Offer, OfferState, Table, TableVersion
from atriva_ray.serve.tally import Tally
from atriva_ray.serve.warm_up import warm_up

__all__ = ["Catalog", "Shelf"]

_logger = logging.getLogger(__name__)

P = ParamSpec("P")
Value = TypeVar("Value")

_LOADERS = 4
_CONTACT_TIMEOUT_S = 10.0
_HANDOVER_TIMEOUT_S = 120.0
_LIVE_S = 15.0
_ACKNOWLEDGE_TIMEOUT_S = 30.0
_LOOK_AFTER_EVERY_S = 1.0


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


@dataclass(slots=True)
class _Ingress:
    version: TableVersion
    seen_s: float


class Catalog:
    """Loads and unloads models, and publishes tables of what is there.

    A version becomes part of a table when its replicas are warm; a model that a table lacks is
    closed when every ingress has gone over to that table. So no request meets one that is not
    ready, and none loses the one that it runs on.

    It may end and start again: ingresses go on with their last table, and hand it over.
    """

    def __init__(
        self,
        shelf: Shelf,
        namespace: str,
        load: Sequence[str] | None = None,
        watch_s: float | None = None,
    ) -> None:
        """Make one that does nothing yet; `begin` starts it.

        Args:
            shelf: where models come from.
            namespace: of the router.
            load: models to load at the beginning; None: all of the shelf.
            watch_s: how often to look whether the shelf has changed; None: only when told.
        """
        self._shelf = shelf
        self._namespace = namespace
        self._first = load
        self._watch_s = watch_s
        self._failure: InferenceRuntimeError | None = None
        self._table = Table(TableVersion(time.time_ns()))
        self._held: dict[str, Model] = {}
        self._ingresses: dict[str, _Ingress] = {}
        self._tallies: dict[str, Mapping[tuple[str, str], Tally]] = {}  # also of those that ended
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._changed = asyncio.Condition()
        self._called = asyncio.Event()
        self._handed_over = asyncio.Event()
        self._runtimes: dict[str, InferenceRuntime] = {}
        self._runtimes_lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_LOADERS, thread_name_prefix="atriva-load")
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Start to load what is wanted at the beginning, and to look after it."""
        for work in (self._begin(), self._look_after()):
            task = asyncio.create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # -- ingresses -----------------------------------------------------------------------------

    async def watch(
        self,
        ingress_id: str,
        version: TableVersion,
        tallies: Mapping[tuple[str, str], Tally],
        timeout_s: float,
    ) -> Table | None:
        """Return the newest table, as soon as there is a newer one than an ingress has.

        Args:
            ingress_id: who asks.
            version: of the table that it answers by now.
            tallies: what it counted.
            timeout_s: when to return what it has.

        Returns:
            None if the ingress is to `adopt` its table first: another catalog made it.
        """
        self._ingresses[ingress_id] = _Ingress(version, time.monotonic())
        self._tallies[ingress_id] = tallies
        is_of_before = version.epoch not in (0, self._table.version.epoch)
        if not is_of_before and not self._called.is_set():
            self._handed_over.set()  # there is nothing to be handed over
        self._called.set()
        if is_of_before:
            return None
        async with self._changed:
            self._changed.notify_all()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait_for(lambda: self._table.version > version)
            except TimeoutError:
                pass
        return self._table

    async def adopt(self, table: Table) -> None:
        """Go on with what ingresses got from a catalog that is gone."""
        for name, offers in table.models.items():
            async with self._locks[name]:
                if name in self._table.models:
                    continue
                kept = [
                    offer
                    for offer in offers
                    if _is_broken(offer) or (offer.is_ready and await self._hold(offer))
                ]
                await self._publish(self._table.with_offers(name, kept))
        if table.is_settled and not self._table.is_settled:
            await self._publish(self._table.settled())
        self._handed_over.set()

    async def tallies(
        self, ingress_id: str, mine: Mapping[tuple[str, str], Tally]
    ) -> Mapping[tuple[str, str], Tally]:
        """Return what all ingresses counted, given what one counted just now."""
        self._tallies[ingress_id] = mine
        gathered: dict[tuple[str, str], list[Tally]] = {
            (offer.name, offer.version): [] for offer in self._table.offers if offer.is_ready
        }
        for tallies in self._tallies.values():
            for key in gathered.keys() & tallies.keys():
                gathered[key].append(tallies[key])
        return {key: Tally.total(each) for key, each in gathered.items()}

    # -- models --------------------------------------------------------------------------------

    async def index(self) -> tuple[ModelState, ...]:
        """Return every version of every model, on the shelf or served."""
        found = await self._look()
        states = {
            (offer.name, offer.version): ModelState(
                offer.name, offer.version, offer.state.value, offer.reason
            )
            for offer in self._table.offers
        }
        for model in found:
            problem = "; ".join(model.problems)
            for version in model.versions:
                key = (model.name, str(version.version))
                states.setdefault(
                    key, ModelState(*key, OfferState.UNAVAILABLE.value, problem or "not loaded")
                )
            if not model.versions:
                states.setdefault(
                    (model.name, ""), ModelState(model.name, "", "UNAVAILABLE", problem)
                )
        return tuple(states[key] for key in sorted(states))

    async def load(self, name: str) -> None:
        """Load a model of the shelf, or what is new of it; returns when every ingress has it.

        Raises:
            UnknownModelError: the shelf has no such model.
            RepositoryError: a version cannot be loaded; what was served before still is.
        """
        found = {model.name: model for model in await self._look()}
        if name not in found:
            raise UnknownModelError(name, "", sorted(found))
        await self.bring_up(found[name])

    async def unload(self, name: str) -> None:
        """Take a model away; returns when no ingress has it any more and its memory is free.

        Raises:
            UnknownModelError: no such model is served.
        """
        async with self._locks[name]:
            offers = self._table.models.get(name)
            if offers is None:
                raise UnknownModelError(name, "", sorted(self._table.models))
            await self._publish(self._table.with_offers(name, ()))
            await self._let_go(offers)

    async def bring_up(self, found: RepositoryModel) -> None:
        """Serve the versions of a model that are to be served, and no others."""
        async with self._locks[found.name]:
            served = {offer.version: offer for offer in self._table.models.get(found.name, ())}
            versions = found.chosen
            kept = [
                offer
                for each in versions
                if (offer := served.get(str(each.version))) is not None
                and offer.is_ready
                and offer.fingerprint == each.fingerprint
                and offer.settings == found.settings
            ]
            fresh = [
                each for each in versions if str(each.version) not in {o.version for o in kept}
            ]
            begun = [
                Offer(found.name, str(each.version), each.fingerprint, OfferState.LOADING)
                for each in fresh
                if str(each.version) not in served
            ]
            if begun:
                offers = [*served.values(), *begun]
                await self._publish(self._table.with_offers(found.name, offers))
            loaded = await asyncio.gather(*(self._loaded(found, each) for each in fresh))
            problems = [*found.problems, *(each.reason for each in loaded if not each.is_ready)]
            if not versions and not problems:
                problems = ["it has no version that could be served"]
            now = {offer.version: offer for offer in (*kept, *loaded)}
            if not any(offer.is_ready for offer in now.values()):
                # Better an old version than none.
                now |= {version: offer for version, offer in served.items() if offer.is_ready}
            for offer in loaded:  # and better the old files of one than none
                old = served.get(offer.version)
                if not offer.is_ready and old is not None and old.is_ready:
                    now[offer.version] = replace(old, reason=offer.reason)
            if not now and problems:
                now[""] = Offer(
                    found.name, "", "", OfferState.UNAVAILABLE, reason="; ".join(problems)
                )
            await self._publish(self._table.with_offers(found.name, now.values()))
            loads = {offer.load_id for offer in now.values()}
            await self._let_go(offer for offer in served.values() if offer.load_id not in loads)
        if problems:
            raise RepositoryError(found.name, "; ".join(problems))

    async def settled(self) -> tuple[ModelState, ...]:
        """Return what became of the models of the beginning, as soon as that is known.

        Raises:
            RepositoryError: the repository could not be read.
        """
        async with self._changed:
            await self._changed.wait_for(lambda: self._table.is_settled)
        if self._failure is not None:
            raise self._failure
        return tuple(
            ModelState(offer.name, offer.version, offer.state.value, offer.reason)
            for offer in self._table.offers
        )

    async def close(self) -> None:
        """Let go of every model."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for runtime in self._runtimes.values():
            await self._in_thread(runtime.close)
        await self._in_thread(self._shelf.close)
        self._threads.shutdown()

    # -- inside --------------------------------------------------------------------------------

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(_CONTACT_TIMEOUT_S):
                await self._called.wait()
            async with asyncio.timeout(_HANDOVER_TIMEOUT_S):  # it opens models
                await self._handed_over.wait()
        except TimeoutError:
            _logger.warning("no ingress called, or none handed over what it has")
        try:
            found = await self._look()
        except InferenceRuntimeError as error:
            _logger.error("nothing can be loaded: %s", error)  # noqa: TRY400 - it says where
            self._failure, found = error, ()
        if self._table.is_settled:  # a catalog before this one had begun
            served = taken_over(found, self._table)
        else:
            served = targets(found)
            await self._load_first(found)
        if self._watch_s is not None:
            await follow_shelf(self, self._look, found, served, self._watch_s)

    async def _load_first(self, found: Sequence[RepositoryModel]) -> None:
        wanted = [model for model in found if self._first is None or model.name in self._first]
        results = await asyncio.gather(*map(self.bring_up, wanted), return_exceptions=True)
        for model, result in zip(wanted, results, strict=True):
            if isinstance(result, BaseException):
                _logger.error("model %s: %s", model.name, result)
        for name in sorted(set(self._first or ()) - {model.name for model in found}):
            offer = Offer(name, "", "", OfferState.UNAVAILABLE, reason="there is no such model")
            await self._publish(self._table.with_offers(name, [offer]))
        await self._publish(self._table.settled())

    async def _look(self) -> tuple[RepositoryModel, ...]:
        return await self._in_thread(self._shelf.look)

    async def _loaded(self, found: RepositoryModel, version: ModelVersion) -> Offer:
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
            model = await self._in_thread(self._load, runtime, found, version)
        except InferenceRuntimeError as error:
            return replace(offer, reason=str(error))
        load_id = uuid.uuid4().hex
        self._held[load_id] = model
        return replace(offer, state=OfferState.READY, load_id=load_id, origin=model.origin)

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
            replicas=settings.replicas,
            cpus_per_replica=settings.cpus_per_replica,
            reserve_cpus=False,  # a server's models take turns on the processors
        )
        try:
            warm_up(model)
        except BaseException:
            model.close()
            raise
        return model

    async def _hold(self, offer: Offer) -> bool:
        """Keep a model that ingresses have open; False if it is gone."""
        if offer.origin is None:
            return False
        try:
            runtime = await self._runtime(offer.settings.backend)
            model = await self._in_thread(runtime.open_model, offer.origin)
        except InferenceRuntimeError as error:
            _logger.warning("model %s %s is gone: %s", offer.name, offer.version, error)
            return False
        self._held[offer.load_id] = model
        return True

    async def _let_go(self, offers: Iterable[Offer]) -> None:
        """Close models as soon as no ingress answers by a table that has them."""
        models = [self._held.pop(offer.load_id, None) for offer in offers]
        wanted = self._table.version
        try:
            async with asyncio.timeout(_ACKNOWLEDGE_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: self._is_known(wanted))
        except TimeoutError:
            _logger.warning("an ingress did not go over to the newest table; it goes on without")
        for model in models:
            if model is not None:
                await self._in_thread(model.close)

    def _is_known(self, version: TableVersion) -> bool:
        now_s = time.monotonic()
        for key, ingress in list(self._ingresses.items()):
            if now_s - ingress.seen_s > _LIVE_S:
                del self._ingresses[key]
        return all(ingress.version >= version for ingress in self._ingresses.values())

    async def _look_after(self) -> None:
        """Load again what the cluster has lost, its router for example."""
        while True:
            await asyncio.sleep(_LOOK_AFTER_EVERY_S)
            async with self._changed:
                self._changed.notify_all()  # an ingress may have ended meanwhile
            lost = {load_id for load_id, model in self._held.items() if not model.is_loaded}
            for name in {offer.name for offer in self._table.offers if offer.load_id in lost}:
                try:
                    await self._load_again(name, lost)
                except InferenceRuntimeError as error:
                    _logger.error("model %s was lost and cannot be loaded: %s", name, error)  # noqa: TRY400

    async def _load_again(self, name: str, lost: set[str]) -> None:
        async with self._locks[name]:
            offers = [each for each in self._table.models.get(name, ()) if each.load_id not in lost]
            gone = [each for each in self._table.models.get(name, ()) if each.load_id in lost]
            if not gone:
                return
            _logger.warning("model %s was lost; loading it again", name)
            for offer in gone:
                model = self._held.pop(offer.load_id, None)
                if model is not None:
                    await self._in_thread(model.close)
            for offer in gone:
                assert offer.origin is not None, "what was held has one"  # noqa: S101
                again = replace(offer, load_id=uuid.uuid4().hex)
                if await self._hold(again):
                    offers.append(again)
            await self._publish(self._table.with_offers(name, offers))

    async def _runtime(self, backend: str) -> InferenceRuntime:
        async with self._runtimes_lock:
            if backend not in self._runtimes:
                self._runtimes[backend] = await asyncio.to_thread(
                    InferenceRuntime, backend, namespace=self._namespace
                )
            return self._runtimes[backend]

    async def _publish(self, table: Table) -> None:
        async with self._changed:
            self._table = table
            self._changed.notify_all()

    async def _in_thread(
        self, work: Callable[P, Value], *args: P.args, **kwargs: P.kwargs
    ) -> Value:
        call = partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _is_broken(offer: Offer) -> bool:
    """Whether it could not be loaded at all, rather than not be opened in one place."""
    return offer.state is OfferState.UNAVAILABLE and not offer.load_id


def _platform(backend: str, version: ModelVersion) -> str:
    """Return what kind of model it is, in Triton's manner."""
    kinds = {".xml": "ir", ".onnx": "onnx", ".pb": "graphdef", ".tflite": "tflite"}
    kind = kinds.get(Path(version.entry).suffix, "savedmodel")
    return f"{backend}_{'paddle' if version.entry.endswith('.pdmodel') else kind}"
