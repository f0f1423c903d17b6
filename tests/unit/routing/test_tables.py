"""Tables: who is told of what, and who is left in peace."""

from __future__ import annotations

from atriva_ray.routing.load import Route
from atriva_ray.routing.tables import Tables


def routes(*numbers):
    return [Route(f"r{number}", "node/CPU", 1, 3) for number in numbers]


def ids(table):
    return {route.replica_id for route in table.routes}


def test_a_client_is_told_once():
    tables = Tables()
    tables.update("m", routes(1, 2), ["a"], 1)
    assert tables.changed("a") == 1
    first = tables.table("m", "a", 0)
    assert ids(first) == first.news == {"r1", "r2"}
    tables.update("m", routes(1, 2, 3), ["a"], 2)
    assert tables.changed("a") == 2
    second = tables.table("m", "a", 1)
    assert ids(second) == {"r1", "r2", "r3"}
    assert second.news == {"r3"}
    assert tables.table("m", "a", 0).news == {"r1", "r2", "r3"}
    tables.update("m", routes(1, 3), ["a"], 3)
    third = tables.table("m", "a", 2)
    assert ids(third) == {"r1", "r3"}
    assert third.news == frozenset()


def test_a_replica_that_comes_back_is_news():
    tables = Tables()
    tables.update("m", routes(1, 2), ["a"], 1)
    tables.update("m", routes(1), ["a"], 2)
    tables.update("m", routes(1, 2), ["a"], 3)
    assert tables.table("m", "a", 2).news == {"r2"}


def test_who_does_not_use_a_model_hears_nothing_of_it():
    tables = Tables()
    tables.update("m", routes(1), ["a"], 1)
    tables.update("n", routes(2), ["b"], 2)
    assert tables.changed("a") == 1
    assert tables.changed("b") == 2
    assert tables.table("m", "b", 0).routes == ()
    assert tables.table("other", "b", 0).routes == ()


def test_who_leaves_and_whose_model_goes_is_told():
    tables = Tables()
    tables.update("m", routes(1), ["a", "b"], 1)
    tables.update("m", routes(1), ["b"], 2)
    assert tables.changed("a") == 2
    assert tables.table("m", "a", 0).routes == ()
    tables.keep([], 3)
    assert tables.changed("b") == 3
    assert tables.table("m", "b", 0).routes == ()
    tables.keep([], 4)
    assert tables.changed("b") == 3
    tables.keep_clients(["a"])
    assert tables.changed("a") == 2
    assert tables.changed("b") == 0


def test_in_a_large_pool_one_change_concerns_few():
    tables = Tables()
    clients = [f"c{number}" for number in range(100)]
    tables.update("m", routes(*range(1000)), clients, 1)
    tables.update("m", routes(*range(1, 1000)), clients, 2)
    told = [client for client in clients if tables.changed(client) == 2]
    assert 0 < len(told) <= 10
    assert sum(len(tables.table("m", client, 1).news) for client in told) <= 10


def test_homes_are_marked():
    tables = Tables()
    tables.update("m", routes(*range(10)), ["a", "b", "c", "d"], 1)
    table = tables.table("m", "a", 0)
    assert len(table.routes) == 10
    assert sum(route.is_home for route in table.routes) == 4


def test_a_remark_concerns_all_clients_of_its_model_once():
    tables = Tables()
    route = Route("a", "node/CPU", 1, 3)
    tables.update("m1", [route], ["ann", "bob"], 1)
    tables.update("m2", [route], ["cid"], 1)
    tables.remark("m1", "GPU refuses", 5)
    tables.remark("m1", "GPU refuses", 6)
    assert [tables.changed(client) for client in ("ann", "bob", "cid")] == [5, 5, 1]


def test_homes_are_spread_over_replicas_of_every_speed():
    tables = Tables()
    clients = [f"c{number}" for number in range(40)]
    there = routes(*range(200))
    tables.update("m", there, clients, 1)
    fast = {f"r{number}" for number in range(20)}
    times_s = {route.replica_id: 0.001 if route.replica_id in fast else 0.02 for route in there}
    assert tables.measured(times_s)
    assert not tables.measured(times_s)
    tables.update("m", there, clients, 2)
    for client in clients:
        homes = {each.replica_id for each in tables.table("m", client, 0).routes if each.is_home}
        assert len(homes & fast) == 4
        assert 4 <= len(homes - fast) <= 6


def test_one_that_was_not_measured_yet_is_not_everybodys_home():
    tables = Tables()
    clients = [f"c{number}" for number in range(100)]
    there = routes(*range(300))
    tables.measured({route.replica_id: 0.02 for route in there})
    tables.update("m", there, clients, 1)
    tables.update("m", [*there, *routes("new")], clients, 2)
    told = [client for client in clients if tables.changed(client) == 2]
    assert 0 < len(told) <= 20
