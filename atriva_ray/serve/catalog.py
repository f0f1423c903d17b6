"""The catalog: one per server, it decides which models are served, and ingresses follow it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from atriva_inference.errors import InferenceRuntimeError
from atriva_ray.errors import RepositoryError, UnknownModelError
from atriva_ray.model import Model
from atriva_ray.runtime import InferenceRuntime
from atriva_ray.serve.followers import Followers
from atriva_ray.serve.index import index_of
from atriva_ray.serve.loader import Loader, Shelf
from atriva_ray.serve.losses import Losses
from atriva_ray.serve.repository.changes import targets
from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.version_files import ModelVersion
from atriva_ray.serve.server_face import ModelState
from atriva_ray.serve.shelf_watch import follow_shelf, taken_over
from atriva_ray.serve.table import Offer, OfferState, Table, TableVersion
from atriva_ray.serve.tally import Tally

__all__ = ["Catalog"]

_logger = logging.getLogger(__name__)

_CONTACT_TIMEOUT_S = 10.0
_HANDOVER_TIMEOUT_S = 120.0
_ACKNOWLEDGE_TIMEOUT_S = 30.0
_LOOK_AFTER_EVERY_S = 1.0

_LOST = "the cluster has lost it, and it is being loaded again"


class Catalog:
    """Loads and unloads models, and publishes tables of what is there.

    A version becomes part of a table when its replicas are warm; a model that a table lacks is
    closed when every ingress has gone over to that table. So no request meets one that is not
    ready, and none loses the one that it runs on.

    What the cluster loses stays in the table, unavailable, and is tried again until it is back,
    unloaded, or replaced.

    It may end and start again: ingresses go on with their last table, and hand it over.
    """

    def __init__(
        self,
        shelf: Shelf,
        namespace: str,
        load: Sequence[str] | None = None,
        watch_s: float | None = None,
        make_runtime: Callable[..., InferenceRuntime] = InferenceRuntime,
    ) -> None:
        """Make one that does nothing yet; `begin` starts it.

        Args:
            shelf: where models come from.
            namespace: of the router.
            load: models to load at the beginning; None: all of the shelf.
            watch_s: how often to look whether the shelf has changed; None: only when told.
            make_runtime: given a backend and `namespace`, returns what loads its models; blocks.
        """
        self._loader = Loader(shelf, partial(make_runtime, namespace=namespace))
        self._first = load
        self._watch_s = watch_s
        self._failure: InferenceRuntimeError | None = None
        self._table = Table(TableVersion(time.time_ns()))
        self._held: dict[str, Model] = {}
        self._losses = Losses()
        self._followers = Followers()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._changed = asyncio.Condition()
        self._called = asyncio.Event()
        self._handed_over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """Start to load what is wanted at the beginning, and to look after it."""
        self._spawn(self._begin())
        self._spawn(self._look_after())

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
        self._followers.asked(ingress_id, version, time.monotonic())
        self._followers.counted(ingress_id, tallies)
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
        await asyncio.gather(*(self._adopt(*each) for each in table.models.items()))
        if table.is_settled and not self._table.is_settled:
            await self._publish(self._table.settled())
        self._handed_over.set()

    async def tallies(
        self, ingress_id: str, mine: Mapping[tuple[str, str], Tally]
    ) -> Mapping[tuple[str, str], Tally]:
        """Return what all ingresses counted, given what one counted just now."""
        self._followers.counted(ingress_id, mine)
        return self._followers.totals(
            (offer.name, offer.version) for offer in self._table.offers if offer.is_ready
        )

    # -- models --------------------------------------------------------------------------------

    async def index(self) -> tuple[ModelState, ...]:
        """Return every version of every model, on the shelf or served."""
        return index_of(self._table, await self._loader.look())

    async def load(self, name: str) -> None:
        """Load a model of the shelf, or what is new of it; returns when every ingress has it.

        Raises:
            UnknownModelError: the shelf has no such model.
            RepositoryError: a version cannot be loaded; what was served before still is.
        """
        found = {model.name: model for model in await self._loader.look()}
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
                now |= {each.version: each for each in served.values() if each.was_loaded}
            for offer in loaded:  # and better the old files of one than none
                old = served.get(offer.version)
                if not offer.is_ready and old is not None and old.was_loaded:
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
        return index_of(self._table, ())

    async def close(self) -> None:
        """Let go of every model."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loader.close()

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
            found = await self._loader.look()
        except InferenceRuntimeError as error:
            _logger.error("nothing can be loaded: %s", error)  # noqa: TRY400 - it says where
            self._failure, found = error, ()
        if self._table.is_settled:  # a catalog before this one had begun
            served = taken_over(found, self._table)
        else:
            served = targets(found)
            await self._load_first(found)
        if self._watch_s is not None:
            await follow_shelf(self, self._loader.look, found, served, self._watch_s)

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

    async def _adopt(self, name: str, offers: Iterable[Offer]) -> None:
        async with self._locks[name]:
            if name in self._table.models:
                return
            known = [each for each in offers if each.was_loaded or each.is_broken]
            kept = await asyncio.gather(*map(self._kept, known))
            await self._publish(self._table.with_offers(name, kept))

    async def _kept(self, offer: Offer) -> Offer:
        """Keep a model that ingresses have open; the offer says so if it is gone."""
        if not offer.is_ready:
            return offer
        try:
            self._held[offer.load_id] = await self._loader.open(offer)
        except InferenceRuntimeError as error:
            _logger.warning("model %s %s is gone: %s", offer.name, offer.version, error)
            return offer.unavailable(_LOST)
        return offer

    async def _loaded(self, found: RepositoryModel, version: ModelVersion) -> Offer:
        offer, model = await self._loader.load(found, version)
        if model is not None:
            self._held[offer.load_id] = model
        return offer

    async def _let_go(self, offers: Iterable[Offer]) -> None:
        """Close models as soon as no ingress answers by a table that has them."""
        models = [self._held.pop(offer.load_id, None) for offer in offers]
        wanted = self._table.version
        try:
            async with asyncio.timeout(_ACKNOWLEDGE_TIMEOUT_S), self._changed:
                await self._changed.wait_for(lambda: self._followers.have(wanted, time.monotonic()))
        except TimeoutError:
            _logger.warning("an ingress did not go over to the newest table; it goes on without")
        for model in models:
            if model is not None:
                await self._loader.close_model(model)

    # -- what the cluster loses ----------------------------------------------------------------

    async def _look_after(self) -> None:
        """See what the cluster has lost, its router for example, and have it loaded again."""
        while True:
            await asyncio.sleep(_LOOK_AFTER_EVERY_S)
            lost = {
                offer: _LOST
                for offer in self._table.offers
                if offer.is_ready and not self._is_held(offer)
            }
            for offer in lost:
                _logger.warning("model %s %s was lost", offer.name, offer.version)
            await self._publish(self._table.with_lost(lost))
            now_s = time.monotonic()
            self._losses.update(
                (each.load_id for each in self._table.offers if each.is_lost), now_s
            )
            for load_id in self._losses.due(now_s):
                self._spawn(self._try_again(load_id))

    async def _try_again(self, load_id: str) -> None:
        """Load a lost model; changes nothing if it was unloaded or replaced meanwhile."""
        offer = self._table.lost(load_id)
        if offer is None:
            return
        try:
            dead = self._held.pop(load_id, None)
            if dead is not None:  # before: the router may count both as one
                await self._loader.close_model(dead)
            model = await self._loader.load_again(offer)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try may go well
            _logger.warning("model %s %s stays lost: %s", offer.name, offer.version, error)
            self._losses.failed(load_id, time.monotonic())
            offer = self._table.lost(load_id)
            if offer is not None:
                await self._publish(self._table.with_lost({offer: f"{_LOST}; so far: {error}"}))
            return
        async with self._locks[offer.name]:
            offer = self._table.lost(load_id)
            if offer is not None:
                again = offer.ready(uuid.uuid4().hex, model.origin)
                self._held[again.load_id] = model
                await self._publish(self._table.with_offer(again))
                return
        await self._loader.close_model(model)

    def _is_held(self, offer: Offer) -> bool:
        model = self._held.get(offer.load_id)
        return model is not None and model.is_loaded

    # -- small things --------------------------------------------------------------------------

    async def _publish(self, table: Table) -> None:
        self._table = table  # at once: whoever changes it next builds on this one
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
