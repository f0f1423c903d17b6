"""Sessions on lanes: whose they are, in what order they run, and that they end."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest

from atriva_inference.errors import SessionLostError, StateError, TooManySessionsError
from atriva_inference.ports import Port
from atriva_ray.lanes.frames import INLINE, SESSION, SPECIALISE, Kind, pack
from atriva_ray.lanes.layout import Layout
from atriva_ray.lanes.server_lane import Ports
from atriva_ray.lanes.session_frames import SessionCall, SessionOp, encode_state
from atriva_ray.lanes.wire import Wire
from tests.cluster.tools import wait_until

from .tools import (
    PATIENCE_S,
    Client,
    LostError,
    Question,
    Runner,
    assert_echo,
    numbers,
    port,
)

FLOAT = np.dtype(np.float32)
LARGE = Ports("large", [port("x", (1, 10_000))], [port("y", (1, 10_000))])


class Session:
    """Adds up what it is given."""

    def __init__(self, runner, number):
        self.runner = runner
        self.number = number
        self.total = None
        self.inside = 0
        self.is_closed = False

    def run(self, bound, memory=None):
        self.inside += 1
        assert self.inside == 1, "two requests of one session at once"
        try:
            assert self.runner.session_gate.wait(PATIENCE_S)
            array = bound.arrays["x"]
            self.total = array.copy() if self.total is None else self.total + array
            self.runner.order.append((self.number, float(array.flat[0])))
            if memory is None:
                return {"y": self.total}
            self.runner.used_memory += 1
            np.copyto(memory["y"], self.total)
            return memory
        finally:
            self.inside -= 1

    def state(self):
        return {} if self.total is None else {"total": self.total}

    def set_state(self, state):
        self.total = state["total"]

    def reset(self):
        self.total = None

    def close(self):
        self.is_closed = True

    abandon = close


class SessionsRunner(Runner):
    """Runs requests with and without sessions; at most ten of the latter."""

    variables = (Port("total", ("total",), FLOAT, (-1, -1)),)

    def __init__(self):
        super().__init__()
        self.sessions = []
        self.order = []
        self.session_gate = threading.Event()
        self.session_gate.set()

    def open_session(self, number):
        if len(self.open_sessions) == 10:
            raise TooManySessionsError("adder", "CPU", 10)
        self.sessions.append(Session(self, number))
        return self.sessions[-1]

    @property
    def open_sessions(self):
        return [session for session in self.sessions if not session.is_closed]

    def close(self):
        self.session_gate.set()
        super().close()


@pytest.fixture
def replica(make_replica):
    return make_replica(runner=SessionsRunner())


def call(client, op, session, state=None):
    (question,) = client.send(Question(call=SessionCall(op, session, state)))
    return question.outputs()


def ask(client, session, value):
    (question,) = client.send(Question(np.full((1, 2), value, np.float32), session=session))
    return float(question.outputs()["y"][0, 0])


# -- what is done --------------------------------------------------------------------------------


def test_requests_of_a_session_build_on_each_other(replica, make_client, kind):
    client = make_client(replica, kind)
    call(client, SessionOp.OPEN, 3)
    assert [ask(client, 3, value) for value in (1, 2, 3)] == [1, 3, 6]
    state = call(client, SessionOp.GET, 3)
    assert state["total"].tolist() == [[6, 6]]
    assert call(client, SessionOp.RESET, 3) == {}
    assert call(client, SessionOp.GET, 3) == {}
    assert ask(client, 3, 1) == 1
    call(client, SessionOp.SET, 3, state)
    assert ask(client, 3, 1) == 7
    call(client, SessionOp.CLOSE, 3)
    assert replica.runner.open_sessions == []
    client.close()


def test_large_requests_of_a_session_travel_in_shared_memory(make_replica, make_client):
    replica = make_replica(runner=SessionsRunner(), ports=LARGE)
    client = make_client(replica)
    call(client, SessionOp.OPEN, 1)
    array = numbers(1, 10_000)
    for count in range(1, 4):
        (question,) = client.send(Question(array, session=1))
        np.testing.assert_array_equal(question.outputs()["y"], count * array)
    assert replica.runner.used_memory == 3
    client.close()


def test_a_large_state_travels(replica, make_client, kind):
    client = make_client(replica, kind)
    call(client, SessionOp.OPEN, 1)
    total = numbers(1000, 1000)
    call(client, SessionOp.SET, 1, {"total": total})
    np.testing.assert_array_equal(call(client, SessionOp.GET, 1)["total"], total)
    client.close()


def test_a_number_means_another_session_on_another_lane(replica, make_client):
    one, other = make_client(replica), make_client(replica)
    call(one, SessionOp.OPEN, 1)
    ask(one, 1, 5)
    with pytest.raises(SessionLostError, match="not known there"):
        ask(other, 1, 5)
    call(other, SessionOp.OPEN, 1)
    assert ask(other, 1, 1) == 1
    assert ask(one, 1, 1) == 6
    one.close()
    other.close()


def test_a_replica_takes_so_many_and_no_more(replica, make_client):
    client = make_client(replica)
    for number in range(1, 11):
        call(client, SessionOp.OPEN, number)
    with pytest.raises(TooManySessionsError, match="10 sessions"):
        call(client, SessionOp.OPEN, 11)
    call(client, SessionOp.CLOSE, 4)
    call(client, SessionOp.OPEN, 11)
    assert ask(client, 11, 2) == 2
    client.close()


def test_a_state_that_does_not_fit_is_refused(replica, make_client):
    client = make_client(replica)
    call(client, SessionOp.OPEN, 1)
    with pytest.raises(StateError, match="'other'"):
        call(client, SessionOp.SET, 1, {"other": np.zeros(1, np.float32)})
    client.close()


# -- in order ------------------------------------------------------------------------------------


def test_what_comes_together_runs_one_by_one_and_in_order(make_replica, make_client):
    replica = make_replica(runner=SessionsRunner(), thread_count=4)
    client = make_client(replica)
    for number in (1, 2):
        call(client, SessionOp.OPEN, number)
    questions = [
        Question(np.full((1, 2), value, np.float32), session=1 + value % 2) for value in range(100)
    ]
    client.send(*questions)
    for question in questions:
        question.outputs()
    for number in (1, 2):
        values = [value for session, value in replica.runner.order if session == number]
        assert values == list(range(number - 1, 100, 2))
    client.close()


def test_others_go_on_while_a_session_is_busy(make_replica, make_client):
    replica = make_replica(runner=SessionsRunner(), thread_count=2)
    client = make_client(replica)
    call(client, SessionOp.OPEN, 1)
    replica.runner.session_gate.clear()
    held = client.send(
        *(Question(np.full((1, 2), value, np.float32), session=1) for value in range(20))
    )
    for value in range(50):  # one thread is left, and must not wait for the session
        assert_echo(client.ask(numbers(1, 3, value)), numbers(1, 3, value))
    replica.runner.session_gate.set()
    for question in held:
        question.outputs()
    client.close()


# -- the end -------------------------------------------------------------------------------------


def test_sessions_end_with_their_lane(replica, make_client):
    one, other = make_client(replica), make_client(replica)
    for client in (one, other):
        for number in (1, 2):
            call(client, SessionOp.OPEN, number)
    one.close()
    wait_until(lambda: len(replica.runner.open_sessions) == 2, timeout_s=10, every_s=0.005)
    assert ask(other, 1, 1) == 1
    other.close()
    wait_until(lambda: not replica.runner.open_sessions, timeout_s=10, every_s=0.005)


def test_a_lane_that_ends_while_its_session_runs_holds_up_nobody(make_replica, make_client):
    replica = make_replica(runner=SessionsRunner(), thread_count=2)
    one, other = make_client(replica), make_client(replica)
    call(one, SessionOp.OPEN, 1)
    replica.runner.session_gate.clear()
    one.send(*(Question(np.ones((1, 2), np.float32), session=1) for _ in range(5)))
    wait_until(lambda: replica.server._running, timeout_s=10, every_s=0.005)
    one.close()
    wait_until(lambda: not replica.runner.open_sessions, timeout_s=10, every_s=0.005)
    assert_echo(other.ask(numbers(1, 3)), numbers(1, 3))
    replica.runner.session_gate.set()
    wait_until(lambda: replica.server.queue_len == 0, timeout_s=10, every_s=0.005)
    assert len(replica.runner.order) <= 1
    assert replica.server._sessions._behind == {}
    other.close()


def test_what_waits_of_a_session_is_forgotten_with_its_lane(make_replica, make_client):
    replica = make_replica(runner=SessionsRunner(), thread_count=1)
    client = make_client(replica)
    call(client, SessionOp.OPEN, 1)
    replica.runner.gate.clear()
    of_session = [Question(np.ones((1, 2), np.float32), session=1) for _ in range(3)]
    client.send(Question(numbers(1, 3)), *of_session)
    wait_until(lambda: replica.runner.inside, timeout_s=10, every_s=0.005)
    client.close()
    replica.runner.gate.set()
    wait_until(lambda: not replica.server.lane_count, timeout_s=10, every_s=0.005)
    assert replica.runner.order == []
    assert replica.server._sessions._behind == {}


def test_a_server_that_closes_ends_its_sessions(replica, make_client):
    client = make_client(replica)
    call(client, SessionOp.OPEN, 1)
    replica.server.close()
    assert replica.runner.open_sessions == []
    client.close()


# -- what no sound peer sends --------------------------------------------------------------------

ROW = np.ones((1, 2), np.float32)


def described():
    text = Layout.of([ROW]).encode()
    return pack(Kind.LAYOUT, layout=0, body_size=len(text)) + text


def request(**header):
    return pack(Kind.REQUEST, request=1, body_size=ROW.nbytes, **header) + ROW.tobytes()


@pytest.mark.parametrize(
    "frames",
    [
        described() + request(flags=SESSION, first=0),
        described() + request(flags=SESSION | SPECIALISE, first=1),
        pack(Kind.SESSION, layout=SessionOp.OPEN, request=1, first=0),
        pack(Kind.SESSION, layout=0, request=1, first=1),
        pack(Kind.SESSION, layout=6, request=1, first=1),
        pack(Kind.SESSION, layout=SessionOp.GET, request=1, first=1, body_size=1) + b"1",
        pack(Kind.SESSION, layout=SessionOp.SET, request=1, first=1),
        pack(Kind.SESSION, layout=SessionOp.SET, request=1, first=1, body_size=2**40),
        pack(Kind.STATE, request=1),
    ],
)
def test_frames_that_make_no_sense_close_the_lane(replica, make_client, frames):
    mine, theirs = socket.socketpair()
    mine.settimeout(PATIENCE_S)
    replica.server.add(Wire(theirs))
    mine.sendall(frames)
    assert mine.recv(100) == b""
    mine.close()
    client = make_client(replica)
    assert_echo(client.ask(numbers(1, 3)), numbers(1, 3))
    client.close()


def test_opening_a_session_twice_is_refused_and_leaves_the_first(replica, make_client):
    client = make_client(replica)
    call(client, SessionOp.OPEN, 1)
    ask(client, 1, 4)
    with pytest.raises(SessionLostError, match="open already"):
        call(client, SessionOp.OPEN, 1)
    assert ask(client, 1, 1) == 5
    assert len(replica.runner.sessions) == 1
    client.close()


def answered(frame_kind):
    body = b"".join(bytes(each) for each in encode_state({}))
    if frame_kind == Kind.STATE:
        return pack(Kind.STATE, request=1, body_size=len(body)) + body
    return (
        described()
        + pack(Kind.ANSWER, request=1, slot=INLINE, body_size=ROW.nbytes)
        + ROW.tobytes()
    )


@pytest.mark.parametrize("asks_for_state", [False, True])
def test_an_answer_of_the_wrong_kind_is_lost_and_not_forgotten(loop, asks_for_state):
    mine, other = socket.socketpair()
    client = Client(loop, Wire(mine))
    get = SessionCall(SessionOp.GET, 1)
    (question,) = client.send(Question(call=get) if asks_for_state else Question(ROW, session=1))
    other.sendall(answered(Kind.ANSWER if asks_for_state else Kind.STATE))
    with pytest.raises(LostError):
        question.outputs()
    assert question.returned == 1
    other.close()
