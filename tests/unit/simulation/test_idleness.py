"""Replicas with nothing to do while requests wait, beside the same counted one by one."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.simulation.idleness import IdleSpells, Waits, most_idle_while_waiting


def waits(*each):
    requests, begin_s, end_s = np.array(each, float).reshape(-1, 3).T
    return Waits(requests.astype(int), begin_s, end_s)


def idle(*each):
    replicas, begin_s, end_s, service_time_s = np.array(each, float).reshape(-1, 4).T
    return IdleSpells(replicas.astype(int), begin_s, end_s, service_time_s)


def one_by_one(waits, idle):
    found = {}
    for request, wait_begin, wait_end in zip(
        waits.requests, waits.begin_s, waits.end_s, strict=True
    ):
        for replica, begin, end, takes in zip(
            idle.replicas, idle.begin_s, idle.end_s, idle.service_time_s, strict=True
        ):
            both = max(0.0, min(wait_end, end) - max(wait_begin, begin))
            found[request, replica] = found.get((request, replica), 0.0) + both / takes
    return max(found.values(), default=0.0)


TIMES = st.one_of(st.integers(0, 20).map(float), st.floats(0, 20))


@st.composite
def spans(draw, most, times):
    """Of a few owners: spans that do not overlap."""
    found = []
    for owner in range(draw(st.integers(0, most))):
        ends = sorted(draw(st.lists(times, max_size=6)))
        found += [(owner * 3, *pair) for pair in zip(ends[::2], ends[1::2], strict=False)]
    return draw(st.permutations(found))


@settings(max_examples=100, deadline=None)
@given(spans(90, TIMES), spans(6, TIMES), st.data())
def test_it_is_what_counting_finds(waiting, spells, data):
    spells = [(*spell, data.draw(st.sampled_from([0.5, 1.0, 7.0]))) for spell in spells]
    found = most_idle_while_waiting(waits(*waiting), idle(*spells))
    assert found == pytest.approx(one_by_one(waits(*waiting), idle(*spells)), abs=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_counting_finds_among_many(seed):
    """Enough requests for many blocks, few enough replicas for counting."""
    random = np.random.default_rng(seed)
    begin_s = random.uniform(0, 100, 1_500)
    waiting = Waits(
        np.repeat(np.arange(750), 2),
        np.sort(begin_s.reshape(-1, 2), axis=1).ravel(),
        np.zeros(1_500),
    )
    # The second wait of a request begins when its first is over.
    lasting_s = random.exponential(random.choice([0.1, 1, 10]), 1_500)
    waiting.end_s[:] = waiting.begin_s + lasting_s
    waiting.end_s[::2] = np.minimum(waiting.end_s[::2], waiting.begin_s[1::2])
    ends_s = np.sort(random.uniform(0, 100, (5, 40)), axis=1)
    spells = IdleSpells(
        np.repeat(np.arange(5), 20),
        ends_s[:, ::2].ravel(),
        ends_s[:, 1::2].ravel(),
        random.choice([0.5, 1.0, 7.0], 100),
    )
    assert most_idle_while_waiting(waiting, spells) == pytest.approx(one_by_one(waiting, spells))


def test_one_that_waits_twice_waits_as_long_as_both_together():
    spells = idle((7, 0, 10, 2.0), (8, 0, 3, 0.5))
    assert most_idle_while_waiting(waits((3, 1, 2), (3, 4, 9), (5, 1, 6)), spells) == 4
    assert most_idle_while_waiting(waits((3, 1, 2), (3, 4, 9)), idle((7, 0, 10, 2.0))) == 3


@pytest.mark.parametrize(
    ("waiting", "spells"),
    [
        ([], []),
        ([(0, 1, 2)], []),
        ([], [(0, 1, 2, 1.0)]),
        ([(0, 1, 2)], [(0, 2, 3, 1.0), (1, 0, 1, 1.0)]),
        ([(0, 1, 1)], [(0, 0, 3, 1.0)]),
    ],
)
def test_where_nobody_waits_beside_an_idle_one_there_is_nothing(waiting, spells):
    assert most_idle_while_waiting(waits(*waiting), idle(*spells)) == 0


def test_many_replicas_and_requests_take_seconds():
    random = np.random.default_rng(1)
    begin_s = random.uniform(0, 10, 300_000)
    waiting = Waits(np.arange(300_000), begin_s, begin_s + random.exponential(0.02, 300_000))
    ends_s = np.sort(random.uniform(0, 10, (1_000, 300)), axis=1)
    spells = IdleSpells(
        np.repeat(np.arange(1_000), 150),
        ends_s[:, ::2].ravel(),
        ends_s[:, 1::2].ravel(),
        np.full(150_000, 0.005),
    )
    begin = time.process_time()
    assert most_idle_while_waiting(waiting, spells) > 1
    assert time.process_time() - begin < 20
