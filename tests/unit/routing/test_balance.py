"""Balance: late binding, earliest expected completion, and what that makes of unequal replicas."""

from __future__ import annotations

from collections import Counter, deque
from heapq import heappop, heappush
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.routing.balance import Balancer, Route


def route(replica_id, slots=1, rank=3, **more):
    return Route(replica_id, f"{replica_id}/CPU", slots, rank, **more)


def balancer_of(*routes):
    balancer = Balancer()
    balancer.set_routes(routes)
    return balancer


def send(balancer, now_s=0.0):
    replica_id = balancer.choose(now_s)
    if replica_id is not None:
        balancer.started(replica_id, now_s)
    return replica_id


def measure(balancer, **service_times_s):
    """Let each replica answer one request, so that its service time is known."""
    for replica_id, service_time_s in service_times_s.items():
        balancer.started(replica_id, 0.0)
        balancer.finished(replica_id, 0.0, service_time_s)


def test_there_is_nothing_to_choose_without_replicas():
    assert Balancer().choose(0.0) is None


@pytest.mark.parametrize("slots", [1, 3])
def test_a_replica_gets_two_requests_a_slot_and_then_no_more(slots):
    balancer = balancer_of(route("a", slots))
    assert [send(balancer) for _ in range(2 * slots + 1)] == ["a"] * 2 * slots + [None]
    balancer.finished("a", 0.0, 0.01)
    assert send(balancer) == "a"
    assert send(balancer) is None


def test_a_replica_without_slots_is_not_used():
    assert balancer_of(route("a", 0)).choose(0.0) is None


def test_a_lone_request_goes_to_the_faster_replica():
    balancer = balancer_of(route("slow"), route("fast"))
    measure(balancer, slow=0.04, fast=0.01)
    for _ in range(20):
        assert send(balancer) == "fast"
        balancer.finished("fast", 0.0, 0.01)


def test_a_slow_replica_is_used_where_waiting_for_the_fast_one_takes_longer():
    balancer = balancer_of(route("slow"), route("fast"))
    measure(balancer, slow=0.015, fast=0.01)
    assert [send(balancer) for _ in range(3)] == ["fast", "slow", "fast"]


def test_slots_work_in_parallel():
    balancer = balancer_of(route("wide", 4), route("narrow", 1))
    measure(balancer, wide=0.012, narrow=0.01)
    assert [send(balancer) for _ in range(5)] == ["narrow", *["wide"] * 4]


def test_the_queue_that_other_clients_make_counts():
    balancer = balancer_of(route("busy"), route("idle"))
    measure(balancer, idle=0.02)
    balancer.started("busy", 0.0)
    balancer.finished("busy", 0.0, 0.01, queue_len=5)
    assert send(balancer) == "idle"


def test_a_tie_goes_to_the_device_that_auto_prefers():
    balancer = balancer_of(route("cpu", rank=3), route("gpu", rank=0), route("npu", rank=1))
    measure(balancer, cpu=0.01, gpu=0.01, npu=0.01)
    assert [send(balancer) for _ in range(3)] == ["gpu", "npu", "cpu"]


def test_a_tie_within_a_rank_goes_to_the_one_with_less_under_way():
    balancer = balancer_of(route("a", 2), route("b", 4))
    sent = [send(balancer) for _ in range(6)]
    assert Counter(sent) == {"a": 2, "b": 4}
    assert sent[:2] == ["a", "b"]


def test_a_replica_of_unknown_speed_is_tried_at_once():
    balancer = balancer_of(route("known"))
    measure(balancer, known=0.001)
    balancer.set_routes([route("known"), route("new")])
    assert send(balancer) == "new"


def test_an_answer_that_tells_no_time_leaves_the_speed_unknown():
    balancer = balancer_of(route("known", rank=0), route("failing"))
    measure(balancer, known=0.001)
    send(balancer)
    balancer.finished("failing", 0.0)
    assert send(balancer) == "failing"


def test_nothing_is_said_of_a_wait_while_there_is_room_or_a_replica_is_not_known():
    assert Balancer().wait_s(5) is None
    balancer = balancer_of(route("a"), route("b"))
    assert balancer.wait_s(5) is None
    measure(balancer, a=0.1)
    send_until_full(balancer)
    assert balancer.wait_s(5) is None  # b may be anything
    balancer.finished("b", 0.0, 0.1)
    assert balancer.wait_s(5) is None  # there is room again
    send_until_full(balancer)
    assert balancer.wait_s(5) is not None


def send_until_full(balancer):
    while balancer.choose(0.0) is not None:
        send(balancer)


@given(st.floats(1e-3, 10), st.integers(1, 8), st.integers(0, 200))
def test_a_wait_is_what_one_replica_needs_for_those_ahead_at_least(service_s, slots, ahead):
    balancer = balancer_of(route("a", slots))
    measure(balancer, a=service_s)
    send_until_full(balancer)
    there = balancer.in_flight["a"] - slots  # those that run are taken to be nearly done
    rounds = (there + ahead) // slots + 1
    assert service_s <= balancer.wait_s(ahead) <= rounds * service_s * (1 + 1e-9)
    assert balancer.wait_s(ahead) > (rounds - 1) * service_s * (1 - 1e-9)


def test_the_queue_that_other_clients_make_is_waited_for_too():
    balancer = balancer_of(route("a"))
    send(balancer)
    for _ in range(30):
        balancer.started("a", 0.0)
        balancer.finished("a", 0.0, 1.0, queue_len=10)
    send_until_full(balancer)
    assert balancer.wait_s(0) > 8


def test_speed_is_a_moving_average():
    balancer = balancer_of(route("a"), route("b"))
    measure(balancer, a=0.010, b=0.014)
    measure(balancer, a=0.019)  # 0.0118 on average
    assert balancer.choose(0.0) == "a"
    for _ in range(8):
        measure(balancer, a=0.019)
    assert balancer.choose(0.0) == "b"
    for _ in range(20):
        measure(balancer, a=0.010)
    assert balancer.choose(0.0) == "a"


def test_a_replica_that_has_become_slow_is_left_alone_sooner():
    balancer = balancer_of(route("a"), route("b"))
    measure(balancer, a=0.010, b=0.030)
    measure(balancer, a=0.100)
    assert balancer.choose(0.0) == "b"


def test_replicas_that_are_about_equally_fast_take_turns():
    balancer = balancer_of(route("a"), route("b"), route("c"))
    measure(balancer, a=0.0096, b=0.0100, c=0.0098)
    sent = []
    for _ in range(9):
        sent.append(send(balancer))
        balancer.finished(sent[-1], 0.0, 0.0098)
    assert Counter(sent) == {"a": 3, "b": 3, "c": 3}


def test_what_other_clients_measured_counts_until_there_is_something_better():
    balancer = balancer_of(route("a", service_time_s=0.02), route("b", service_time_s=0.01))
    assert send(balancer) == "b"
    balancer.finished("b", 0.0, 0.05)
    assert send(balancer) == "a"


def test_homes_come_first_however_fast_the_others_are():
    balancer = balancer_of(
        route("home", service_time_s=0.03), route("far", service_time_s=0.01, is_home=False)
    )
    assert [send(balancer) for _ in range(5)] == ["home", "home", "far", None, None]


def test_a_replica_that_nobody_else_uses_is_as_good_as_a_home():
    balancer = balancer_of(
        route("home", service_time_s=0.03), route("far", service_time_s=0.01, is_home=False)
    )
    for _ in range(3):
        send(balancer)
    balancer.finished("far", 0.0, 0.01, others=0)
    balancer.finished("home", 0.0, 0.03, others=0)
    assert send(balancer) == "far"


@pytest.mark.parametrize(
    ("others", "slots", "expected"), [(0, 1, 2), (1, 1, 1), (9, 1, 1), (1, 4, 4), (2, 4, 3)]
)
def test_clients_share_the_room_of_a_replica(others, slots, expected):
    balancer = balancer_of(route("a", slots))
    balancer.started("a", 0.0)
    balancer.finished("a", 0.0, 0.01, others=others)
    assert sum(send(balancer) is not None for _ in range(20)) == expected


def test_what_was_seen_at_a_replica_runs_meanwhile():
    balancer = balancer_of(route("a"), route("b"))
    measure(balancer, a=0.010, b=0.030)
    balancer.started("a", 1.0)
    balancer.finished("a", 1.0, 0.010, queue_len=5)
    assert balancer.choose(1.0) == "b"
    assert balancer.choose(1.029) == "b"  # it would be answered by a at 1.060, by b at 1.059
    assert balancer.choose(1.031) == "a"


def test_that_a_replica_was_empty_is_soon_no_news():
    balancer = balancer_of(route("often busy"), route("b"))
    measure(balancer, **{"often busy": 0.010, "b": 0.015})
    for _ in range(30):
        balancer.started("often busy", 1.0)
        balancer.finished("often busy", 1.0, 0.010, queue_len=3)
    balancer.started("often busy", 1.0)
    balancer.finished("often busy", 1.0, 0.010, queue_len=0)
    assert balancer.choose(1.005) == "often busy"
    assert balancer.choose(1.5) == "b"


def test_the_journey_counts():
    balancer = balancer_of(route("far away"), route("here"))
    for name, took_s in (("far away", 0.0150), ("here", 0.0102)):
        for _ in range(3):
            balancer.started(name, 0.0)
            balancer.finished(name, 0.0, 0.010, took_s=took_s)
    assert [send(balancer), send(balancer)] == ["here", "far away"]


def test_a_request_that_takes_long_waits_for_the_faster_replica():
    balancer = balancer_of(route("fast"), route("slow"))
    measure(balancer, fast=0.010, slow=0.025)
    balancer.started("fast", 0.0)
    balancer.started("fast", 0.0)
    balancer.finished("fast", 0.0, 0.010, queue_len=3)
    assert balancer.choose(0.0) == "slow"  # 0.03 s of waiting, and 0.01
    assert balancer.choose(0.0, cost=5.0) == "fast"  # 0.03 and 0.05, and not 0.125


def test_a_request_that_waits_moves_to_a_replica_that_falls_idle():
    balancer = balancer_of(route("fast"), route("slow"))
    measure(balancer, fast=0.008, slow=0.025)
    assert [send(balancer) for _ in range(4)] == ["fast", "fast", "slow", "slow"]
    assert balancer.steal(0.0) is None  # nobody has room
    balancer.finished("fast", 0.008, 0.008)
    balancer.finished("fast", 0.016, 0.008)
    assert balancer.steal(0.016) == ("slow", "fast")
    balancer.moved("slow", "fast", 0.016)
    assert balancer.in_flight == {"fast": 1, "slow": 1}
    assert balancer.steal(0.016) is None  # the other one runs


@pytest.mark.parametrize(("others", "expected"), [(0, ("slow", "fast")), (3, None)])
def test_where_others_ask_too_nobody_knows_well_what_has_begun(others, expected):
    balancer = balancer_of(route("fast"), route("slow", 2))
    measure(balancer, fast=0.008, slow=0.025)
    for _ in range(2):
        balancer.started("slow", 0.0)
    balancer.finished("slow", 0.0, 0.025, others=others)
    balancer.started("slow", 0.0)
    balancer.started("slow", 0.0)
    assert balancer.steal(0.001) == expected


def test_a_request_that_has_begun_stays_where_it_is():
    balancer = balancer_of(route("fast"), route("slow"))
    measure(balancer, fast=0.010, slow=0.025)
    for _ in range(4):
        send(balancer)
    balancer.finished("slow", 0.025, 0.025)
    balancer.finished("fast", 0.026, 0.010)
    balancer.finished("fast", 0.026, 0.010)
    assert balancer.steal(0.026) is None


def test_a_request_is_not_moved_for_next_to_nothing():
    balancer = balancer_of(route("a"), route("b"))
    measure(balancer, a=0.010, b=0.010)
    for _ in range(4):
        send(balancer)
    balancer.finished("b", 0.009, 0.009)
    balancer.finished("b", 0.009, 0.009)
    assert balancer.steal(0.009) is None  # 0.019 instead of 0.020


def test_nothing_is_taken_from_a_replica_that_is_gone():
    balancer = balancer_of(route("fast"), route("slow"))
    measure(balancer, fast=0.010, slow=0.025)
    for _ in range(4):
        send(balancer)
    balancer.finished("fast", 0.001, 0.010)
    balancer.forget("slow")
    assert balancer.steal(0.001) is None


def test_a_second_replica_is_used_when_it_comes_and_not_when_it_is_gone():
    balancer = balancer_of(route("a"))
    measure(balancer, a=0.010)
    assert send(balancer) == "a"
    balancer.add(route("b", service_time_s=0.010))
    assert [send(balancer) for _ in range(4)] == ["b", "a", "b", None]
    balancer.forget("a")
    balancer.finished("b", 0.0, 0.010)
    assert [send(balancer), send(balancer)] == ["b", None]
    balancer.add(route("c", service_time_s=0.010))
    balancer.finished("b", 0.0, 0.010)
    assert [send(balancer) for _ in range(4)] == ["c", "b", "c", None]


def test_new_routes_replace_the_old_ones_and_keep_what_is_known():
    balancer = balancer_of(route("a"), route("b"))
    measure(balancer, a=0.01, b=0.02)
    send(balancer)
    assert balancer.set_routes([route("a", 2), route("c")]) == {"b"}
    assert balancer.in_flight == {"a": 1, "c": 0}
    assert balancer.parallelism == 3
    balancer.finished("b", 0.0, 0.01)
    assert balancer.in_flight == {"a": 1, "c": 0}


def test_a_forgotten_replica_is_not_chosen_until_a_route_names_it():
    balancer = balancer_of(route("a"))
    balancer.forget("a")
    balancer.forget("a")
    assert balancer.choose(0.0) is None
    assert balancer.set_routes([route("a")]) == set()
    assert balancer.choose(0.0) == "a"


def test_answers_from_before_it_was_forgotten_do_not_make_room():
    balancer = balancer_of(route("a"))
    send(balancer)
    balancer.forget("a")
    balancer.set_routes([route("a")])
    balancer.finished("a", 0.0, 0.01)
    assert balancer.in_flight == {"a": 0}
    assert [send(balancer) for _ in range(3)] == ["a", "a", None]


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


@given(steps, st.randoms(use_true_random=False))
def test_only_replicas_that_are_there_and_have_room_are_chosen(steps, random):
    balancer = balancer_of(*ROUTES)
    present = {each.replica_id: each for each in ROUTES}
    under_way = []
    for step, value in steps:
        if step == "routes":
            gone = balancer.set_routes(value)
            assert gone == set(present) - {each.replica_id for each in value}
            present = {each.replica_id: each for each in value}
        elif step == "forget":
            balancer.forget(value)
            present.pop(value, None)
        elif step == "answer" and under_way:
            replica_id = under_way.pop(random.randrange(len(under_way)))
            balancer.finished(replica_id, 0.0, value, queue_len=random.randrange(9))
        elif step == "send":
            room = {
                replica_id
                for replica_id, there in present.items()
                if balancer.in_flight[replica_id] < 2 * there.slot_count
            }
            chosen = send(balancer)
            assert chosen in room if room else chosen is None
            under_way += [chosen] if chosen else []
        assert set(balancer.in_flight) == set(present)
        assert all(in_flight >= 0 for in_flight in balancer.in_flight.values())


# -- simulation ----------------------------------------------------------------------------------


class Replicas:
    """Replicas that serve first come, first served; time goes from one answer to the next."""

    def __init__(self, service_times_s, slots):
        self.now_s = 0.0
        self.answered = Counter()
        self._service_times_s = service_times_s
        self._free = dict.fromkeys(service_times_s, slots)
        self._queues = {replica_id: deque() for replica_id in service_times_s}
        self._ends = []
        self._numbers = count()

    def take(self, replica_id):
        self._queues[replica_id].append(next(self._numbers))
        self._serve(replica_id)

    def _serve(self, replica_id):
        while self._free[replica_id] and self._queues[replica_id]:
            self._free[replica_id] -= 1
            number = self._queues[replica_id].popleft()
            heappush(
                self._ends, (self.now_s + self._service_times_s[replica_id], number, replica_id)
            )

    def next_answer(self):
        """Go to the next answer: who gave it, how long it took, how many are left there."""
        self.now_s, _, replica_id = heappop(self._ends)
        self.answered[replica_id] += 1
        self._free[replica_id] += 1
        self._serve(replica_id)
        slots_in_use = sum(1 for _, _, owner in self._ends if owner == replica_id)
        queue_len = slots_in_use + len(self._queues[replica_id])
        return replica_id, self._service_times_s[replica_id], queue_len


def simulate(service_times_s, slots, request_count):
    """Push a backlog of requests through; return the replicas when all are answered."""
    replicas = Replicas(service_times_s, slots)
    balancer = balancer_of(*(route(replica_id, slots) for replica_id in service_times_s))
    waiting = request_count
    while sum(replicas.answered.values()) < request_count:
        while waiting and (replica_id := send(balancer, replicas.now_s)) is not None:
            waiting -= 1
            replicas.take(replica_id)
        replica_id, service_time_s, queue_len = replicas.next_answer()
        balancer.finished(replica_id, replicas.now_s, service_time_s, queue_len)
    return replicas


@pytest.mark.parametrize("slots", [1, 2, 8])
@pytest.mark.parametrize(
    "service_times_s",
    [
        {"slow": 0.04, "fast": 0.01},
        {"fast": 0.01, "slow": 0.04},
        {"slow": 0.04, "fast": 0.01, "slow2": 0.04, "fast2": 0.01},
    ],
)
def test_unequal_replicas_together_are_as_fast_as_the_sum_of_them(service_times_s, slots):
    request_count = 400 * slots
    done = simulate(service_times_s, slots, request_count)
    by_speed = Counter()
    for replica_id, answered in done.answered.items():
        by_speed[service_times_s[replica_id]] += answered
    assert by_speed[0.01] / by_speed[0.04] == pytest.approx(4, rel=0.1)
    ideal_per_s = sum(slots / service_time_s for service_time_s in service_times_s.values())
    assert request_count / done.now_s == pytest.approx(ideal_per_s, rel=0.1)
