"""How priority and deadline travel, and what comes of them at the other end."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.terms import USUAL, Priority, Terms
from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.frames import SPECIALISE
from atriva_ray.lanes.urgency import late_ones, packed, too_late, unpacked


@given(st.sampled_from(Priority), st.one_of(st.none(), st.floats(1e-6, 4000)))
def test_terms_arrive_on_the_other_clock(priority, left_s):
    terms = Terms(priority=priority)
    if left_s is not None:
        terms = Terms(5000.0, 100.0 + left_s, priority)
    flags, left_us = packed(terms, 100.0)
    assert flags & SPECIALISE == 0
    arrived = unpacked(flags | SPECIALISE, left_us, 7.0)
    assert arrived.priority is priority
    if left_s is None:
        assert arrived.deadline_s is None
    else:
        assert arrived.deadline_s == pytest.approx(7.0 + left_s, abs=2e-6)


def test_what_is_usual_takes_no_bits():
    assert packed(USUAL, 1.0) == (0, 0)
    assert unpacked(SPECIALISE, 0, 1.0) is USUAL


def test_a_deadline_that_has_passed_is_not_taken_for_none():
    assert packed(Terms(1.0, 5.0), 9.0) == (0, 1)


def test_a_deadline_too_far_for_the_field_is_the_clients_alone():
    assert packed(Terms(1e6, 1e6), 0.0) == (0, 0)


def test_a_priority_that_does_not_exist_is_refused():
    with pytest.raises(FrameError, match="priority"):
        unpacked(0b11 << 4, 0, 0.0)


def test_those_whose_time_is_over_are_found():
    now_s = time.monotonic()
    assert late_ones([USUAL, Terms(1.0, now_s + 1000), Terms(1.0, now_s - 1), USUAL]) == [2]
    assert late_ones([USUAL]) == []
    assert "was not run there" in str(too_late("m", Terms(1.0, now_s)))
