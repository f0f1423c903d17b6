"""OpenVINO's schedule policies: what each prefers, and what all of them have in common."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.routing.auto import SchedulePolicy
from atriva_ray.routing.balance import Balancer, Route
from atriva_ray.routing.schedules import DevicePriority, RoundRobin, make_schedule


def route(replica_id, slots=1, rank=3):
    return Route(replica_id, f"{replica_id}/CPU", slots, rank)


def scheduled(schedule, *routes):
    schedule.set_routes(routes)
    return schedule


def send(schedule):
    replica_id = schedule.choose(0.0)
    if replica_id is not None:
        schedule.started(replica_id, 0.0)
    return replica_id


def test_each_policy_has_its_schedule():
    kinds = {policy: type(make_schedule(policy)) for policy in SchedulePolicy}
    assert kinds == {
        SchedulePolicy.EARLIEST: Balancer,
        SchedulePolicy.DEVICE_PRIORITY: DevicePriority,
        SchedulePolicy.ROUND_ROBIN: RoundRobin,
    }


def test_the_preferred_device_is_filled_before_others_get_anything():
    schedule = scheduled(DevicePriority(), route("cpu", 2, rank=3), route("gpu", 3, rank=0))
    assert [send(schedule) for _ in range(5)] == ["gpu"] * 3 + ["cpu"] * 2
    # All slots work: what waits beside them goes in the same order.
    assert [send(schedule) for _ in range(6)] == ["gpu"] * 3 + ["cpu"] * 2 + [None]
    schedule.finished("gpu", 0.0, 0.01)
    assert send(schedule) == "gpu"


def test_a_lone_request_always_goes_to_the_preferred_device_however_slow():
    schedule = scheduled(DevicePriority(), route("cpu", rank=3), route("gpu", rank=0))
    for service_time_s in (1.0, 0.001):
        assert send(schedule) == "gpu"
        schedule.finished("gpu", 0.0, service_time_s)


def test_replicas_of_one_device_kind_fill_evenly():
    schedule = scheduled(DevicePriority(), route("a", 2), route("b", 2))
    assert [send(schedule) for _ in range(4)] == ["a", "b", "a", "b"]


def test_a_preferred_device_that_others_fill_is_passed_over():
    schedule = scheduled(DevicePriority(), route("cpu", rank=3), route("gpu", rank=0))
    send(schedule)
    schedule.finished("gpu", 0.0, 0.01, queue_len=4)
    assert send(schedule) == "cpu"
    schedule.finished("cpu", 0.0, 0.01)
    sent = []
    for _ in range(4):  # what was said of the queue gets old
        sent.append(send(schedule))
        schedule.finished(sent[-1], 0.0, 0.01)
    assert sent[-1] == "gpu"


def test_turns_are_taken_whatever_the_speed():
    schedule = scheduled(RoundRobin(), route("slow"), route("fast", rank=0), route("new"))
    sent = []
    for _ in range(9):
        sent.append(send(schedule))
        schedule.finished(sent[-1], 0.0, 1.0 if sent[-1] == "slow" else 0.001)
    assert sent == ["slow", "fast", "new"] * 3


def test_a_full_replica_loses_its_turn_and_no_more():
    schedule = scheduled(RoundRobin(), route("a"), route("b", 2))
    assert [send(schedule) for _ in range(7)] == ["a", "b", "a", "b", "b", "b", None]
    schedule.finished("a", 0.0)
    assert send(schedule) == "a"


def test_who_joins_gets_its_turn():
    schedule = scheduled(RoundRobin(), route("a", 9))
    send(schedule)
    schedule.add(route("b", 9))
    assert [send(schedule) for _ in range(4)] == ["a", "b", "a", "b"]
    schedule.forget("a")
    assert [send(schedule) for _ in range(2)] == ["b", "b"]


def test_how_long_replicas_stay_busy_is_known_once_they_answered():
    schedule = scheduled(RoundRobin(), route("a", 2))
    assert schedule.lasts_s is None
    send(schedule)
    schedule.finished("a", 0.0, 0.4)
    assert schedule.lasts_s is None
    send(schedule)
    assert schedule.lasts_s == pytest.approx(0.2)


ROUTES = [route("a", 1), route("b", 2, rank=0), route("c", 3), route("d", 0)]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("routes"), st.lists(st.sampled_from(ROUTES), unique=True)),
        st.tuples(st.just("forget"), st.sampled_from("abcd")),
        st.tuples(st.just("send"), st.none()),
        st.tuples(st.just("send"), st.none()),
        st.tuples(st.just("answer"), st.none() | st.floats(1e-6, 10)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("kind", [DevicePriority, RoundRobin])
@given(steps=steps, random=st.randoms(use_true_random=False))
def test_only_replicas_that_are_there_and_have_room_are_chosen(kind, steps, random):
    schedule = scheduled(kind(), *ROUTES)
    present = {each.replica_id: each for each in ROUTES}
    under_way = Counter()
    for step, value in steps:
        if step == "routes":
            assert schedule.set_routes(value) == set(present) - {each.replica_id for each in value}
            present = {each.replica_id: each for each in value}
        elif step == "forget":
            schedule.forget(value)
            present.pop(value, None)
        elif step == "answer" and +under_way:
            replica_id = random.choice(sorted(+under_way))
            under_way[replica_id] -= 1
            schedule.finished(replica_id, 0.0, value, queue_len=random.randrange(9))
        elif step == "send":
            room = {
                replica_id
                for replica_id, there in present.items()
                if schedule.in_flight[replica_id] < 2 * there.slot_count
            }
            chosen = send(schedule)
            assert chosen in room if room else chosen is None
            under_way[chosen] += chosen is not None
        assert set(schedule.in_flight) == set(present)
        assert all(count >= 0 for count in schedule.in_flight.values())
        assert schedule.parallelism == sum(each.slot_count for each in present.values())
