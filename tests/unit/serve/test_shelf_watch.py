"""What is done when a shelf changes, also while nobody looked."""

from __future__ import annotations

import asyncio

import pytest

from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.changes import targets
from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.version_files import ModelVersion
from atriva_ray.serve.shelf_watch import follow_shelf, taken_over
from atriva_ray.serve.table import Offer, OfferState, Table


def model(name, *versions, files="files", **settings):
    found = tuple(ModelVersion(each, name, "", (), 1, f"{files} {each}") for each in versions)
    return RepositoryModel(name, ModelSettings(**settings), found)


def table_of(*models):
    table = Table()
    for each in models:
        offers = [
            Offer(
                each.name,
                str(version.version),
                version.fingerprint,
                OfferState.READY,
                settings=each.settings,
            )
            for version in each.chosen
        ]
        table = table.with_offers(each.name, offers)
    return table


class Follower:
    """Notes what it is told, and then has enough after so many looks."""

    def __init__(self, *looks):
        self._looks = list(looks)
        self.told = []

    async def look(self):
        if not self._looks:
            raise asyncio.CancelledError
        look = self._looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look

    async def bring_up(self, found):
        self.told.append((found.name, [each.version for each in found.chosen]))
        if found.settings.hint == "latency":
            raise RepositoryError(found.name, "it is broken")

    async def unload(self, name):
        self.told.append((name, []))

    def follow(self, first, served):
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(follow_shelf(self, self.look, first, served, 0.0))
        return self.told


def test_what_looks_the_same_twice_is_followed():
    first = (model("a", 1), model("b", 1))
    then = (model("a", 1, 2), model("c", 7))
    follower = Follower(first, then, then, then)
    assert follower.follow(first, targets(first)) == [("a", [2]), ("b", []), ("c", [7])]


def test_what_fails_is_tried_once_and_keeps_nothing_away():
    first = (model("z", 1),)
    then = (model("a", 1, hint="latency"), model("z", 2))
    unreadable = RepositoryError("/shelf", "it is gone")
    follower = Follower(then, unreadable, then, then, OSError("it is slow"), then)
    assert follower.follow(first, targets(first)) == [("a", [1]), ("z", [2])]


def test_what_somebody_else_loaded_is_followed_from_then_on():
    was = (model("changed", 1), model("gone", 1), model("same", 1), model("set", 1))
    now = (
        model("changed", 1, files="others"),
        model("newer", 1),
        model("same", 1),
        model("set", 1, device="CPU"),
    )
    served = taken_over(now, table_of(*was))
    follower = Follower(now, now, now)
    # A model that nobody served may have been unloaded on purpose.
    assert sorted(follower.follow(now, served)) == [("changed", [1]), ("gone", []), ("set", [1])]
    assert Follower(now, now).follow(now, targets(now)) == []


def test_a_shelf_that_could_not_be_looked_at_takes_nothing_away():
    was = (model("a", 1),)
    unreadable = RepositoryError("/shelf", "it is gone")
    follower = Follower(unreadable, was, was, was)
    assert follower.follow((), taken_over((), table_of(*was))) == [
        ("a", [1])
    ]  # and nothing is done for it
