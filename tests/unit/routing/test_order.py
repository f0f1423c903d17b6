"""The order of replicas: whatever happened, nobody is first who is expected to answer last."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.routing.load import Load, Route
from atriva_ray.routing.order import Order

STEP = 2 ** (1 / 4)  # service times that differ by less count as equal


def load(number, slots, service_time_s):
    return Load(Route(str(number), "node/CPU", slots, 0), service_time_s)


events = st.lists(
    st.tuples(
        st.integers(0, 4),
        st.floats(0, 0.05),
        st.sampled_from(["sent", "answered"]),
        st.integers(0, 6),
    ),
    max_size=60,
)
replicas = st.lists(st.tuples(st.integers(1, 3), st.floats(1e-3, 0.1)), min_size=1, max_size=5)


@given(replicas, events)
def test_the_first_is_never_much_worse_than_the_best(replicas, events):
    order = Order(count(1))
    loads = [load(number, *replica) for number, replica in enumerate(replicas)]
    now_s = 0.0
    for each in loads:
        order.put(each, now_s)
    for number, pause_s, what, queue_len in events:
        now_s += pause_s
        changed = loads[number % len(loads)]
        if what == "sent":
            changed.in_flight += 1
        elif changed.in_flight:
            changed.in_flight -= 1
            changed.learn(changed.service_time_s, None, queue_len, now_s)
        order.put(changed, now_s)
        first = order.first(now_s)
        best_s = min(each.wait_s(now_s) + each.takes_s for each in loads)
        assert first is not None
        assert first.wait_s(now_s) + first.takes_s <= STEP * best_s * (1 + 1e-9)


def test_who_was_taken_out_does_not_come_back():
    order = Order(count(1))
    first, second = load(1, 1, 0.01), load(2, 1, 0.02)
    order.put(first, 0.0)
    order.put(second, 0.0)
    first.entry = 0
    assert order.first(0.0) is second
    second.entry = 0
    assert order.first(0.0) is None


def test_entries_of_the_past_do_not_pile_up():
    order = Order(count(1))
    slow, fast = load(1, 1, 1.0), load(2, 1, 0.001)
    order.put(fast, 0.0)
    for _ in range(10_000):
        order.put(slow, 0.0)
        assert order.first(0.0) is fast
    assert order.size < 300
