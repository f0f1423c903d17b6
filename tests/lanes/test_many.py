"""Many threads, many lanes: each request is answered once, with its own answer, in its turn."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from atriva_ray.lanes.loop import LaneLoop
from atriva_ray.lanes.together import Together, find_together
from tests.cluster.tools import wait_until

from .tools import ECHO, Client, Question, Runner, assert_echo, numbers, port

SIZES = (1, 7, 3_000, 6_000, 90_000)


def ask_many(client, first, count):
    """Ask one after the other, in sizes that change; every answer has to be this thread's own."""
    for number in range(first, first + count):
        array = numbers(1, SIZES[number % len(SIZES)], number)
        assert_echo(client.ask(array), array)


def at_once(count, work):
    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(work, number) for number in range(count)]:
            done.result(60)


@pytest.mark.parametrize("thread_count", [1, 3])
def test_many_threads_share_a_lane(make_replica, make_client, kind, thread_count):
    client = make_client(make_replica(thread_count=thread_count), kind)
    at_once(8, lambda number: ask_many(client, number * 1_000, 60))
    assert client.lost_calls == []


def test_many_lanes_share_a_server(make_replica, make_client, kind):
    replica = make_replica()
    clients = [make_client(replica, kind) for _ in range(20)]
    at_once(20, lambda number: ask_many(clients[number], number * 1_000, 20))
    assert replica.server.lane_count == 20
    assert replica.server.queue_len == 0


def test_many_lanes_of_many_programs_loops_are_served(make_replica):
    replica = make_replica()
    loops = [LaneLoop() for _ in range(5)]
    clients = [Client(loop, replica.connect()) for loop in loops for _ in range(3)]
    at_once(len(clients), lambda number: ask_many(clients[number], number * 1_000, 20))
    for loop in loops:
        loop.close()
    wait_until(lambda: replica.server.lane_count == 0, every_s=0.01)


def test_a_loop_that_pauses_takes_in_everything_all_the_same(make_replica):
    pauses = []

    def pause_s():
        pauses.append(0.02)
        return 0.02

    loop = LaneLoop(pause_s)
    try:
        client = Client(loop, make_replica().connect())
        arrays = [numbers(1, 3_000, number) for number in range(40)]
        questions = [Question(array) for array in arrays]
        client.send(*questions)
        for question, array in zip(questions, arrays, strict=True):
            assert_echo(question.outputs(), array)
    finally:
        loop.close()
    assert 0 < len(pauses) < len(questions)  # several were taken in at once


def test_every_request_comes_back_once_in_whatever_order_they_are_sent(
    make_replica, make_client, kind
):
    replica = make_replica(thread_count=3)
    client = make_client(replica, kind)
    questions = []
    lock = threading.Lock()

    def send(number):
        for batch in range(20):
            some = [
                Question(numbers(1, SIZES[(batch + n) % 4], number * 10_000 + batch * 100 + n))
                for n in range(5)
            ]
            client.send(*some)
            with lock:
                questions.extend(some)

    at_once(6, send)
    for question in questions:
        assert_echo(question.outputs(), question.bound.arrays["x"])
    assert len(questions) == 600
    assert {question.returned for question in questions} == {1}


def test_small_requests_of_many_lanes_run_together_and_get_their_own_answers(
    make_replica, make_client
):
    x, y = port("x", (-1, 4)), port("y", (-1, 4))
    rows = []

    def compute(arrays):
        rows.append(len(arrays["x"]))
        return {"y": arrays["x"] + 1}

    runner = Runner(compute)
    assert find_together(runner, [x], [y]) is not None
    replica = make_replica(runner=runner, thread_count=1, together=Together([x], [y]))
    clients = [make_client(replica) for _ in range(6)]
    replica.runner.gate.clear()
    sent = []
    for number, client in enumerate(clients):
        arrays = [numbers(1, 4, 1_000 * number + n) for n in range(30)]
        arrays[7] = numbers(2, 4, 1_000 * number)  # goes alone
        sent += zip(client.send(*map(Question, arrays)), arrays, strict=True)
    rows.clear()
    runner.gate.set()
    for question, array in sent:
        assert_echo(question.outputs(), array)
    assert max(rows) > 4
    assert sum(rows) == 180 + 6


def test_one_that_fails_in_company_does_not_fail_the_others(make_replica, make_client):
    def picky(arrays):
        if (arrays["x"] < 0).any():
            raise ValueError("negative")
        return {"y": arrays["x"] + 1}

    together = Together(ECHO.inputs, ECHO.outputs)
    replica = make_replica(picky, thread_count=1, together=together)
    client = make_client(replica)
    replica.runner.gate.clear()
    arrays = [numbers(1, 4, -100 if n % 7 == 3 else n) for n in range(40)]
    questions = client.send(*map(Question, arrays))
    replica.runner.gate.set()
    for number, question in enumerate(questions):
        if number % 7 == 3:
            assert "negative" in str(question.answer.exception(30))
        else:
            assert_echo(question.outputs(), arrays[number])


def test_a_lane_with_a_thousand_waiting_does_not_starve_one_with_one(make_replica, make_client):
    order = []

    def note(arrays):
        order.append(float(arrays["x"][0, 0]))
        return {"y": arrays["x"] + 1}

    replica = make_replica(note, thread_count=1)
    greedy, modest = make_client(replica), make_client(replica)
    replica.runner.gate.clear()
    questions = greedy.send(*(Question(numbers(1, 64, n)) for n in range(1_000)))
    wait_until(lambda: replica.runner.started == 1, every_s=0.01)
    (mine,) = modest.send(Question(numbers(1, 64, -1)))
    replica.runner.gate.set()
    mine.outputs()
    for question in questions:
        question.outputs()
    assert order.index(-1.0) < 600  # at most what was read before, and then one more of the other
    assert order.count(-1.0) == 1
    assert [each for each in order if each >= 0] == list(range(1_000))


def test_lanes_take_turns(make_replica, make_client):
    order = []

    def note(arrays):
        order.append(int(arrays["x"][0, 0]))
        return {"y": arrays["x"] + 1}

    replica = make_replica(note, thread_count=1)
    clients = [make_client(replica) for _ in range(3)]
    replica.runner.gate.clear()
    (first,) = clients[0].send(Question(np.full((1, 1), 9, np.float32)))
    wait_until(lambda: replica.runner.started == 1, every_s=0.01)
    questions = [first]
    for number, client in enumerate(clients):
        questions += client.send(
            *(Question(np.full((1, 1), number, np.float32)) for _ in range(20))
        )
    replica.runner.gate.set()
    for question in questions:
        question.outputs()
    assert order[0] == 9
    for position in range(4, 40):  # once all are read
        assert len(set(order[position : position + 3])) == 3


@pytest.mark.parametrize("thread_count", [1, 2, 4])
def test_as_many_requests_run_at_once_as_there_are_threads(make_replica, make_client, thread_count):
    replica = make_replica(thread_count=thread_count)
    clients = [make_client(replica) for _ in range(3)]
    replica.runner.gate.clear()
    questions = [
        question
        for client in clients
        for question in client.send(*map(Question, [numbers(1, 3)] * 5))
    ]
    wait_until(lambda: replica.runner.inside == thread_count, every_s=0.01)
    replica.runner.gate.set()
    for question in questions:
        question.outputs()
    assert replica.runner.most_inside == thread_count


def test_a_client_that_goes_while_its_requests_run_leaves_no_trace(make_replica, make_client, kind):
    replica = make_replica()
    stays = make_client(replica, kind)
    for _ in range(10):
        goes = make_client(replica, kind)
        goes.send(*(Question(numbers(1, size)) for size in SIZES * 3))
        goes.close()
    assert_echo(stays.ask(numbers(1, 10)), numbers(1, 10))
    wait_until(lambda: replica.server.lane_count == 1, every_s=0.01)
    wait_until(lambda: replica.server.queue_len == 0, every_s=0.01)


def test_a_replica_that_ends_gives_everything_back_once(make_replica, make_client, kind):
    replica = make_replica()
    client = make_client(replica, kind)
    replica.runner.gate.clear()
    questions = client.send(*(Question(numbers(1, size)) for size in SIZES * 10))
    wait_until(lambda: replica.runner.inside == 2, every_s=0.01)
    closing = threading.Thread(target=replica.server.close)
    closing.start()
    replica.runner.gate.set()
    closing.join()
    for question in questions:
        question.answer.exception(30)
    wait_until(lambda: client.lost_calls, every_s=0.01)
    assert {question.returned for question in questions} == {1}
    assert len(client.lost_calls) == 1
    answered = [question for question in questions if question.reply is not None]
    assert len(answered) + len(client.lost_calls[0][0]) == len(questions)
    if kind == "unix":  # TCP may throw away what was sent last when requests were left unread
        assert len(answered) >= 2  # what ran was finished
