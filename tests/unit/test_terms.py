"""What a caller may say about a request besides its inputs."""

from __future__ import annotations

import math

import pytest

from atriva_inference.errors import OptionError
from atriva_inference.terms import RANKS, USUAL, Priority, Terms, make_terms


def test_saying_nothing_is_usual():
    assert make_terms(None, Priority.MEDIUM, 5.0) is USUAL
    assert make_terms(None, "medium", 5.0) is USUAL
    assert make_terms(math.inf, "MEDIUM", 5.0) is USUAL


def test_the_time_counts_from_the_call():
    assert make_terms(2, "high", 5.0) == Terms(2.0, 7.0, Priority.HIGH)
    assert make_terms(0, Priority.LOW, 5.0) == Terms(0.0, 5.0, Priority.LOW)
    assert make_terms(None, "Low", 5.0) == Terms(priority=Priority.LOW)


@pytest.mark.parametrize("timeout_s", [-1, -0.001, math.nan, True, "1", [1]])
def test_what_is_no_time_is_refused(timeout_s):
    with pytest.raises(OptionError, match="timeout_s"):
        make_terms(timeout_s, Priority.MEDIUM, 0.0)


@pytest.mark.parametrize("priority", ["urgent", "", 0, 2, None])
def test_what_is_no_priority_is_refused(priority):
    with pytest.raises(OptionError, match="HIGH, MEDIUM, LOW"):
        make_terms(None, priority, 0.0)


def test_priority_counts_before_deadlines_and_these_before_none():
    ranks = [Terms(t, t, p).rank for p in Priority for t in (1.0, None)]
    assert ranks == list(range(RANKS))
