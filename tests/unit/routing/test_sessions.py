"""Where a new session goes, and which replica goes first."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.routing.sessions import SessionSeat, drain_order, session_order


def seat(replica_id, session_count=0, service_time_s=0.01, slot_count=2, rank=0):
    return SessionSeat(replica_id, rank, slot_count, service_time_s, session_count)


seats = st.lists(
    st.builds(
        SessionSeat,
        st.integers(0, 99).map("r{}".format),
        st.integers(0, 3),
        st.integers(1, 8),
        st.none() | st.floats(1e-5, 10),
        st.none() | st.integers(0, 300),
    ),
    max_size=8,
    unique_by=lambda each: each.replica_id,
)


def settled(replicas, count):
    """Open so many sessions one after the other, and count where they go."""
    replicas = {each.replica_id: each for each in replicas}
    for _ in range(count):
        best = session_order(replicas.values())[0]
        replicas[best] = replace(
            replicas[best], session_count=(replicas[best].session_count or 0) + 1
        )
    return Counter({name: each.session_count for name, each in replicas.items()})


def test_equal_replicas_share_the_sessions():
    assert settled([seat("a"), seat("b")], 10) == {"a": 5, "b": 5}
    assert settled([seat("a", 4), seat("b")], 6) == {"a": 5, "b": 5}


def test_more_slots_take_more_sessions():
    assert settled([seat("a", slot_count=1), seat("b", slot_count=3)], 40) == {"a": 10, "b": 30}


def test_a_replica_that_is_twice_as_fast_takes_about_twice_as_many():
    shares = settled([seat("slow", service_time_s=0.02), seat("fast")], 90)
    assert 28 <= shares["slow"] <= 32


def test_a_fast_replica_with_few_sessions_is_better_than_an_empty_slow_one():
    assert session_order([seat("slow", 0, 0.1), seat("fast", 2)]) == ["fast", "slow"]
    assert session_order([seat("slow", 0, 0.1), seat("fast", 30)]) == ["slow", "fast"]


def test_ties_go_to_the_device_that_auto_prefers():
    assert session_order([seat("cpu", rank=3), seat("gpu", rank=1)]) == ["gpu", "cpu"]


def test_an_unknown_speed_is_taken_for_the_best_known():
    order = session_order([seat("known", 1, 0.5), seat("new", 0, None), seat("slow", 0, 0.6)])
    assert order[0] == "new"


def test_a_replica_that_does_not_answer_comes_last():
    assert session_order([seat("mute", None, 0.001), seat("full", 200)]) == ["full", "mute"]


@given(seats)
def test_every_replica_has_one_place(some):
    assert sorted(session_order(some)) == sorted(each.replica_id for each in some)
    assert session_order(some) == session_order(reversed(some))


@given(seats, st.integers(0, 7))
def test_one_more_session_never_makes_a_replica_better(some, which):
    if not some:
        return
    before = session_order(some)
    chosen = some[which % len(some)]
    if chosen.session_count is None:
        return
    fuller = [
        replace(each, session_count=each.session_count + 1) if each is chosen else each
        for each in some
    ]
    after = session_order(fuller)
    assert after.index(chosen.replica_id) >= before.index(chosen.replica_id)


def test_replicas_with_sessions_go_last():
    assert drain_order(["a", "b", "c", "d"], {"a": 2, "c": 1}) == ["b", "d", "c", "a"]
