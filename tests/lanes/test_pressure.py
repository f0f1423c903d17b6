"""Back pressure: nobody's memory grows with what somebody else does not take."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from atriva_ray.lanes import server_lane
from tests.cluster.tools import wait_until

from .tools import Client, Question, assert_echo, numbers, used_bytes

MIB = 2**20


@pytest.fixture
def small_limits(monkeypatch):
    """Limits that are reached without using up this machine."""
    monkeypatch.setattr(server_lane, "_MAX_WAITING_BYTES", 4 * MIB)
    monkeypatch.setattr(server_lane, "_MAX_WAITING", 16)


class Deaf(Client):
    """A client that sends, and reads only when it is told to."""

    def __init__(self, replica, kind):
        super().__init__(_NoLoop(), replica.connect(kind), replica.ports)

    def send(self, *questions):
        self.lane.send(questions)
        return questions

    def flush(self):
        """Send what the other end takes now; whether nothing is left."""
        return self.lane.wire.flush()

    def hear(self):
        self.flush()
        self.lane.read()

    def hear_all(self, questions):
        def are_answered():
            self.hear()
            return all(question.answer.done() for question in questions)

        wait_until(are_answered, timeout_s=10, every_s=0.0005)

    def close(self):
        self.lane.close()


class _NoLoop:
    def add(self, lane):
        """Leave it to whoever made it."""


@pytest.fixture
def make_deaf():
    opened = []

    def make(replica, kind):
        opened.append(Deaf(replica, kind))
        return opened[-1]

    yield make
    for deaf in opened:
        deaf.close()


def has_settled(replica):
    """Nothing is read and nothing runs any more."""
    server = replica.server
    started = replica.runner.started
    is_idle = replica.runner.inside == 0 and not len(server._queue)
    threading.Event().wait(0.02)
    return is_idle and replica.runner.started == started


def is_paused(replica):
    return [lane for lane in list(replica.server._lanes.values()) if lane.is_paused]


@pytest.mark.parametrize("kind", ["unix", "tcp", "tls"], indirect=True)
def test_a_client_that_does_not_read_is_paused_and_goes_on_when_it_does(
    make_replica, make_client, make_deaf, kind, small_limits
):
    """All that was read has run when it begins to read: nothing but its reading sets it going."""
    size = 16_000  # an answer of 64 kB, for a request of 4 bytes
    replica = make_replica(lambda arrays: {"y": numbers(1, size, arrays["x"][0, 0])})
    deaf, other = make_deaf(replica, kind), make_client(replica, kind)
    questions = []
    while not is_paused(replica):
        assert len(questions) < 2_000
        questions += deaf.send(
            *(Question(np.full((1, 1), len(questions) + n, np.float32)) for n in range(20))
        )
        wait_until(lambda: has_settled(replica), every_s=0.001)
    (lane,) = is_paused(replica)
    held_bytes = lane.wire.unsent_bytes
    assert held_bytes < 4 * MIB + 20 * size * 4 * 2
    questions += deaf.send(*(Question(np.full((1, 1), -1, np.float32)) for _ in range(50)))
    for number in range(20):
        outputs = other.ask(np.full((1, 1), number, np.float32))
        assert np.array_equal(outputs["y"], numbers(1, size, number))
    assert lane.wire.unsent_bytes == held_bytes

    deaf.hear_all(questions)
    for question in questions:
        first = question.bound.arrays["x"][0, 0]
        assert np.array_equal(question.outputs()["y"], numbers(1, size, first))
    (again,) = deaf.send(Question(numbers(1, 1)))
    deaf.hear_all([again])
    assert not is_paused(replica)


def test_a_client_that_sends_more_than_is_taken_is_paused_and_resumed(
    make_replica, make_client, kind, small_limits
):
    replica = make_replica(thread_count=1)
    greedy, other = make_client(replica, kind), make_client(replica, kind)
    replica.runner.gate.clear()
    arrays = [numbers(1, 50_000, number) for number in range(200)]  # 40 MB
    questions = greedy.send(*map(Question, arrays))
    wait_until(lambda: replica.runner.inside == 1, every_s=0.01)
    (waits,) = other.send(Question(numbers(1, 3)))
    replica.runner.gate.set()
    assert_echo(waits.outputs(), numbers(1, 3))
    for question, array in zip(questions, arrays, strict=True):
        assert_echo(question.outputs(), array)
    assert not is_paused(replica)
    assert replica.server.queue_len == 0


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_what_the_server_holds_of_a_lane_is_bounded(make_replica, make_client, kind, small_limits):
    replica = make_replica(thread_count=1)
    client = make_client(replica, kind)
    replica.runner.gate.clear()
    questions = client.send(*(Question(numbers(1, 4_000, number)) for number in range(2_000)))
    wait_until(lambda: replica.runner.inside == 1, every_s=0.01)
    second = make_client(replica, kind)
    (last,) = second.send(Question(numbers(1, 3)))
    most = 0

    def note(arrays):
        nonlocal most
        most = max(most, replica.server.queue_len)
        return {"y": arrays["x"] + 1}

    replica.runner.function = note
    replica.runner.gate.set()
    last.outputs()
    for number, question in enumerate(questions):
        assert_echo(question.outputs(), numbers(1, 4_000, number))
    assert most < 16 + 16 * 5  # the limit, and what one reading may bring


def test_specialised_requests_are_held_back_too(make_replica, make_client, small_limits):
    replica = make_replica(thread_count=1)
    client = make_client(replica)
    replica.runner.gate.clear()
    signature = (("x", (1, 4_000)),)
    questions = client.send(
        *(Question(numbers(1, 4_000, number), signature) for number in range(2_000))
    )
    wait_until(lambda: is_paused(replica) or replica.runner.submitted == 2_000, every_s=0.01)
    submitted = replica.runner.submitted
    replica.runner.gate.set()
    for number, question in enumerate(questions):
        assert_echo(question.outputs(), numbers(1, 4_000, number))
    assert submitted < 200


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_lane_that_is_paused_when_its_client_goes_is_forgotten(
    make_replica, make_client, kind, small_limits
):
    replica = make_replica(thread_count=1)
    client = make_client(replica, kind)
    replica.runner.gate.clear()
    client.send(*(Question(numbers(1, 4_000)) for _ in range(1_000)))
    wait_until(lambda: replica.runner.inside == 1, every_s=0.01)
    client.close()
    replica.runner.gate.set()
    wait_until(lambda: replica.server.lane_count == 0, timeout_s=10, every_s=0.01)
    wait_until(lambda: replica.server.queue_len == 0, timeout_s=10, every_s=0.01)


def test_small_answers_that_nobody_reads_do_not_use_up_the_server(
    make_replica, make_deaf, small_limits
):
    """The limit is of memory, not of bytes on the wire: each small answer takes more than that."""
    replica = make_replica(lambda arrays: {"y": arrays["x"]})
    deaf = make_deaf(replica, "unix")
    array = numbers(1, 1)
    sent = 0
    before = used_bytes()
    while sent < 60_000 and not is_paused(replica):
        deaf.send(*(Question(array) for _ in range(500)))
        sent += 500
        wait_until(lambda: deaf.flush() or is_paused(replica), every_s=0.0005)
    wait_until(lambda: has_settled(replica), every_s=0.01)
    (lane,) = (lane for lane in replica.server._lanes.values())
    assert len(lane.wire._out) < 40_000
    assert used_bytes() - before < 100 * MIB
