"""When what was lost is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.serve.losses import Losses


def tries(losses, load_id, until_s, step_s=0.25):
    """Return when a load is tried whose every try fails at once."""
    tried, now_s = [], 0.0
    while now_s <= until_s:
        if load_id in losses.due(now_s):
            tried.append(now_s)
            losses.failed(load_id, now_s)
        now_s += step_s
    return tried


def test_the_first_try_comes_at_once_and_the_others_ever_later_up_to_15_seconds():
    losses = Losses()
    losses.update(["a"], 0.0)
    assert tries(losses, "a", 61.0) == [0, 1, 3, 7, 15, 30, 45, 60]


def test_a_try_that_takes_long_is_the_only_one():
    losses = Losses()
    losses.update(["a"], 0.0)
    assert losses.due(0.0) == ("a",)
    for now_s in (1.0, 100.0):
        losses.update(["a"], now_s)
        assert losses.due(now_s) == ()
    losses.failed("a", 100.0)
    assert losses.due(100.5) == ()
    assert losses.due(101.0) == ("a",)


def test_all_that_are_lost_are_tried_at_the_same_time():
    losses = Losses()
    losses.update(["a", "b", "c"], 5.0)
    assert set(losses.due(5.0)) == {"a", "b", "c"}


def test_the_row_of_what_is_not_missed_any_more_ends():
    losses = Losses()
    losses.update(["a", "b"], 0.0)
    assert tries(losses, "a", 20.0)
    losses.update(["b"], 20.0)
    losses.failed("a", 20.0)  # of a try that was under way
    assert "a" not in losses.due(1000.0)
    losses.update(["a"], 2000.0)
    assert losses.due(2000.0) == ("a",)


@given(
    st.floats(0.01, 10),
    st.floats(0.01, 100),
    st.lists(st.floats(0, 50), min_size=1, max_size=30),
)
def test_no_wait_is_longer_than_the_last_one(first_s, last_s, durations):
    losses = Losses(first_s, max(first_s, last_s))
    losses.update(["a"], 0.0)
    now_s, waits = 0.0, []
    for duration_s in durations:
        assert losses.due(now_s) == ("a",)
        now_s += duration_s
        losses.failed("a", now_s)
        assert losses.due(now_s) == ()
        row = losses._rows["a"]
        waits.append(row.next_s - now_s)
        now_s = row.next_s
    assert waits == sorted(waits) or waits == pytest.approx(sorted(waits))
    assert max(waits) <= max(first_s, last_s) * 1.001
