"""When to wait for more requests: programs that come back at once get larger batches, and nobody
waits where that makes answers later."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.routing.batching import BatchLearner
from atriva_ray.routing.patience import Patience

RETURN_S = 100e-6


class Replica:
    """One slot of a simulated device, with programs that send the next request when answered
    (`clients`), or requests that come by chance (`rate`, per second)."""

    def __init__(self, cost_s, clients=0, rate=0.0, seed=0):
        self.cost_s = cost_s
        self.clients = clients
        self.rate = rate
        self.chance = random.Random(seed)  # noqa: S311 - a simulation
        self.learner = BatchLearner()
        self.patience = Patience(1)
        self.now_s = 0.0
        self.coming = [self.chance.uniform(0, 1e-3) for _ in range(clients)]
        self.queue = []
        self.answered = 0
        self.latency_s = 0.0
        heapq.heapify(self.coming)
        if rate:
            self.come_by_chance(0.0)

    def come_by_chance(self, last_s):
        heapq.heappush(self.coming, last_s + self.chance.expovariate(self.rate))

    def receive(self):
        while self.coming and self.coming[0] <= self.now_s:
            came_s = heapq.heappop(self.coming)
            self.queue.append(came_s)
            if self.rate:
                self.come_by_chance(came_s)

    def wait(self):
        wait = self.patience.plan(len(self.queue), 1, self.learner, float("inf"), self.now_s)
        if wait is None:
            return
        while len(self.queue) < wait.enough and self.now_s < wait.until_s:
            self.now_s = min([wait.until_s, *self.coming[:1]])
            self.receive()
            wait.saw(len(self.queue), self.now_s)
        self.patience.waited(wait, self.now_s)

    def run(self, count, is_patient=True):
        """Run that many batches; return answers per second and the mean latency in seconds."""
        self.answered, self.latency_s, began_s = 0, 0.0, self.now_s
        for _ in range(count):
            self.receive()
            if not self.queue:
                self.now_s = self.coming[0]
                self.receive()
            if is_patient:
                self.wait()
            size = self.learner.limit(len(self.queue))
            time_s = self.cost_s(size)
            self.now_s += time_s
            self.learner.ran(size, time_s, self.now_s)
            self.patience.ran(time_s, self.now_s)
            for came_s in self.queue[:size]:
                self.latency_s += self.now_s - came_s
                if self.clients:
                    back_s = RETURN_S * self.chance.uniform(0.5, 1.5)
                    heapq.heappush(self.coming, self.now_s + back_s)
            del self.queue[:size]
            self.answered += size
        return self.answered / (self.now_s - began_s), self.latency_s / self.answered


def constant(_rows):
    return 0.005


def ordinary(rows):
    return 0.004 + 0.0002 * rows


def linear(rows):
    return 0.004 * rows


@pytest.mark.parametrize("clients", [4, 8, 16, 32])
@pytest.mark.parametrize("cost_s", [constant, ordinary])
def test_programs_that_come_back_at_once_share_one_batch(cost_s, clients):
    replica = Replica(cost_s, clients)
    replica.run(1500)
    rate, latency_s = replica.run(500)
    reachable = clients / (cost_s(clients) + 2 * RETURN_S)
    assert rate > 0.9 * reachable
    impatient = Replica(cost_s, clients)
    impatient.run(1500, is_patient=False)
    assert latency_s < 0.85 * impatient.run(500, is_patient=False)[1]


@pytest.mark.parametrize("clients", [1, 2, 16, 40])
def test_where_a_batch_takes_as_long_as_its_rows_alone_nobody_waits(clients):
    replica = Replica(linear, clients)
    replica.run(200)
    before_s = replica.patience.waited_s
    rate, _ = replica.run(2000)
    assert rate > 0.98 / (0.004 + (clients == 1) * RETURN_S)
    assert replica.patience.waited_s - before_s < 0.002 * 2000 * 0.004


@pytest.mark.parametrize("cost_s", [constant, ordinary, linear])
@pytest.mark.parametrize("load", [0.01, 0.1, 0.3])
def test_nobody_waits_at_a_low_load(cost_s, load):
    replica = Replica(cost_s, rate=load / cost_s(1))
    replica.run(3000)
    assert replica.patience.waited_s < 0.001 * replica.now_s


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([constant, ordinary]),
    st.floats(0.3, 4.0),
    st.integers(0, 1000),
)
def test_requests_that_come_by_chance_are_not_answered_later_for_it(cost_s, load, seed):
    rate = load / cost_s(1)
    patient, impatient = (Replica(cost_s, rate=rate, seed=seed) for _ in range(2))
    patient.run(500)
    impatient.run(500, is_patient=False)
    assert patient.run(1500)[1] < 1.1 * impatient.run(1500, is_patient=False)[1]


def test_a_lone_program_waits_for_nobody():
    replica = Replica(constant, 1)
    rate, _ = replica.run(3000)
    assert rate > 0.995 / (0.005 + RETURN_S)


def test_when_programs_go_the_others_soon_wait_no_more():
    replica = Replica(constant, 16)
    replica.run(2000)
    replica.coming, replica.queue = replica.coming[:1], []
    replica.clients = 1
    if not replica.coming:
        replica.coming = [replica.now_s]
    replica.run(200)
    rate, _ = replica.run(500)
    assert rate > 0.98 / (0.005 + RETURN_S)


def test_small_models_never_wait():
    replica = Replica(lambda n: 30e-6 + 1e-6 * n, 16)
    replica.run(3000)
    assert replica.patience.wait_count == 0


@settings(deadline=None)
@given(st.integers(1, 40), st.floats(0.0, 0.01), st.integers(0, 100))
def test_no_wait_is_longer_than_there_is_room_for(clients, room_s, seed):
    replica = Replica(constant, clients, seed=seed)
    replica.run(300)
    for waiting in range(1, 33):
        wait = replica.patience.plan(waiting, 1, replica.learner, room_s, 100.0)
        assert wait is None or 100.0 < wait.until_s <= 100.0 + room_s + 1e-9


def test_there_is_no_waiting_without_room():
    replica = Replica(constant, 16)
    replica.run(2000)
    for room_s in (0.0, -1.0):
        assert replica.patience.plan(8, 1, replica.learner, room_s, replica.now_s) is None
    assert replica.patience.plan(8, 1, replica.learner, 1.0, replica.now_s) is not None


def test_the_busy_share_is_told():
    patience = Patience(2)
    assert patience.busy_share == 0
    for number in range(100):
        patience.ran(0.01, number * 0.01)
    assert patience.busy_share == pytest.approx(0.5)


def test_an_idle_device_does_not_even_look_who_comes():
    replica = Replica(constant, 16)
    replica.run(2000)
    patience, now_s = replica.patience, replica.now_s
    assert patience.plan(8, 1, replica.learner, 1.0, now_s) is not None
    for _ in range(40):
        now_s += 0.05
        patience.ran(0.005, now_s)
    assert patience.busy_share < 0.2
    assert patience.plan(8, 1, replica.learner, 1.0, now_s) is None
