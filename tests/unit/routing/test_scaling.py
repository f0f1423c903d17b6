"""How many replicas a model wants, as its load goes up and down."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.routing.reports import ModelLoad
from atriva_ray.routing.scaling import Scaler

PERIOD_S = 2.0


def load_of(offered, replicas, slots=1, backlog=0):
    """What replicas say to whom so many replicas' worth of requests come."""
    busy = min(offered, replicas) * slots
    has_queue = offered >= 0.8 * replicas
    outstanding = math.ceil(busy) + backlog + (2 * slots * replicas if has_queue else 0)
    return ModelLoad(busy, slots, outstanding, 0.05, offered > 0)


class Model:
    """A scaler with a clock, and replicas that are ready as soon as they are wanted."""

    def __init__(self, limits=(1, 8), start_time_s=0.0):
        self.limits, self.start_time_s = limits, start_time_s
        self.scaler = Scaler(limits[0], 0.0)
        self.now_s = 0.0

    def look(self, offered=0.0, *, load=None, ready=None):
        self.now_s += PERIOD_S
        ready = self.scaler.wanted if ready is None else ready
        load = load or load_of(offered, ready)
        return self.scaler.decide(self.now_s, load, ready, self.limits, self.start_time_s)

    def looks(self, offered, count):
        return [self.look(offered) for _ in range(count)]


def test_full_replicas_with_a_queue_are_joined_by_more_at_once():
    model = Model()
    assert model.looks(8, 7) == [2, 3, 4, 6, 8, 8, 8]
    assert "busy (100%)" in model.scaler.why


def test_a_client_that_waits_for_each_answer_needs_no_second_replica():
    model = Model()
    always_one = ModelLoad(busy_slots=0.98, slots_each=1, outstanding=1, was_asked=True)
    assert {model.look(load=always_one) for _ in range(50)} == {1}


def test_a_queue_that_was_reported_before_it_was_worked_off_adds_nothing():
    model = Model()
    late = ModelLoad(busy_slots=0.1, slots_each=1, outstanding=50, was_asked=True)
    assert {model.look(load=late) for _ in range(5)} == {1}


def test_a_long_queue_adds_more_than_the_busy_replicas_tell():
    short, long = Model((4, 100)), Model((4, 100))
    assert short.look(load=ModelLoad(4, 1, 5, 0.0)) == 5
    assert long.look(load=ModelLoad(4, 1, 104, 0.05)) == 8


def test_slots_count_by_the_replica():
    assert Model().look(load=ModelLoad(busy_slots=3, slots_each=4, outstanding=4)) == 1
    assert Model().look(load=ModelLoad(busy_slots=4, slots_each=4, outstanding=6)) == 2


def test_replicas_that_still_start_are_waited_for():
    model = Model()
    assert model.look(4) == 2
    assert [model.look(4, ready=1) for _ in range(5)] == [2] * 5


def test_replicas_go_slowly_and_only_after_a_time_of_quiet():
    model = Model()
    model.looks(8, 7)
    wanted = model.looks(0, 40)
    assert wanted == sorted(wanted, reverse=True)
    assert wanted[6] == 8  # 14 s of quiet
    assert list(dict.fromkeys(wanted)) == [8, 4, 2, 1]
    assert wanted.index(1) >= 3 * 15 / PERIOD_S - 1


def test_a_short_pause_takes_nothing_away():
    model = Model()
    model.looks(8, 7)
    for _ in range(10):
        assert set(model.looks(0, 5)) == {8}
        assert set(model.looks(8, 2)) == {8}


def test_what_took_long_to_start_is_kept_for_longer():
    model = Model(start_time_s=30.0)
    model.looks(8, 7)
    assert set(model.looks(0, 145)) == {8}
    assert min(model.looks(0, 20)) == 4


def test_without_reports_nothing_is_changed():
    model = Model()
    model.looks(8, 7)
    unknown = ModelLoad(is_known=False)
    assert {model.look(load=unknown) for _ in range(100)} == {8}
    assert not model.scaler.is_idle(model.now_s, 1.0)
    assert set(model.looks(0, 6)) == {8}  # the time of quiet begins only now


def test_new_limits_hold_at_once():
    model = Model((1, 1))
    assert model.look(8) == 1
    model.limits = (3, 5)
    assert model.look(0) == 3
    model.limits = (1, 2)
    assert model.look(0) == 2


def test_idle_is_who_was_not_asked_for_long():
    model = Model()
    model.look(1)
    began_s = model.now_s
    assert not model.scaler.is_idle(began_s + 9.9, 10)
    assert model.scaler.is_idle(began_s + 10, 10)
    assert not model.scaler.is_idle(began_s + 1e9, None)
    model.scaler.asked(began_s + 5)
    assert not model.scaler.is_idle(began_s + 14.9, 10)


@pytest.mark.parametrize("load", [ModelLoad(was_asked=True), ModelLoad(outstanding=1)])
def test_any_sign_of_a_request_keeps_a_model_awake(load):
    model = Model()
    model.look()
    assert model.scaler.is_idle(model.now_s, 2)
    model.look(load=load)
    assert not model.scaler.is_idle(model.now_s, 2)


LIMITS = st.tuples(st.integers(1, 20), st.integers(0, 20)).map(lambda pair: (pair[0], sum(pair)))
LOADS = st.builds(
    ModelLoad,
    busy_slots=st.floats(0, 100),
    slots_each=st.floats(1, 16),
    outstanding=st.integers(0, 10_000),
    service_time_s=st.floats(0, 100),
    was_asked=st.booleans(),
    is_known=st.booleans(),
)


@given(LIMITS, st.lists(st.tuples(LOADS, st.integers(0, 40)), max_size=60))
def test_the_count_is_never_outside_its_limits(limits, looks):
    model = Model(limits)
    for load, ready in looks:
        assert limits[0] <= model.look(load=load, ready=ready) <= limits[1]


@given(LIMITS, st.floats(0, 30), st.integers(1, 8))
def test_a_steady_load_comes_to_a_steady_count_that_is_enough(limits, offered, slots):
    model = Model(limits)
    for _ in range(200):
        model.look(load=load_of(offered, model.scaler.wanted, slots))
    steady = {model.look(load=load_of(offered, model.scaler.wanted, slots)) for _ in range(200)}
    assert len(steady) == 1
    (count,) = steady
    assert count >= min(limits[1], offered)
    assert count <= max(limits[0], 2 * offered + 2)


@given(LIMITS, st.lists(st.floats(0, 30), min_size=1, max_size=100))
def test_fewer_only_after_quiet_and_by_half_at_most(limits, offers):
    model = Model(limits)
    changed_s = 0.0
    for offered in offers:
        before = model.scaler.wanted
        wanted = model.look(offered)
        if wanted < before:
            assert model.now_s - changed_s >= 15
            assert wanted >= before / 2
        if wanted != before:
            changed_s = model.now_s
