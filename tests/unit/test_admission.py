"""Who is refused at once, and what they are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.admission import (
    check_deadline,
    check_max_waiting,
    expected_s,
    overloaded,
    retry_after_s,
    smoothed,
)
from atriva_inference.errors import DeadlineExceededError, OptionError
from atriva_inference.terms import USUAL, Terms

times = st.floats(1e-6, 100)
counts = st.integers(0, 1000)


@given(times, st.integers(1, 64), counts)
def test_whoever_need_not_wait_is_always_tried(service_s, slots, ahead):
    expected = expected_s(service_s, slots, ahead)
    assert (expected is None) == (ahead < slots)
    assert expected_s(None, slots, ahead) is None


@given(times, st.integers(1, 64), counts)
def test_nobody_is_refused_who_could_have_been_answered(service_s, slots, ahead):
    """Every request takes `service_s`; those that run now end at once, which is the best case."""
    expected = expected_s(service_s, slots, ahead)
    if expected is not None:
        free_s = [0.0] * slots
        for _ in range(ahead - slots):
            slot = free_s.index(min(free_s))
            free_s[slot] += service_s
        assert expected == pytest.approx(min(free_s) + service_s)


@given(times, st.integers(1, 64), counts)
def test_a_round_more_ahead_takes_longer(service_s, slots, ahead):
    sooner, later = (expected_s(service_s, slots, ahead + more) for more in (0, slots))
    assert later is not None
    assert sooner is None or later == pytest.approx(sooner + service_s)


def test_a_deadline_that_cannot_be_met_is_refused_and_the_error_says_by_how_much():
    terms = Terms(0.5, 10.5)
    check_deadline("m", terms, 0.5, 10.0)
    check_deadline("m", terms, None, 10.4)
    check_deadline("m", USUAL, 1e9, 10.0)
    with pytest.raises(DeadlineExceededError) as caught:
        check_deadline("m", terms, 0.75, 10.0)
    assert (caught.value.timeout_s, caught.value.expected_s) == (0.5, 0.75)
    assert "0.75 s" in str(caught.value)
    assert "0.5 s were allowed" in str(caught.value)


def test_a_deadline_that_has_passed_is_refused():
    with pytest.raises(DeadlineExceededError, match="within 0 s"):
        check_deadline("m", Terms(0.0, 10.0), None, 10.0)


@given(st.one_of(st.none(), st.floats(0, 1e9)), st.floats(0, 1e9))
def test_a_retry_is_neither_at_once_nor_for_ever_away(drained_s, more_s):
    after_s = retry_after_s(drained_s)
    assert 0 < after_s <= 30
    if drained_s is not None:
        assert retry_after_s(drained_s + more_s) >= after_s


def test_who_is_one_too_many_is_told_how_many_wait():
    error = overloaded(7, 6, 4.0)
    assert (error.waiting, error.limit, error.retry_after_s) == (7, 6, 2.0)


@given(st.one_of(st.none(), times), times)
def test_the_average_lies_between_what_it_was_and_the_newest(before_s, newest_s):
    average_s = smoothed(before_s, newest_s)
    low, high = sorted((newest_s if before_s is None else before_s, newest_s))
    assert low * (1 - 1e-9) <= average_s <= high * (1 + 1e-9)


@pytest.mark.parametrize("limit", [-1, 1.5, "many", True])
def test_what_is_no_limit_is_refused(limit):
    with pytest.raises(OptionError, match="max_waiting"):
        check_max_waiting(limit)


@pytest.mark.parametrize("limit", [None, 0, 1, 10**9])
def test_what_is_a_limit_is_taken(limit):
    assert check_max_waiting(limit) == limit
