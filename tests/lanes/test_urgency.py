"""Priorities, deadlines and cancelled requests on a real replica's lanes."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest

from atriva_inference.errors import DeadlineExceededError, InferenceFailedError
from atriva_inference.terms import Priority, Terms
from atriva_ray.lanes.frames import Kind, pack
from atriva_ray.lanes.server import LaneServer
from atriva_ray.lanes.wire import Wire
from tests.cluster.tools import wait_until

from .test_fuzz import layout_frame
from .tools import ECHO, PATIENCE_S, Question, Runner, assert_echo, numbers

LARGE = 20_000


@pytest.fixture
def busy(make_replica):
    """A replica of one thread that is at work until its gate is opened; and what ran there."""
    order = []

    def note(arrays):
        order.append(int(arrays["x"][0, 0]))
        time.sleep(replica.delay_s)
        return {"y": arrays["x"] + 1}

    replica = make_replica(note, thread_count=1)
    replica.order = order
    replica.delay_s = 0.0
    replica.runner.gate.clear()
    return replica


def occupy(replica, client):
    """Have the replica run a request numbered 0."""
    (first,) = client.send(Question(numbers(1, 2)))
    wait_until(lambda: replica.runner.inside == 1, timeout_s=10, every_s=0.001)
    return first


def warm_up(replica, clients, size):
    """Have memory handed over before, which keeps apart what is sent after it."""
    replica.runner.gate.set()
    for client in clients * 2:  # the size of the answers is known only then
        questions = client.send(*(Question(numbers(1, size)) for _ in range(6)))
        for question in questions:
            question.outputs()
    wait_until(lambda: replica.server.is_idle, timeout_s=10, every_s=0.001)
    replica.runner.gate.clear()
    replica.order.clear()


def soon(left_s, priority=Priority.MEDIUM):
    return Terms(left_s, time.monotonic() + left_s, priority)


@pytest.mark.parametrize("size", [2, LARGE])
def test_the_urgent_and_those_in_a_hurry_go_first(busy, make_client, size):
    clients = [make_client(busy) for _ in range(2)]
    warm_up(busy, clients, size)
    first = occupy(busy, clients[0])
    terms = [
        Terms(priority=Priority.LOW),
        Terms(),
        soon(1000),
        soon(500),
        Terms(priority=Priority.HIGH),
        soon(2000, Priority.HIGH),
    ]
    questions = [
        *(Question(numbers(1, size, number), terms=each) for number, each in enumerate(terms, 1))
    ]
    for number, question in enumerate(questions):
        clients[number % 2].send(question)
    busy.runner.gate.set()
    for number, question in enumerate(questions, 1):
        assert_echo(question.outputs(), numbers(1, size, number))
    assert_echo(first.outputs(), numbers(1, 2))
    assert busy.order == [0, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize("kind", ["unix", "tcp"])  # encrypted, each travels by itself
@pytest.mark.parametrize("is_specialised", [False, True])
def test_one_whose_time_is_over_is_not_run(busy, make_client, kind, is_specialised):
    client = make_client(busy, kind)
    busy.delay_s = 0.05
    busy.runner.gate.set()
    signature = (("x", (1, 2)),) if is_specialised else None
    first = Question(numbers(1, 2), terms=Terms(priority=Priority.HIGH))
    late = Question(numbers(1, 2, 1), signature, soon(0.02))
    in_time = Question(numbers(1, 2, 2), signature, soon(1000))
    client.send(first, late, in_time)  # they travel together and are read together
    with pytest.raises(DeadlineExceededError, match="was not run there"):
        late.outputs()
    assert_echo(in_time.outputs(), numbers(1, 2, 2))
    assert_echo(first.outputs(), numbers(1, 2))
    assert busy.order == [0, 2]
    wait_until(lambda: busy.server.is_idle, timeout_s=10, every_s=0.001)
    (lane,) = busy.server._lanes.values()
    assert (lane.unanswered, lane.unanswered_bytes) == (0, 0)


@pytest.mark.parametrize("size", [2, LARGE])
def test_one_that_is_cancelled_while_it_waits_is_not_run_and_comes_back(busy, make_client, size):
    client = make_client(busy)
    warm_up(busy, [client], size)
    first = occupy(busy, client)
    questions = client.send(*(Question(numbers(1, size, number)) for number in range(1, 6)))
    for question in questions[1:4]:
        client.loop.cancel(client.lane, question)
    client.loop.cancel(client.lane, first)  # it runs already
    client.loop.cancel(client.lane, Question(numbers(1, 2)))  # it was never sent
    busy.runner.gate.set()
    for question in questions[1:4]:
        with pytest.raises(InferenceFailedError, match="cancelled"):
            question.outputs()
    assert_echo(first.outputs(), numbers(1, 2))
    assert_echo(questions[4].outputs(), numbers(1, size, 5))
    assert busy.order == [0, 1, 5]
    client.loop.cancel(client.lane, questions[4])  # it was answered
    assert_echo(client.ask(numbers(1, size, 9)), numbers(1, size, 9))
    wait_until(lambda: busy.server.is_idle, timeout_s=10, every_s=0.001)
    (lane,) = busy.server._lanes.values()
    assert (lane.unanswered, lane.unanswered_bytes) == (0, 0)


def test_memory_of_cancelled_requests_is_used_again(busy, make_client):
    client = make_client(busy)
    occupy(busy, client)
    for round_number in range(5):
        questions = client.send(*(Question(numbers(1, LARGE)) for _ in range(4)))
        for question in questions:
            client.loop.cancel(client.lane, question)
        if round_number == 0:
            busy.runner.gate.set()
        for question in questions:
            question.answer.exception(PATIENCE_S)
    assert client.lane._slot_count <= 4


def test_what_waits_of_a_client_that_has_gone_is_not_run(busy, make_client, kind):
    leaving, staying = make_client(busy, kind), make_client(busy, kind)
    occupy(busy, staying)
    leaving.send(*(Question(numbers(1, 2, number), terms=soon(900)) for number in range(1, 9)))
    leaving.send(*(Question(numbers(1, 2, number)) for number in range(11, 19)))
    leaving.close()
    (last,) = staying.send(Question(numbers(1, 2, 20)))
    busy.runner.gate.set()
    last.outputs()
    wait_until(lambda: busy.server.is_idle, timeout_s=10, every_s=0.001)
    # Of what came together with its end, one or two were taken before that was seen.
    assert len(busy.order) <= 4
    assert busy.order.count(20) == 1


def test_a_priority_that_does_not_exist_closes_the_lane():
    server = LaneServer(Runner(), ECHO, 1)
    mine, theirs = socket.socketpair()
    mine.settimeout(10)
    server.add(Wire(theirs))
    array = np.zeros((1, 1), np.float32)
    header = pack(Kind.REQUEST, flags=0b11 << 4, layout=0, request=1, body_size=array.nbytes)
    mine.sendall(layout_frame(0, array) + header + array.tobytes())
    assert mine.recv(1) == b""
    mine.close()
    server.close()
    server._runner.close()
