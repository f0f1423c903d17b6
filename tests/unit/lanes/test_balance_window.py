"""How many requests are under way: as many as last a replica while others travel."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.routing.balance import Balancer, Route


def route(replica_id, slots=1):
    return Route(replica_id, f"{replica_id}/CPU", slots, 0)


def measured(slots, service_time_s):
    balancer = Balancer()
    balancer.add(route("a", slots))
    balancer.started("a", 0.0)
    balancer.finished("a", 0.0, service_time_s)
    return balancer


def window(balancer):
    count = 0
    while (replica_id := balancer.choose(0.0)) is not None:
        balancer.started(replica_id, 0.0)
        count += 1
        assert count < 1000
    return count


@pytest.mark.parametrize(
    ("slots", "service_time_s", "expected"),
    [
        (1, 0.1, 2),
        (4, 0.1, 8),
        (1, 500e-6, 2),
        (1, 250e-6, 4),
        (1, 100e-6, 10),
        (2, 100e-6, 20),
        (1, 1e-6, 64),
        (8, 1e-6, 64),
        (40, 1e-6, 80),
    ],
)
def test_small_requests_are_under_way_for_a_millisecond_of_work(slots, service_time_s, expected):
    assert window(measured(slots, service_time_s)) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("slots", "wanted", "expected"),
    [(1, 1, 2), (1, 8, 16), (2, 8, 32), (1, 32, 64), (4, 32, 64), (40, 32, 80)],
)
def test_a_replica_that_runs_many_as_one_gets_two_batches_a_slot(slots, wanted, expected):
    balancer = Balancer()
    balancer.add(route("a", slots))
    balancer.started("a", 0.0)
    balancer.finished("a", 0.0, 0.01, wanted=wanted)
    assert window(balancer) == expected
    balancer.finished("a", 0.0, None)  # an error: it says nothing of that
    assert window(balancer) == 1


@pytest.mark.parametrize("slots", [1, 3])
def test_a_replica_of_unknown_speed_gets_two_a_slot(slots):
    balancer = Balancer()
    balancer.add(route("a", slots))
    assert window(balancer) == 2 * slots
    assert window(measured(slots, None)) == 2 * slots


def test_a_replica_that_took_no_time_at_all_is_not_sent_everything():
    assert window(measured(1, 0.0)) <= 64


@given(st.integers(0, 100), st.floats(0, 100))
def test_there_are_never_less_than_two_a_slot_nor_many_more(slots, service_time_s):
    under_way = window(measured(slots, service_time_s)) if slots else 0
    assert 2 * slots <= under_way <= max(2 * slots, 64)
    if service_time_s > 1e-6:
        assert under_way <= max(2 * slots, math.ceil(slots * 1e-3 / service_time_s) + 1)


def test_a_replica_without_slots_gets_nothing_however_fast():
    assert window(measured(0, 1e-6)) == 0


def test_an_answer_makes_room_for_one():
    balancer = measured(1, 100e-6)
    full = window(balancer)
    balancer.finished("a", 0.0, 100e-6)
    assert window(balancer) == 1
    assert balancer.in_flight == {"a": full}


def test_a_replica_that_becomes_slow_gets_less():
    balancer = measured(1, 50e-6)
    assert window(balancer) == pytest.approx(20, abs=1)
    for _ in range(20):
        balancer.finished("a", 0.0, 0.01)
    assert window(balancer) == 2


def test_a_replica_that_was_forgotten_begins_anew_when_it_is_added():
    balancer = measured(1, 50e-6)
    window(balancer)
    balancer.forget("a")
    assert balancer.choose(0.0) is None
    assert balancer.in_flight == {}
    balancer.finished("a", 0.0, 50e-6)
    balancer.add(route("a"))
    assert balancer.in_flight == {"a": 0}
    assert window(balancer) == 2


def test_others_are_not_touched_by_one_more():
    balancer = measured(1, 0.1)
    balancer.started("a", 0.0)
    balancer.add(route("b"))
    assert balancer.in_flight == {"a": 1, "b": 0}
    assert balancer.choose(0.0) == "b"
    assert balancer.parallelism == 2


@pytest.mark.parametrize(
    ("service_time_s", "expected"), [(0.1, 2), (0.04, 2), (0.02, 4), (0.005, 18), (1e-4, 64)]
)
def test_with_slack_requests_last_three_times_as_long_as_answers_may_lie(service_time_s, expected):
    balancer = Balancer(slack_s=0.03)
    balancer.add(route("a"))
    balancer.started("a", 0.0)
    balancer.finished("a", 0.0, service_time_s)
    assert window(balancer) == pytest.approx(expected, abs=1)


def test_what_is_under_way_lasts_as_long_as_the_replica_that_is_first_without():
    balancer = Balancer()
    assert balancer.lasts_s is None
    for name, slots, service_time_s in (("a", 1, 0.1), ("b", 2, 0.1)):
        balancer.add(route(name, slots))
        balancer.started(name, 0.0)
        balancer.finished(name, 0.0, service_time_s)
    assert balancer.lasts_s is None  # nothing is under way
    balancer.started("a", 0.0)
    assert balancer.lasts_s == pytest.approx(0.1)
    balancer.started("b", 0.0)
    assert balancer.lasts_s == pytest.approx(0.05)


def test_nobody_waits_on_a_replica_of_unknown_speed():
    balancer = Balancer(slack_s=0.03)
    balancer.add(route("a"))
    balancer.started("a", 0.0)
    assert balancer.lasts_s == 0


@given(
    st.lists(st.tuples(st.integers(1, 8), st.floats(1e-5, 1), st.integers(0, 64)), max_size=4),
    st.floats(0, 0.1),
)
def test_no_replica_is_without_requests_after_half_of_what_they_last(replicas, slack_s):
    balancer = Balancer(slack_s)
    for number, (slots, service_time_s, under_way) in enumerate(replicas):
        balancer.add(route(str(number), slots))
        balancer.started(str(number), 0.0)
        balancer.finished(str(number), 0.0, service_time_s)
        for _ in range(under_way):
            balancer.started(str(number), 0.0)
    pause_s = (balancer.lasts_s or 0.0) / 2
    for slots, service_time_s, under_way in replicas:
        assert not under_way or under_way * service_time_s / slots >= pause_s
