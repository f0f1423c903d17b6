"""Homes: as many for each client, as many clients for each replica, and few of them move."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.routing.homes import Homes
from atriva_ray.routing.pool import Pool


def made(replica_count, client_count, least=4):
    homes = Homes(least)
    for number in range(replica_count):
        homes.add_replica(f"r{number}")
    for number in range(client_count):
        homes.add_client(f"c{number}")
    return homes


def check(homes, replicas, clients):
    sizes = {len(homes.of(client)) for client in clients}
    used = {len(homes.users(replica)) for replica in replicas}
    assert len(sizes) <= 1
    assert not used or max(used) - min(used) <= 1
    for client in clients:
        assert homes.of(client) <= set(replicas)
        assert len(homes.of(client)) >= min(4, len(replicas))
    if clients:
        assert set().union(*(homes.of(client) for client in clients)) == set(replicas)


changes = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "add_client",
                "add_client",
                "remove_client",
                "add_replica",
                "add_replica",
                "remove_replica",
            ]
        ),
        st.integers(0, 12),
    ),
    max_size=60,
)


@given(changes)
@settings(max_examples=300)
def test_homes_are_even_whatever_comes_and_goes(changes):
    homes = Homes()
    clients, replicas = set(), set()
    for what, number in changes:
        name = f"{what[-1]}{number}"
        before = {client: homes.of(client) for client in clients}
        changed = getattr(homes, what)(name)
        there = clients if "client" in what else replicas
        (there.add if "add" in what else there.discard)(name)
        check(homes, replicas, clients)
        moved = {each for each in clients if before.get(each, frozenset()) != homes.of(each)}
        assert moved <= changed


@pytest.mark.parametrize(
    ("replicas", "clients", "expected"), [(3, 5, 3), (20, 200, 4), (10, 1, 10), (100, 20, 7)]
)
def test_a_client_has_four_homes_or_its_share_of_the_pool(replicas, clients, expected):
    homes = made(replicas, clients)
    assert len(homes.of("c0")) == pytest.approx(expected, abs=1)


def test_one_more_replica_moves_few_clients():
    homes = made(200, 100)
    before = {f"c{number}": homes.of(f"c{number}") for number in range(100)}
    assert len(homes.add_replica("new")) <= 8
    moved = sum(len(homes.of(client) - had) for client, had in before.items())
    assert moved <= 8
    assert len(homes.remove_replica("r7")) <= 12


def test_a_small_pool_is_known_to_everybody():
    pool = Pool()
    pool.update({f"r{number}": ("CPU",) for number in range(10)}, ["a", "b", "c", "d", "e"])
    for client in "abcde":
        known = pool.known_to(client)
        assert len(known) == 10
        assert sum(known.values()) == 4
    assert len({tuple(pool.known_to(client)) for client in "abcde"}) > 1  # not in the same order


def test_of_a_large_pool_everybody_knows_a_few_of_each_kind():
    pool = Pool()
    kinds = {f"r{number}": ("GPU" if number < 50 else "CPU",) for number in range(400)}
    clients = [f"c{number}" for number in range(100)]
    assert pool.update(kinds, clients) == set(clients)
    for client in clients:
        known = pool.known_to(client)
        homes = [replica for replica, is_home in known.items() if is_home]
        assert sum(kinds[replica] == ("GPU",) for replica in homes) == 4
        assert 8 <= len(homes) <= 10
        assert len(known) <= 20
    assert pool.update(kinds, clients) == set()
    del kinds["r0"]
    assert 0 < len(pool.update(kinds, clients)) <= 40
    kinds["r1"] = ("CPU",)  # it was slower than thought
    assert 0 < len(pool.update(kinds, clients)) <= 60
    assert pool.update({}, clients) == set(clients)
    assert pool.known_to("c1") == {}
    assert pool.update({}, []) == set()
