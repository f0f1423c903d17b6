"""Following a shelf: what is new on it is served, and what is gone from it is not any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from atriva_inference.errors import InferenceRuntimeError
from atriva_ray.serve.repository.changes import Served, Target, difference, settle, targets
from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.version_files import ModelVersion
from atriva_ray.serve.table import Offer, Table

__all__ = ["ShelfFollower", "follow_shelf", "taken_over"]

_logger = logging.getLogger(__name__)


class ShelfFollower(Protocol):
    """Who serves what is on the shelf."""

    def bring_up(self, found: RepositoryModel) -> Awaitable[None]:
        """Serve the versions of a model that are to be served, and no others."""
        ...

    def unload(self, name: str) -> Awaitable[None]:
        """Take a model away."""
        ...


async def follow_shelf(
    follower: ShelfFollower,
    look: Callable[[], Awaitable[Sequence[RepositoryModel]]],
    first: Sequence[RepositoryModel],
    served: Served,
    every_s: float,
) -> None:
    """Load, load anew and unload whatever has changed, until it is cancelled.

    Args:
        follower: who does it.
        look: returns what is on the shelf.
        first: what was there the last time.
        served: what is served of it, or was tried.
        every_s: how often to look.
    """
    before = first
    while True:
        await asyncio.sleep(every_s)
        try:
            now = await look()
        except (InferenceRuntimeError, OSError) as error:
            _logger.warning("the repository cannot be looked at: %s", error)
            continue
        wanted = settle(now, before, served)
        changes = difference(served, wanted)
        changed = {each.name for each in (*changes.load, *changes.reload, *changes.unload)}
        before, served = now, wanted
        for name in sorted(changed):
            await _follow(follower, name, now, [wanted[key] for key in wanted if key[0] == name])


def taken_over(found: Iterable[RepositoryModel], table: Table) -> dict[tuple[str, int], Target]:
    """Return what counts as served when somebody else loaded what a table has.

    A version that differs from the shelf's by now counts as it was, so that it is loaded anew; a
    model that the table lacks as it is, so that it stays away if it was unloaded.
    """
    there = targets(found)
    served = {key: each for key, each in there.items() if key[0] not in table.models}
    for offer in table.offers:
        if offer.version.isdecimal():
            was = _target(offer)
            now = there.get(was.key)
            served[was.key] = now if now is not None and _is_same(now, was) else was
    return served


async def _follow(
    follower: ShelfFollower,
    name: str,
    look: Sequence[RepositoryModel],
    wanted: Sequence[Target],
) -> None:
    try:
        if wanted:
            found = next(model for model in look if model.name == name)
            versions = tuple(each.version for each in wanted)
            await follower.bring_up(replace(found, versions=versions))
        else:
            await follower.unload(name)
    except InferenceRuntimeError as error:
        _logger.error("model %s: %s", name, error)  # noqa: TRY400 - it says where


def _target(offer: Offer) -> Target:
    version = ModelVersion(int(offer.version), "", "", (), 0, offer.fingerprint)
    return Target(offer.name, version, offer.settings.with_every_version())


def _is_same(one: Target, other: Target) -> bool:
    is_same_version = one.version.fingerprint == other.version.fingerprint
    return is_same_version and one.settings == other.settings
