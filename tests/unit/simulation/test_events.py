"""The clock of simulations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.simulation.events import Events


@given(st.lists(st.floats(0, 100)))
def test_things_happen_in_their_order_and_at_their_time(times):
    events = Events()
    happened = []
    for number, time_s in enumerate(times):
        events.at(time_s, lambda number=number: happened.append((events.now_s, number)))
    events.run()
    assert happened == sorted((time_s, number) for number, time_s in enumerate(times))


def test_what_happens_may_have_something_else_happen():
    events = Events()
    seen = []

    def step(left):
        seen.append(events.now_s)
        if left:
            events.at(events.now_s + 1, step, left - 1)

    events.at(5, step, 3)
    events.run()
    assert seen == [5, 6, 7, 8]


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_what_comes_happens_after_all_else_of_its_time(times, coming):
    events = Events()
    happened = []

    def happen(what):
        happened.append((events.now_s, what))

    for time_s in times:
        events.at(time_s, happen, 0)
    events.run((time_s, happen, 1) for time_s in sorted(coming))
    assert happened == sorted([(each, 0) for each in times] + [(each, 1) for each in coming])
