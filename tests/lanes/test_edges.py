"""What happens at the same time, and what breaks half-way."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import threading

import numpy as np
import pytest

from atriva_inference.binding import BoundInputs
from atriva_ray.lanes import client_lane, memory, server_lane
from atriva_ray.lanes.client_lane import LaneClosedError
from atriva_ray.lanes.frames import FrameReader, Kind, pack
from atriva_ray.lanes.layout import Layout
from atriva_ray.lanes.server import LaneServer
from atriva_ray.lanes.server_lane import Ports
from atriva_ray.lanes.wire import Wire
from tests.cluster.tools import wait_until

from .tools import (
    ECHO,
    Client,
    LostError,
    Question,
    Runner,
    assert_echo,
    descriptors,
    numbers,
    port,
    shared_memory_bytes,
    wire_pair,
)

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@pytest.fixture
def make_server():
    """Servers without a listener: their lanes are socket pairs."""
    opened = []

    def make(function=None, ports=ECHO, thread_count=1):
        runner = Runner() if function is None else Runner(function)
        server = LaneServer(runner, ports, thread_count)
        opened.append((server, runner))
        return server

    yield make
    for server, runner in opened:
        server.close()
        runner.close()


def raw_lane(server):
    mine, theirs = socket.socketpair()
    mine.settimeout(5)
    server.add(Wire(theirs))
    return mine


def assert_is_closed(connected):
    with connected:
        try:
            while connected.recv(65536):
                pass
        except ConnectionError:
            pass


def assert_serves(server, loop):
    mine, theirs = wire_pair()
    server.add(theirs)
    client = Client(loop, mine, server._ports)
    (question,) = client.send(Question(numbers(1, 3)))
    assert_echo(question.outputs(5), numbers(1, 3))
    client.close()


# -- the client's shared memory ------------------------------------------------------------------


def test_an_answer_that_comes_while_memory_is_made_larger_does_not_mix_up_slots(
    make_replica, loop, monkeypatch
):
    """The lane is read here by hand, right where another thread might read it."""
    replica = make_replica(lambda arrays: {"y": arrays["x"][:, -1:]}, thread_count=1)

    class ByHand(Client):
        def __init__(self):
            super().__init__(_NoLoop(), replica.connect(), replica.ports)

        def read_until(self, *questions):
            def are_answered():
                self.lane.read()
                return all(question.answer.done() for question in questions)

            wait_until(are_answered, timeout_s=10, every_s=0.0005)

    client = ByHand()
    first, second = Question(numbers(1, 10_000, 1)), Question(numbers(1, 20_000, 2))
    client.lane.send([first])
    client.lane.send([second])
    client.read_until(first)
    create = memory.create

    def create_slowly(size_bytes):
        monkeypatch.setattr(client_lane.memory, "create", create)
        client.read_until(second)
        return create(size_bytes)

    monkeypatch.setattr(client_lane.memory, "create", create_slowly)
    if second.answer.done():
        client.lane._free.pop()  # both came at once; what follows has nothing to mix up
    third = Question(numbers(1, 100_000, 3))
    client.lane.send([third])
    others = [Question(numbers(1, 9_000 + n, 10 + n)) for n in range(4)]
    client.lane.send(others)
    client.read_until(third, *others)
    for question in (third, *others):
        assert question.outputs()["y"].item() == question.bound.arrays["x"][0, -1]
    client.lane.close()


class _NoLoop:
    def add(self, lane):
        """Leave it to whoever made it."""


def test_memory_grows_under_many_threads_and_every_answer_is_right(make_replica, make_client):
    client = make_client(
        make_replica(lambda arrays: {"y": arrays["x"][:, ::1_000]}, thread_count=3)
    )
    failed = []

    def ask(seed):
        random = np.random.default_rng(seed)
        for number in range(60):
            array = numbers(1, int(random.integers(4_200, 8_000 + 2_000 * number)), seed * 1_000)
            outputs = client.ask(array)
            if not np.array_equal(outputs["y"], array[:, ::1_000]):
                failed.append((seed, number))

    asking = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert failed == []


def test_a_lane_that_breaks_while_memory_is_handed_over_leaves_no_descriptor():
    mine, theirs = wire_pair()
    client = Client(_NoLoop(), mine)
    theirs.close()
    before = descriptors()
    questions = [Question(numbers(1, size)) for size in (3, 100_000, 100_000)]
    with pytest.raises(OSError, match=r".+"):
        client.lane.send(questions)
    client.lane.lose("it broke")
    for question in questions:
        with pytest.raises(LostError):
            question.outputs()
    assert descriptors()["/memfd"] == before["/memfd"]


def test_a_layout_alone_makes_a_client_take_no_memory(loop, monkeypatch):
    taken = []
    create = memory.create

    def note(size_bytes):
        taken.append(size_bytes)
        assert size_bytes < 2**20
        return create(size_bytes)

    monkeypatch.setattr(client_lane.memory, "create", note)
    mine, other = socket.socketpair()
    client = Client(loop, Wire(mine))
    text = b'[["<f4", [1073741824, 4]]]'
    other.sendall(pack(Kind.LAYOUT, layout=0, body_size=len(text)) + text)
    wait_until(lambda: client.lane._layouts._layouts, timeout_s=5, every_s=0.005)
    client.send(Question(numbers(1, 3)))
    client.close()
    other.close()
    assert taken == []


# -- what comes back -----------------------------------------------------------------------------


def request_number(connected):
    """The number of the first request that was sent."""
    reader = FrameReader(lambda _header: 2**30)
    while True:
        count = connected.recv_into(reader.space())
        for frame in reader.received(count):
            if frame.kind == Kind.REQUEST:
                return frame.request


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.ERROR, b"no json"),
        (Kind.ERROR, b'["SystemExit", [1]]'),
        (Kind.ERROR, b'["InferenceTimeoutError", ["m", 1' + b"0" * 400 + b"]]"),
        (Kind.ANSWER, b'[["<f4", [1099511627776, 1099511627776, 0]]]'),
        (Kind.ANSWER, b'[["<f4", [0]], ["<f4", [0]]]'),
    ],
)
def test_a_request_whose_answer_cannot_be_read_is_lost_and_not_forgotten(loop, kind, text):
    mine, other = socket.socketpair()
    client = Client(loop, Wire(mine))
    questions = client.send(Question(numbers(1, 3)), Question(numbers(1, 3)))
    number = request_number(other)
    if kind == Kind.ERROR:
        other.sendall(pack(kind, request=number, body_size=len(text)) + text)
    else:
        layout = pack(Kind.LAYOUT, layout=0, body_size=len(text)) + text
        other.sendall(layout + pack(kind, request=number))
    for question in questions:
        with pytest.raises(LostError):
            question.outputs(5)
    assert [question.returned for question in questions] == [1, 1]
    assert len(client.lost_calls) == 1
    other.close()


def test_text_that_is_none_is_lost_and_not_forgotten(loop):
    ports = Ports("text", [port("x", (-1, -1))], [port("y", (-1,), object)])
    mine, other = socket.socketpair()
    client = Client(loop, Wire(mine), ports)
    (question,) = client.send(Question(numbers(1, 3)))
    text = b'[["text:<U1", [1]]]'
    other.sendall(
        pack(Kind.LAYOUT, layout=0, body_size=len(text))
        + text
        + pack(Kind.ANSWER, request=request_number(other), body_size=4)
        + b"\xff\xff\xff\xff"
    )
    with pytest.raises(LostError):
        question.outputs(5)
    assert question.returned == 1
    other.close()


class Unreadable(Question):
    """A request whose inputs cannot be had."""

    def __init__(self):
        super().__init__(numbers(1, 3))
        self.bound = BoundInputs({})


def test_a_request_that_cannot_be_written_comes_back_with_those_beside_it(
    make_replica, make_client
):
    client = make_client(make_replica())
    questions = [Question(numbers(1, 3)), Unreadable(), Question(numbers(1, 5))]
    client.send(*questions)
    for question in questions:
        question.answer.exception(5)
    assert [question.returned for question in questions] == [1, 1, 1]


def test_nothing_is_sent_on_a_closed_lane(make_replica, make_client):
    client = make_client(make_replica())
    client.close()
    question = Question(numbers(1, 3))
    with pytest.raises(LaneClosedError):
        client.send(question)
    client.close()
    assert question.returned == 0
    assert client.lost_calls == []


def test_a_lane_that_is_added_to_a_closed_loop_is_closed(make_replica, loop):
    replica = make_replica()
    loop.close()
    client = Client(loop, replica.connect())
    with pytest.raises(LaneClosedError):
        client.send(Question(numbers(1, 3)))
    loop.close()


def test_a_loop_that_is_closed_inside_a_callback_ends(make_replica, loop):
    client = Client(loop, make_replica().connect())
    done = threading.Event()
    take = client.lane._on_replies

    def take_and_close(replies):
        take(replies)
        loop.close()
        done.set()

    client.lane._on_replies = take_and_close
    client.send(Question(numbers(1, 3)))
    assert done.wait(10)


@pytest.mark.parametrize("kind", ["tcp", "tls"], indirect=True)
def test_large_requests_of_many_threads_are_all_sent(make_replica, make_client, kind):
    """What the socket did not take at once leaves later, whoever sends in between."""
    client = make_client(make_replica(lambda arrays: {"y": arrays["x"][:, :1]}), kind)
    array = numbers(1, 400_000)

    def ask():
        for _ in range(25):
            (question,) = client.send(Question(array))
            question.outputs(20)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()


class _Epoll:
    """Lets something happen right before the first change that stops waiting for room to send."""

    def __init__(self, real):
        self._real = real
        self.before_change = None

    def modify(self, descriptor, events):
        if self.before_change is not None and not events & select.EPOLLOUT:
            happen, self.before_change = self.before_change, None
            happen()
        self._real.modify(descriptor, events)

    def __getattr__(self, name):
        return getattr(self._real, name)


@pytest.mark.parametrize("kind", ["tcp"])
def test_what_is_sent_just_when_everything_had_left_leaves_too(make_replica, loop, kind):
    replica = make_replica(lambda arrays: {"y": arrays["x"][:, :1]})
    client = Client(loop, replica.connect(kind))
    loop._epoll = epoll = _Epoll(loop._epoll)
    replica.runner.gate.clear()
    first, second = Question(numbers(1, 3_000_000)), Question(numbers(1, 3_000_000))
    sending = threading.Thread(target=client.send, args=(second,))

    def send():
        sending.start()
        sending.join(0.5)

    epoll.before_change = send
    client.send(first)
    # the loop's own thread holds the real epoll, so the change after it is made here
    wait_until(client.lane.wire.flush, timeout_s=10, every_s=0.001)
    loop._handle(client.lane, select.EPOLLOUT)
    replica.runner.gate.set()
    sending.join()
    for question in (first, second):
        question.outputs(10)


# -- the server ----------------------------------------------------------------------------------


def test_memory_without_a_byte_does_not_bring_a_server_down(make_server, loop):
    server = make_server()
    lane = raw_lane(server)
    empty = os.memfd_create("empty", os.MFD_ALLOW_SEALING)
    fcntl.fcntl(empty, fcntl.F_ADD_SEALS, SEALS)
    socket.send_fds(lane, [pack(Kind.ATTACH, slot=0, request=0)], [empty])
    os.close(empty)
    assert_is_closed(lane)
    assert_serves(server, loop)


def test_an_error_that_nobody_thought_of_closes_one_lane_only(make_server, loop, monkeypatch):
    server = make_server()

    def fail(*_arguments):
        raise MemoryError("no memory")

    lane = raw_lane(server)
    with monkeypatch.context() as patched:
        patched.setattr(Layout, "decode", fail)
        text = b'[["<f4", [1, 3]]]'
        lane.sendall(pack(Kind.LAYOUT, layout=0, body_size=len(text)) + text)
        assert_is_closed(lane)
    assert_serves(server, loop)


def test_too_much_memory_is_refused_before_it_is_mapped(make_server, loop, monkeypatch):
    mapped = []
    attach = memory.attach

    def note(descriptor, size_bytes):
        mapped.append(size_bytes)
        return attach(descriptor, size_bytes)

    monkeypatch.setattr(server_lane.memory, "attach", note)
    monkeypatch.setattr(server_lane, "_MAX_ATTACHED_BYTES", 3 * 4096)
    server = make_server()
    lane = raw_lane(server)
    for slot in range(3):
        _, descriptor = memory.create(2 * 4096)
        try:
            socket.send_fds(lane, [pack(Kind.ATTACH, slot=slot, request=2 * 4096)], [descriptor])
        except ConnectionError:
            break
        finally:
            os.close(descriptor)
    assert_is_closed(lane)
    assert mapped == [2 * 4096]


@pytest.mark.parametrize("dtype", ["<U0", "|S0", "text:<U0"])
def test_text_without_width_does_not_reach_a_model(make_server, loop, dtype):
    ports = Ports("text", [port("x", (-1,), object)], [port("y", (-1, -1))])
    reached = []
    server = make_server(lambda arrays: reached.append(arrays) or {"y": numbers(1, 1)}, ports)
    lane = raw_lane(server)
    text = f'[["{dtype}", [1099511627776]]]'.encode()
    lane.sendall(pack(Kind.LAYOUT, layout=0, body_size=len(text)) + text)
    try:
        lane.sendall(pack(Kind.REQUEST, layout=0, request=1))
        lane.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    assert_is_closed(lane)
    assert reached == []


def test_a_server_keeps_nothing_of_a_request_that_was_answered(make_replica, make_client):
    replica = make_replica()
    client = make_client(replica)
    client.ask(numbers(1, 100_000))
    before = shared_memory_bytes()
    client.close()
    wait_until(lambda: replica.server.lane_count == 0, timeout_s=5, every_s=0.01)
    assert before > 0
    wait_until(
        lambda: shared_memory_bytes() == 0, timeout_s=3, every_s=0.02, what=shared_memory_bytes
    )


def test_one_large_request_after_the_other_is_taken_though_each_fills_the_lane(
    make_replica, make_client, monkeypatch
):
    monkeypatch.setattr(server_lane, "_MAX_WAITING_BYTES", 1_000)
    monkeypatch.setattr(client_lane.memory, "create", _refuse)
    client = make_client(make_replica(thread_count=2))
    questions = client.send(*(Question(numbers(1, 20_000, number)) for number in range(100)))
    for number, question in enumerate(questions):
        assert_echo(question.outputs(10), numbers(1, 20_000, number))


def _refuse(_size_bytes):
    raise OSError("no memory")


def test_a_server_that_is_closed_closes_what_is_added(make_server):
    server = make_server()
    server.close()
    mine, theirs = socket.socketpair()
    server.add(Wire(theirs))
    assert mine.recv(1) == b""
    mine.close()
    server.close()


# -- reading on the thread that asks -------------------------------------------------------------


def exchange(client, *questions):
    client.loop.exchange(
        client.lane, questions, lambda: all(question.answer.done() for question in questions)
    )


@pytest.mark.parametrize("size", [3, 3_000, 100_000, 3_000_000])
def test_a_thread_reads_its_own_answer(make_replica, make_client, kind, size):
    client = make_client(make_replica(), kind)
    for number in range(20 if size < 1_000_000 else 3):
        question = Question(numbers(1, size, number))
        exchange(client, question)
        assert_echo(question.outputs(10), numbers(1, size, number))


def test_some_threads_read_for_all_and_nobody_is_left_waiting(make_replica, make_client, kind):
    client = make_client(make_replica(), kind)
    failed = []

    def ask(seed):
        for number in range(150):
            array = numbers(1, (3, 50, 6_000)[number % 3], seed * 1_000 + number)
            question = Question(array)
            if (seed + number) % 2:
                exchange(client, question)
            else:
                client.send(question)
            try:
                assert_echo(question.outputs(10), array)
            except BaseException as error:  # noqa: BLE001 - shown below
                failed.append((seed, number, repr(error)))
                return

    asking = [threading.Thread(target=ask, args=(seed,)) for seed in range(6)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert failed == []


def test_answers_come_to_the_loop_again_after_a_thread_has_read(make_replica, make_client, kind):
    client = make_client(make_replica(), kind)
    for number in range(50):
        exchange(client, Question(numbers(1, 3)))
        (question,) = client.send(Question(numbers(1, 5, number)))
        assert_echo(question.outputs(5), numbers(1, 5, number))


@pytest.mark.parametrize("how", ["server", "client"])
def test_a_thread_that_reads_is_woken_when_the_lane_ends(make_replica, make_client, kind, how):
    replica = make_replica()
    client = make_client(replica, kind)
    replica.runner.gate.clear()
    question = Question(numbers(1, 3))
    reading = threading.Thread(target=exchange, args=(client, question), daemon=True)
    reading.start()
    wait_until(lambda: replica.runner.inside == 1, every_s=0.005)
    if how == "client":
        client.close()
    else:
        for lane in list(replica.server._lanes.values()):
            replica.server._drop(lane, "a test")
    reading.join(5)
    is_stuck = reading.is_alive()
    replica.runner.gate.set()
    assert not is_stuck
    assert question.returned == (1 if how == "server" else 0)
