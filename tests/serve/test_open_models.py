"""How an ingress follows tables, and what it does about models that are lost."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest

from atriva_inference import Priority, Tensor
from atriva_inference.executor import LocalExecutor
from atriva_inference.model import Model
from atriva_ray.errors import DeadlineExceededError, ModelUnavailableError, OverloadedError
from atriva_ray.serve import open_models as open_models_module
from atriva_ray.serve.open_models import OpenModel, OpenModels, priority_of
from atriva_ray.serve.statuses import Code, status_of
from atriva_ray.serve.table import Offer, OfferState, Table, TableVersion
from tests.serve.fake_cluster import FakeCluster
from tests.serve.test_catalog import eventually, run
from tests.unit.fakes import FakeCompiledModel


@pytest.fixture
def cluster():
    return FakeCluster()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(open_models_module, "_LOOK_AFTER_EVERY_S", 0.01)


@asynccontextmanager
async def following(cluster):
    models = OpenModels(cluster())
    try:
        yield models
    finally:
        await models.close()
        assert cluster.open_models() == []


def ready(name, load_id=""):
    return Offer(name, "1", "f", OfferState.READY, load_id or f"load {name}", origin=name)


def table_of(*offers):
    table = Table(TableVersion(1))
    for offer in offers:
        table = table.with_offers(offer.name, [offer])
    return table


def test_only_what_is_ready_is_opened(cluster):
    async def work():
        async with following(cluster) as models:
            table = table_of(ready("a"), ready("b").unavailable("it was lost"))
            assert await models.switch(table) == {}
            assert cluster.tried == ["a"]
            assert models.find("a").offer.name == "a"
            with pytest.raises(ModelUnavailableError, match="it was lost"):
                models.find("b")

    run(work())


def test_what_is_lost_is_closed_when_the_last_request_has_its_answer(cluster):
    async def work():
        async with following(cluster) as models:
            offer = ready("a")
            await models.switch(table_of(offer))
            found = models.find("a")
            request = asyncio.create_task(found.run({}))
            await eventually(lambda: found.running == 1)
            await models.switch(table_of(offer.unavailable("it was lost")))
            with pytest.raises(ModelUnavailableError):
                models.find("a")
            again = ready("a", "another load")
            await models.switch(table_of(again))
            assert models.find("a").offer is again
            assert not found.model.is_closed
            found.model.answer.set()
            assert await request == {}
            await eventually(lambda: found.model.is_closed)
            assert models.find("a").model.is_loaded

    run(work())


def test_what_is_lost_here_alone_is_given_back_and_opened_again(cluster):
    async def work():
        async with following(cluster) as models:
            await models.switch(table_of(ready("a"), ready("b")))
            survivor, lost = models.find("a"), models.find("b")
            lost.model.generation = -1
            with pytest.raises(ModelUnavailableError, match="lost"):
                models.find("b")
            await eventually(lambda: lost.model.is_closed and len(cluster.models) == 3)
            await eventually(lambda: lost not in models.opened)
            assert models.find("b").model.is_loaded
            assert models.find("a") is survivor
            assert cluster.events[2:] == [("closed", "b"), ("opened", "b")]

    run(work())


def test_what_cannot_be_opened_again_is_unavailable_until_it_can(cluster):
    async def work():
        async with following(cluster) as models:
            await models.switch(table_of(ready("a")))
            cluster.refused = {"a"}
            cluster.lose_router()
            await eventually(lambda: cluster.tried.count("a") >= 4)
            with pytest.raises(ModelUnavailableError, match="refuses a"):
                models.find("a")
            cluster.refused = set()
            await eventually(lambda: models.opened)
            assert models.find("a").model.is_loaded

    run(work())


def test_what_is_lost_before_it_is_open_is_a_failure(cluster):
    async def work():
        async with following(cluster) as models:
            offer = ready("a")
            cluster.stillborn = {"a"}
            failures = await models.switch(table_of(offer, ready("b")))
            assert list(failures) == [offer]
            assert models.find("b").model.is_loaded
            with pytest.raises(ModelUnavailableError):
                models.find("a")
            cluster.stillborn = set()
            assert await models.switch(table_of(offer, ready("b"))) == {}
            assert models.find("a").model.is_loaded

    run(work())


@pytest.fixture
def held():
    """A real model whose only slot is held until the gate is opened: its gate, and what ran."""
    gate, ran = threading.Event(), []

    def infer(array):
        ran.append(int(array[0]))
        assert gate.wait(60)
        return array

    executor = LocalExecutor("inner", FakeCompiledModel(slot_count=1, infer=infer), 2)
    with Model("inner", executor) as model:
        yield OpenModel(ready("outer"), model), gate, ran
        gate.set()


def x(value):
    return {"x": Tensor.from_numpy([value], layout=None)}


def test_a_clients_deadline_reaches_the_model_and_a_late_request_is_not_run(held):
    found, gate, ran = held

    async def work():
        first = asyncio.create_task(found.run(x(1)))
        await eventually(lambda: ran == [1])
        for timeout_s in (0.01, 0.0, -1.0):
            with pytest.raises(DeadlineExceededError, match="'outer'") as caught:
                await found.run(x(2), timeout_s)
            assert (status_of(caught.value).http, found.running) == (504, 1)
        gate.set()
        await first
        await found.run(x(3), 60.0)

    run(work())
    assert ran == [1, 3]
    assert found.tally.fail_count == 3


def test_a_clients_priority_reaches_the_model(held):
    found, gate, ran = held

    async def work():
        tasks = [asyncio.create_task(found.run(x(1)))]
        await eventually(lambda: ran == [1])
        tasks += [
            asyncio.create_task(found.run(x(2 + level), None, priority_of(level)))
            for level in (3, 1)
        ]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)

    run(work())
    assert ran == [1, 3, 5]


def test_a_model_whose_queue_is_full_says_when_to_come_back(held):
    found, gate, ran = held

    async def work():
        tasks = [asyncio.create_task(found.run(x(1)))]
        await eventually(lambda: ran == [1])
        tasks += [asyncio.create_task(found.run(x(2))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError) as caught:
            await found.run(x(3))
        status = status_of(caught.value)
        assert (status.http, status.code) == (503, Code.RESOURCE_EXHAUSTED)
        assert status.retry_after_s == caught.value.retry_after_s > 0
        gate.set()
        await asyncio.gather(*tasks)

    run(work())


@pytest.mark.parametrize(
    ("level", "priority"), [(0, "MEDIUM"), (1, "HIGH"), (2, "MEDIUM"), (3, "LOW"), (2**63, "LOW")]
)
def test_levels_are_tritons(level, priority):
    assert priority_of(level) is Priority[priority]
