"""What becomes of a table when the cluster loses models."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from atriva_ray.errors import ModelUnavailableError, RepositoryError, UnknownModelError
from atriva_ray.serve import catalog as catalog_module
from atriva_ray.serve.catalog import Catalog
from atriva_ray.serve.losses import Losses
from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.version_files import ModelVersion
from atriva_ray.serve.repository.versions import VersionPolicy
from atriva_ray.serve.table import Offer, OfferState, Table, TableVersion
from tests.serve.fake_cluster import FakeCluster

NAMES = ("a", "b", "c")
TIMEOUT_S = 20


class FakeShelf:
    def __init__(self, *names):
        self.files = dict.fromkeys(names, "first")
        self.more_files = {}  # of a second version, which is served beside the first
        self.unreadable = set()

    def look(self):
        settings = ModelSettings(top_k=7, versions=VersionPolicy(None))
        return tuple(
            RepositoryModel(name, settings, tuple(self._versions(name))) for name in self.files
        )

    def _versions(self, name):
        for number, files in enumerate((self.files[name], self.more_files.get(name)), 1):
            if files is not None:
                yield ModelVersion(number, name, "", (), 1, files)

    def fetch(self, model, version):
        if f"{model.name} {version.fingerprint}" in self.unreadable:
            raise RepositoryError(model.name, "it cannot be read")
        return Path(f"{model.name} {version.fingerprint}")

    def close(self):
        pass


class Following:
    """A catalog that runs, and an ingress that has every table at once."""

    def __init__(self, catalog):
        self.catalog = catalog
        self.table = Table()

    async def until(self, condition):
        """Return the first table that a condition is true of."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition(self.table):
                newest = await self.catalog.watch("ingress", self.table.version, {}, 0.05)
                if newest is not None:
                    self.table = newest
        return self.table

    async def follow(self):
        await self.until(lambda _: False)


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture
def shelf():
    return FakeShelf(*NAMES)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(catalog_module, "_LOOK_AFTER_EVERY_S", 0.01)


@asynccontextmanager
async def running(shelf, cluster, load=None):
    catalog = Catalog(shelf, "namespace", load, make_runtime=cluster)
    catalog._losses = Losses(0.02, 0.1)
    catalog.begin()
    try:
        yield Following(catalog)
    finally:
        cluster.gate.set()
        await catalog.close()
        assert cluster.open_models() == []


def all_ready(table):
    return table.is_settled and all(offer.is_ready for offer in table.offers)


def all_lost(table):
    return len(table.models) == len(NAMES) and all(offer.is_lost for offer in table.offers)


async def eventually(condition):
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - threads change what it looks at
            await asyncio.sleep(0.005)


def run(work):
    asyncio.run(work)


def test_what_is_lost_stays_in_the_table_and_comes_back_all_at_the_same_time(shelf, cluster):
    async def work():
        async with running(shelf, cluster) as ingress:
            before = await ingress.until(all_ready)
            cluster.gate.clear()
            cluster.lose_router()
            lost = await ingress.until(all_lost)
            with pytest.raises(ModelUnavailableError, match="lost it, and it is being loaded"):
                lost.find("a", "1")
            for was, now in zip(before.offers, lost.offers, strict=True):
                assert (now.origin, now.settings) == (was.origin, was.settings)
                assert (now.fingerprint, now.platform) == (was.fingerprint, was.platform)
            await eventually(lambda: len(cluster.opening) == len(NAMES))
            cluster.gate.set()
            after = await ingress.until(all_ready)
            for was, now in zip(before.offers, after.offers, strict=True):
                assert now.load_id not in ("", was.load_id)
                assert (now.origin, now.reason) == (was.origin, "")
            assert len(cluster.open_models()) == len(NAMES)

    run(work())


def test_what_fails_is_tried_until_it_goes_well_and_holds_nothing_else_up(shelf, cluster):
    async def work():
        async with running(shelf, cluster) as ingress:
            await ingress.until(all_ready)
            cluster.refused = {"b first"}
            tries = cluster.tried.count("b first")
            cluster.lose_router()
            await ingress.until(lambda table: is_ready(table, "a") and is_ready(table, "c"))
            await eventually(lambda: cluster.tried.count("b first") >= tries + 3)
            table = await ingress.until(lambda table: "refuses" in table.models["b"][0].reason)
            assert table.models["b"][0].is_lost
            cluster.refused = set()
            await ingress.until(all_ready)

    run(work())


def test_a_model_that_is_lost_again_before_anybody_has_it_is_not_ready(shelf, cluster):
    async def work():
        async with running(shelf, cluster) as ingress:
            await ingress.until(all_ready)
            cluster.stillborn = {"b first"}
            tries = cluster.tried.count("b first")
            cluster.lose_router()
            await ingress.until(all_lost)
            await eventually(lambda: cluster.tried.count("b first") >= tries + 2)
            table = await ingress.until(lambda table: is_ready(table, "a"))
            assert table.models["b"][0].is_lost
            cluster.stillborn = set()
            await ingress.until(all_ready)
            assert len(cluster.open_models()) == len(NAMES)

    run(work())


def test_what_is_unloaded_while_it_is_lost_stays_away(shelf, cluster):
    async def work():
        async with running(shelf, cluster) as ingress:
            await ingress.until(all_ready)
            cluster.gate.clear()
            cluster.lose_router()
            await ingress.until(all_lost)
            await eventually(lambda: "b first" in cluster.opening)
            following = asyncio.create_task(ingress.follow())
            await ingress.catalog.unload("b")
            following.cancel()
            tries = cluster.tried.count("b first")
            cluster.gate.set()
            table = await ingress.until(all_ready)
            assert sorted(table.models) == ["a", "c"]
            with pytest.raises(UnknownModelError):
                table.find("b")
            await eventually(lambda: len(cluster.open_models()) == 2)
            assert cluster.tried.count("b first") == tries

    run(work())


def test_what_is_loaded_anew_takes_the_place_of_what_is_lost(shelf, cluster):
    async def work():
        async with running(shelf, cluster) as ingress:
            await ingress.until(all_ready)
            cluster.refused = {"b first"}
            cluster.lose_router()
            await ingress.until(lambda table: table.models["b"][0].is_lost)
            shelf.files["b"] = "second"
            following = asyncio.create_task(ingress.follow())
            await ingress.catalog.load("b")
            following.cancel()
            table = await ingress.until(all_ready)
            assert table.find("b").origin == "b second"
            tries = cluster.tried.count("b first")
            await eventually(lambda: "b first" not in cluster.opening)
            assert cluster.tried.count("b first") == tries
            await eventually(lambda: len(cluster.open_models()) == len(NAMES))

    run(work())


def test_a_load_that_fails_leaves_what_is_lost_to_be_tried_again(shelf, cluster):
    async def work():
        async with running(shelf, cluster) as ingress:
            await ingress.until(all_ready)
            cluster.refused = {"b first"}
            cluster.lose_router()
            await ingress.until(lambda table: table.models["b"][0].is_lost)
            shelf.unreadable = {"b first"}
            following = asyncio.create_task(ingress.follow())
            with pytest.raises(RepositoryError, match="cannot be read"):
                await ingress.catalog.load("b")
            following.cancel()
            states = {each.name: each for each in await ingress.catalog.index()}
            assert states["b"].state == "UNAVAILABLE"
            cluster.refused = set()
            await ingress.until(all_ready)
            assert cluster.tried.count("b first") > 1

    run(work())


def test_a_load_that_brings_one_version_back_leaves_the_other_to_be_tried_again(shelf, cluster):
    shelf.more_files["b"] = "more"

    async def work():
        async with running(shelf, cluster) as ingress:
            await ingress.until(all_ready)
            cluster.refused = {"b first", "b more"}
            cluster.lose_router()
            await ingress.until(lambda table: all(each.is_lost for each in table.models["b"]))
            shelf.unreadable = {"b first"}
            shelf.more_files["b"] = "newer"
            following = asyncio.create_task(ingress.follow())
            with pytest.raises(RepositoryError, match="cannot be read"):
                await ingress.catalog.load("b")
            following.cancel()
            table = await ingress.until(lambda table: table.models["b"][1].is_ready)
            assert table.find("b", "2").origin == "b newer"
            assert table.models["b"][0].is_lost
            cluster.refused = set()
            await ingress.until(all_ready)

    run(work())


def test_the_next_catalog_goes_on_with_what_is_lost(shelf, cluster):
    runtime = cluster()
    for name in ("a", "b"):
        runtime.load_model(f"{name} first", "CPU")
    cluster.refused = {"b first", "c first"}
    before = Table(TableVersion(1), is_settled=True)
    offer = Offer("a", "1", "first", OfferState.READY, "load a", origin="a first")
    for name in NAMES:  # b is gone, though the ingress does not know it yet
        each = replace(offer, name=name, load_id=f"load {name}", origin=f"{name} first")
        lost = each.unavailable("it was lost") if name == "c" else each
        before = before.with_offers(name, [lost])
    broken = Offer("d", "1", "first", OfferState.UNAVAILABLE, reason="it is broken")
    before = before.with_offers("d", [broken])

    async def work():
        async with running(shelf, cluster) as ingress:
            assert await ingress.catalog.watch("ingress", before.version, {}, 0.1) is None
            await ingress.catalog.adopt(before)
            table = await ingress.until(lambda table: table.is_settled)
            assert table.find("a").load_id == "load a"
            assert table.models["b"][0].is_lost
            assert table.models["c"][0].is_lost
            assert table.models["d"] == (broken,)
            await eventually(lambda: cluster.tried.count("c first") >= 2)
            cluster.refused = set()
            table = await ingress.until(lambda table: all(is_ready(table, each) for each in NAMES))
            assert table.find("a").load_id == "load a"
            assert table.find("b").load_id != "load b"
            assert table.models["d"] == (broken,)
            assert "d first" not in cluster.tried

    run(work())


def test_changes_at_the_same_time_build_on_each_other(shelf, cluster):
    async def work():
        async with running(shelf, cluster, load=()) as ingress:
            await ingress.until(lambda table: table.is_settled)
            catalog = ingress.catalog
            cluster.gate.clear()
            loads = [asyncio.create_task(catalog.load(name)) for name in ("a", "b")]
            await eventually(lambda: len(cluster.opening) == 2)
            async with catalog._changed:  # as who watches holds it
                cluster.gate.set()
                await eventually(lambda: len(catalog._held) == 2)
                for _ in range(20):
                    await asyncio.sleep(0)
            table = await ingress.until(lambda table: is_ready(table, "a") or is_ready(table, "b"))
            following = asyncio.create_task(ingress.follow())
            await asyncio.gather(*loads)
            following.cancel()
            assert all_ready(table)
            assert sorted(table.models) == ["a", "b"]

    run(work())


def is_ready(table, name):
    return name in table.models and all(offer.is_ready for offer in table.models[name])
