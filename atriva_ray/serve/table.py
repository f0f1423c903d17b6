"""What every ingress of a server serves: which versions of which models, and which come next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from atriva_ray.errors import ModelUnavailableError, UnknownModelError
from atriva_ray.serve.repository.settings import ModelSettings

if TYPE_CHECKING:
    from atriva_ray.model import ModelOrigin

__all__ = ["Offer", "OfferState", "Table", "TableVersion", "version_order"]


class OfferState(StrEnum):
    """What can be had of a version, in the words of Triton's repository index."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """One version of a model, as all ingresses offer it.

    Attributes:
        name: the model's.
        version: the version's; digits.
        fingerprint: of its files and settings.
        load_id: which load of it this is; one that was loaded anew has another.
        state: whether it answers.
        reason: why it does not.
        origin: how it is opened, or loaded again; None if it never was loaded.
        platform: what kind of model it is, ``openvino_ir`` for example.
        settings: how it is served.
    """

    name: str
    version: str
    fingerprint: str
    state: OfferState
    load_id: str = ""
    reason: str = ""
    origin: ModelOrigin | None = None
    platform: str = ""
    settings: ModelSettings = field(default_factory=ModelSettings)

    @property
    def is_ready(self) -> bool:
        """Whether it answers."""
        return self.state is OfferState.READY

    @property
    def was_loaded(self) -> bool:
        """Whether it answers, or did until it was lost."""
        return self.origin is not None

    @property
    def is_lost(self) -> bool:
        """Whether it does not answer any more, and is to be loaded again."""
        return self.state is OfferState.UNAVAILABLE and self.was_loaded

    @property
    def is_broken(self) -> bool:
        """Whether it could not be loaded at all."""
        return self.state is OfferState.UNAVAILABLE and not self.was_loaded

    def ready(self, load_id: str, origin: ModelOrigin) -> Offer:
        """Return it as it is when it was loaded."""
        return replace(self, state=OfferState.READY, load_id=load_id, origin=origin, reason="")

    def unavailable(self, reason: str) -> Offer:
        """Return it as it is while it does not answer, for a reason."""
        return replace(self, state=OfferState.UNAVAILABLE, reason=reason)


def version_order(version: str) -> tuple[int, str]:
    """Sort key of versions: ``10`` comes after ``9``, and what is no number before both."""
    return (int(version), "") if version.isdecimal() else (-1, version)


@dataclass(frozen=True, slots=True, order=True)
class TableVersion:
    """Which table is the newer one.

    Attributes:
        epoch: of the catalog that made it; a catalog that starts again takes a higher one.
        number: counted by that catalog.
    """

    epoch: int = 0
    number: int = 0

    def next(self) -> TableVersion:
        """Return the one of the next table."""
        return replace(self, number=self.number + 1)


@dataclass(frozen=True, slots=True)
class Table:
    """All offers at one moment.

    Attributes:
        version: which moment.
        models: versions of each model, lowest first.
        is_settled: whether everything that is to be loaded at the beginning was loaded, or failed.
    """

    version: TableVersion = TableVersion()
    models: Mapping[str, tuple[Offer, ...]] = field(default_factory=dict)
    is_settled: bool = False

    @property
    def offers(self) -> Iterator[Offer]:
        """Every version of every model."""
        return (offer for offers in self.models.values() for offer in offers)

    def with_offers(self, name: str, offers: Iterable[Offer]) -> Table:
        """Return the next table, in which a model has these versions; without any, it is gone."""
        models = {key: value for key, value in self.models.items() if key != name}
        ordered = tuple(sorted(offers, key=lambda offer: version_order(offer.version)))
        if ordered:
            models[name] = ordered
        return replace(self, version=self.version.next(), models=dict(sorted(models.items())))

    def settled(self) -> Table:
        """Return the next table, which says that the beginning is over."""
        return replace(self, version=self.version.next(), is_settled=True)

    def with_offer(self, offer: Offer) -> Table:
        """Return the next table, in which this version of a model takes the place of another."""
        others = (each for each in self._of(offer.name) if each.version != offer.version)
        return self.with_offers(offer.name, (*others, offer))

    def with_lost(self, losses: Mapping[Offer, str]) -> Table:
        """Return the next table, in which some offers are unavailable for a reason."""
        if not losses:
            return self
        return replace(self.without(losses), version=self.version.next())

    def without(self, failures: Mapping[Offer, str]) -> Table:
        """Return the same table, in which some offers are unavailable for a reason."""
        if not failures:
            return self
        models = {
            name: tuple(
                each.unavailable(failures[each]) if each in failures else each for each in offers
            )
            for name, offers in self.models.items()
        }
        return replace(self, models=models)

    def lost(self, load_id: str) -> Offer | None:
        """Return what was lost of a load, unless it was unloaded or replaced."""
        return next(
            (each for each in self.offers if each.is_lost and each.load_id == load_id), None
        )

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model that answer.

        Raises:
            UnknownModelError: there is no such model.
        """
        return tuple(offer.version for offer in self._of(name) if offer.is_ready)

    def find(self, name: str, version: str = "") -> Offer:
        """Return the version that is to answer; without one, the highest that can.

        Raises:
            UnknownModelError: there is no such model or version.
            ModelUnavailableError: it cannot answer now.
        """
        offers = self._of(name)
        if version:
            offers = tuple(offer for offer in offers if offer.version == version)
            if not offers:
                known = [offer.version for offer in self._of(name)]
                raise UnknownModelError(name, version, known)
        for offer in reversed(offers):
            if offer.is_ready:
                return offer
        latest = offers[-1]
        raise ModelUnavailableError(name, version, latest.state.value.lower(), latest.reason)

    def _of(self, name: str) -> tuple[Offer, ...]:
        try:
            return self.models[name]
        except KeyError:
            raise UnknownModelError(name, "", sorted(self.models)) from None
