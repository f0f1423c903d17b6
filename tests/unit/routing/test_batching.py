"""The learner of batch sizes: it finds the right one for any device, and trying costs little."""

from __future__ import annotations

import random
from functools import partial
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.routing.batching import BatchLearner

POWERS = [1, 2, 4, 8, 16, 32]


class Device:
    """Takes as long as a function of the rows says; a clock of its own."""

    def __init__(self, cost_s, learner=None):
        self.cost_s = cost_s
        self.learner = learner or BatchLearner()
        self.now_s = 0.0
        self.sizes = []
        self.lost_s = 0.0

    def run(self, count, waiting=64):
        for number in range(count):
            waits = waiting(number) if callable(waiting) else waiting
            size = self.learner.limit(waits)
            assert size in POWERS
            assert size <= waits
            time_s = self.cost_s(size)
            self.now_s += time_s
            self.learner.ran(size, time_s, self.now_s)
            self.sizes.append(size)
        return self

    @property
    def best(self):
        return self.learner.best_rows


def rate(cost_s, size):
    return size / cost_s(size)


# -- which size ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cost_s", "best"),
    [
        (lambda _n: 0.005, 32),
        (lambda n: 0.005 * n, 1),
        (lambda n: 0.005 * n**1.2, 1),
        (lambda n: 0.004 + 0.0002 * n, 32),
        (lambda n: 0.001 + 0.001 * n, 8),
        (lambda n: 0.002 * n**0.95, 1),  # 3.5 % per doubling is not worth the waiting for the last
        (lambda n: 0.005 * max(1, n / 4), 4),
        (lambda n: 0.005 if n < 8 else 0.02, 4),
        (lambda n: 0.04 + 0.005 * n, 16),  # 32 would earn more, and take 200 ms
        (lambda n: 20e-6 + 1e-6 * n, 32),
        (
            lambda n: 0.005 * n if n < 4 else 0.004 + 0.0005 * n,
            32,
        ),  # nothing at two, much from four on
    ],
)
def test_the_best_size_is_found(cost_s, best):
    assert Device(cost_s).run(600).best == best


@settings(deadline=None)
@given(
    st.floats(0.0, 0.02),
    st.floats(1e-5, 0.005),
    st.floats(0.0, 0.25),
    st.integers(0, 2**20),
)
def test_a_device_that_takes_a_while_and_then_some_per_row_is_used_well(fixed, each, noise, seed):
    chance = random.Random(seed)  # noqa: S311 - a simulation

    def cost_s(rows):
        return fixed + each * rows

    device = Device(lambda n: cost_s(n) * chance.uniform(1 - noise, 1 + noise)).run(400)
    allowed = [n for n in POWERS if cost_s(n) <= max(0.1, 4 * cost_s(1))]
    reachable = max(rate(cost_s, n) for n in allowed)
    assert rate(cost_s, device.best) >= (0.7 - noise) * reachable


@settings(deadline=None)
@given(st.floats(1.2e-3, 0.02), st.integers(0, 2**20))
def test_a_device_that_gains_nothing_runs_one_by_one(each, seed):
    chance = random.Random(seed)  # noqa: S311 - a simulation
    device = Device(lambda n: each * n * chance.uniform(0.97, 1.03)).run(1000)
    assert device.best == 1
    assert mean(device.sizes) < 1.2
    assert max(device.sizes) <= 8


@settings(deadline=None)
@given(st.lists(st.integers(1, 100), min_size=200, max_size=200), st.integers(0, 99))
def test_no_more_rows_are_ever_taken_than_wait(waiting, seed):
    chance = random.Random(seed)  # noqa: S311 - a simulation
    Device(lambda _n: chance.uniform(1e-4, 1.0)).run(200, waiting.__getitem__)


def test_a_size_is_tried_only_when_that_many_wait():
    device = Device(lambda _n: 0.005).run(400, 7)
    assert device.best == 4
    assert set(device.sizes) == {1, 2, 4}
    assert device.learner.wanted_rows == 8  # should they wait
    device.run(60, 8)
    assert device.best == 8


def test_few_that_wait_are_run_as_is_best_for_few():
    device = Device(lambda n: 0.005 * n if n < 4 else 0.006).run(400)
    assert device.best == 32
    assert device.learner.best_of(3) == 1
    assert device.learner.best_of(7) == 4


def test_spikes_change_nothing():
    chance = random.Random(3)  # noqa: S311 - a simulation

    def cost_s(rows):
        return (0.004 + 0.0002 * rows) * (100 if chance.random() < 0.03 else 1)

    assert Device(cost_s).run(600).best == 32
    assert Device(lambda n: 0.005 * n * (100 if chance.random() < 0.03 else 1)).run(600).best == 1


def test_on_a_processor_that_others_use_chance_is_seldom_taken_for_gain():
    used = []
    for seed in range(20):
        chance = random.Random(seed)  # noqa: S311 - a simulation
        slowed = partial(chance.choice, [1, 1, 2, 3, 5])  # by what others do
        device = Device(lambda n, slowed=slowed: 0.004 * n * slowed()).run(2000)
        used.append(mean(device.sizes))
    assert mean(used) < 1.8


def test_the_first_run_of_a_size_is_preparation_and_does_not_count():
    seen = set()

    def cost_s(rows):
        is_new = rows not in seen
        seen.add(rows)
        return 0.5 if is_new else 0.005

    assert Device(cost_s).run(400).best == 32


def test_where_preparation_takes_long_no_larger_size_is_tried():
    seen = set()

    def cost_s(rows):
        is_new = rows not in seen
        seen.add(rows)
        return 20.0 if is_new and rows == 4 else 0.005

    device = Device(cost_s).run(400)
    assert max(device.sizes) == 4


def test_a_size_that_fails_by_itself_is_given_up():
    device = Device(lambda _n: 0.005).run(400)
    for size in (32, 16, 8, 4, 2):
        device.learner.failed(size)
    assert device.best == 1


# -- what it costs -------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.floats(1e-4, 0.1), st.floats(0.0, 0.3), st.integers(0, 2**20))
def test_trying_costs_a_device_that_gains_nothing_next_to_nothing(each, worse, seed):
    chance = random.Random(seed)  # noqa: S311 - a simulation

    def cost_s(rows):
        return each * rows * (1 + worse * (rows > 1)) * chance.uniform(0.95, 1.05)

    device = Device(cost_s).run(1000)
    rows = sum(device.sizes)
    assert device.now_s <= each * rows * 1.06


def test_sizes_that_gain_nothing_are_tried_ever_more_rarely():
    device = Device(lambda n: 0.005 * n).run(100_000)
    larger = [number for number, size in enumerate(device.sizes) if size > 1]
    assert len(larger) < 100
    assert larger[-1] > 50_000  # but not never


# -- change --------------------------------------------------------------------------------------


def loaded(load, n):
    return ordinary(n) * load


def ordinary(n):
    return 0.004 + 0.0002 * n


@pytest.mark.parametrize(
    ("before", "after", "best"),
    [
        (lambda _n: 0.005, lambda n: 0.005 * n, 1),
        (lambda n: 0.005 * n, lambda _n: 0.0005, 32),
        (ordinary, lambda n: 3 * ordinary(n), 32),
        (lambda n: 3 * ordinary(n), ordinary, 32),
        (lambda n: 0.005 * n, lambda n: 0.015 * n, 1),
        (ordinary, lambda n: 0.002 * n, 1),
    ],
)
def test_a_device_that_changes_is_learned_again(before, after, best):
    device = Device(before).run(500)
    device.cost_s = after
    device.run(1500)
    assert device.best == best


def test_a_device_that_comes_to_gain_without_getting_slower_is_found_out_in_time():
    device = Device(lambda n: 0.005 * n).run(500)
    assert device.best == 1
    device.cost_s = lambda _n: 0.005
    device.run(5000)
    assert device.best == 32


@settings(deadline=None)
@given(st.floats(0.2, 5.0), st.integers(0, 2**20))
def test_others_on_the_same_processor_do_not_change_what_is_best(factor, seed):
    chance = random.Random(seed)  # noqa: S311 - a simulation
    device = Device(ordinary)
    for load in (1.0, factor, 1.0, factor):
        device.cost_s = partial(loaded, load * chance.uniform(0.9, 1.1))
        device.run(400)
        assert device.best >= 16


# -- what is told --------------------------------------------------------------------------------


def test_nothing_is_known_at_first():
    learner = BatchLearner()
    assert learner.limit(100) == 1
    assert learner.expected_s(1) is None
    assert learner.report() == ()
    assert (learner.best_rows, learner.max_rows) == (1, 32)


def test_times_of_sizes_between_are_guessed_from_those_known():
    learner = Device(lambda n: 0.004 + 0.001 * n).run(600).learner
    assert learner.expected_s(4) == pytest.approx(0.008)
    assert learner.expected_s(3) == pytest.approx(0.008)
    assert learner.expected_s(64) is None


def test_requests_of_several_rows_are_counted_by_their_rows():
    learner = BatchLearner()
    for number in range(200):
        rows = max(3, learner.limit(60) // 3 * 3)
        learner.ran(rows, 0.005, number * 0.005)
    assert learner.best_rows == 32
    learner.ran(1000, 1.0, 2.0)  # more than there may be: ignored
    assert learner.best_rows == 32
