"""What the index of a server says: every version that is on the shelf or served."""

from __future__ import annotations

from collections.abc import Iterable

from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.server_face import ModelState
from atriva_ray.serve.table import OfferState, Table, version_order

__all__ = ["index_of"]


def index_of(table: Table, found: Iterable[RepositoryModel]) -> tuple[ModelState, ...]:
    """Return the state of every version, sorted by name and version.

    Args:
        table: what is served.
        found: what is on the shelf.
    """
    states = {
        (offer.name, offer.version): ModelState(
            offer.name, offer.version, offer.state.value, offer.reason
        )
        for offer in table.offers
    }
    for model in found:
        problem = "; ".join(model.problems)
        for version in model.versions:
            key = (model.name, str(version.version))
            states.setdefault(
                key, ModelState(*key, OfferState.UNAVAILABLE.value, problem or "not loaded")
            )
        if not model.versions:
            key = (model.name, "")
            states.setdefault(key, ModelState(*key, OfferState.UNAVAILABLE.value, problem))
    ordered = sorted(states, key=lambda key: (key[0], version_order(key[1])))
    return tuple(states[key] for key in ordered)
