"""Classes of speed: equal ones together, and no coming and going in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.routing.speeds import Speeds


def test_replicas_of_very_different_speed_are_of_different_classes():
    speeds = Speeds()
    assert speeds.of("a") is None
    assert speeds.measured({"a": 0.001, "b": 0.004, "c": 0.0011, "d": None, "e": 0.0})
    assert speeds.of("a") == speeds.of("c") != speeds.of("b")
    assert speeds.of("d") is None
    assert speeds.of("e") is None


def test_what_has_not_really_changed_is_no_news():
    speeds = Speeds()
    assert speeds.measured({"a": 0.010})
    before = speeds.of("a")
    assert not speeds.measured({"a": 0.012})
    assert not speeds.measured({"a": 0.007})
    assert speeds.of("a") == before
    assert speeds.measured({"a": 0.100})
    assert speeds.of("a") != before


def test_who_is_gone_is_forgotten():
    speeds = Speeds()
    speeds.measured({"a": 0.1, "b": 0.1})
    speeds.keep({"b", "c"})
    assert speeds.of("a") is None
    assert speeds.of("b") is not None


@given(st.floats(1e-6, 100), st.lists(st.floats(0.85, 1.17), max_size=50))
def test_a_moving_average_that_swings_a_little_settles(service_time_s, swings):
    speeds = Speeds()
    changes = [speeds.measured({"a": service_time_s * swing}) for swing in [1.0, *swings]]
    assert changes.count(True) <= 2
