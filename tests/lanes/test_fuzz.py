"""Whatever comes on a lane: the lane is closed at worst, and nobody else notices."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from collections import deque
from random import Random

import numpy as np
import pytest

from atriva_inference.ports import Port
from atriva_ray.lanes import client_lane, memory
from atriva_ray.lanes.errors import encode_error
from atriva_ray.lanes.frames import HEADER_BYTES, INLINE, SESSION, FrameReader, Kind, pack
from atriva_ray.lanes.layout import Layout
from atriva_ray.lanes.server import LaneServer
from atriva_ray.lanes.session_frames import SessionCall, SessionOp, encode_state
from atriva_ray.lanes.wire import Wire
from tests.cluster.tools import wait_until

from .tools import (
    ECHO,
    Client,
    Question,
    Runner,
    assert_echo,
    descriptors,
    numbers,
    threads,
    used_bytes,
    wire_pair,
)

FRAME_COUNT = int(os.environ.get("ATRIVA_FUZZ_FRAMES", "100000"))
LANES_AT_ONCE = 16
SLOT_BYTES = 256 * 1024
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
MIB = 2**20

GET = SessionCall(SessionOp.GET, 1)
FIELDS = {"kind": (0, 1), "flags": (1, 1), "slot": (2, 2), "layout": (4, 4)} | {
    "request": (8, 8),
    "body_size": (16, 8),
    "first": (24, 4),
    "second": (28, 4),
}
ODD_NUMBERS = [0, 1, 2, 3, 4, 5, 6, 31, 32, 255, 1023, 1024, 0xFFFE, 0xFFFF, 32768, 65536]
ODD_NUMBERS += [2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1]
ODD_LAYOUTS = [
    b"[]",
    b"{}",
    b"null",
    b'[["<f4", [0, 4]]]',
    b'[["<f4", [1, 1]]]',
    b'[["<f4", [32768, 2]]]',
    b'[["<f4", [1099511627776, 1]]]',
    b'[["<f4", [1099511627776, 1099511627776, 0]]]',
    b'[["<U0", [1099511627776]]]',
    b'[["|S0", [2, 2]]]',
    b'[["text:<U1", [2, 2]]]',
    b'[["<i4", [2, 2]]]',
    b'[["<f4", [2, 2]], ["<f4", [2, 2]]]',
    b'[["<f4", [4]]]',
    b"[" * 1000,
    b'[["<f4", [' + b"9" * 5000 + b", 1]]]",
]
ODD_ERRORS = [
    b"[]",
    b'["ClosedError", []]',
    b'["SystemExit", [1]]',
    b'["InferenceTimeoutError", ["m", 1' + b"0" * 400 + b"]]",
    b'["CompileError", [1, 2, 3]]',
    b"\xff\xff",
]


def layout_frame(number, array):
    text = Layout.of([array]).encode()
    return pack(Kind.LAYOUT, layout=number, body_size=len(text)) + text


class Frame:
    """Some bytes, and the descriptors that go with them."""

    def __init__(self, data, descriptors=(), question=None):
        self.data = data
        self.descriptors = descriptors
        self.question = question
        self.is_touched = False


class Descriptors:
    """One of each kind that may be handed over."""

    def __init__(self, folder):
        reading, writing = os.pipe()
        path = folder / "file"
        path.write_bytes(bytes(SLOT_BYTES))
        self.good = self.memory(SLOT_BYTES)
        self.bad = [
            reading,
            writing,
            os.open(path, os.O_RDWR),
            os.open(folder, os.O_RDONLY),
            os.eventfd(0),
            self.memory(SLOT_BYTES, 0),
            self.memory(SLOT_BYTES - 4096),
            self.memory(4096),
        ]
        self.empty = self.memory(0)

    def memory(self, size, seals=SEALS):
        descriptor = os.memfd_create("fuzz", os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return descriptor

    def close(self):
        for descriptor in (self.good, self.empty, *self.bad):
            os.close(descriptor)


@pytest.fixture
def handed(tmp_path):
    opened = Descriptors(tmp_path)
    yield opened
    opened.close()


# -- mutations -----------------------------------------------------------------------------------


def replaced(data, position, piece):
    return data[:position] + piece + data[position + len(piece) :]


def flip(random, frames, at):
    data = frames[at].data
    for _ in range(random.randint(1, 3)):
        position = random.randrange(min(len(data), 80) if random.random() < 0.8 else len(data))
        data = replaced(data, position, bytes([data[position] ^ (1 << random.randrange(8))]))
    frames[at].data = data


def set_field(random, frames, at):
    position, size = FIELDS[random.choice(list(FIELDS))]
    value = random.choice(ODD_NUMBERS) % 2 ** (8 * size)
    frames[at].data = replaced(frames[at].data, position, value.to_bytes(size, "little"))


def set_size(random, frames, at):
    size = random.choice([*ODD_NUMBERS, len(frames[at].data)])
    frames[at].data = replaced(frames[at].data, 16, struct.pack("<Q", size % 2**64))


def cut(random, frames, at):
    frames[at].data = frames[at].data[: random.randrange(len(frames[at].data))]


def end(random, frames, at):
    """Break off in the middle of a frame."""
    cut(random, frames, at)
    del frames[at + 1 :]


def repeat(random, frames, at):
    copy = Frame(frames[at].data, frames[at].descriptors, frames[at].question)
    copy.is_touched = True
    frames.insert(random.randint(at + 1, len(frames)), copy)


def move(random, frames, at):
    frames.insert(random.randrange(len(frames)), frames.pop(at))


def drop(_random, frames, at):
    if len(frames) > 1:
        frames.pop(at)


def noise(random, frames, at):
    frames[at].data = random.randbytes(random.choice([1, 31, 32, 33, 64, 200]))


def odd_layout(random, frames, at):
    text = random.choice(ODD_LAYOUTS)
    number = random.choice([0, 1, 2, 1023, 1024])
    frames[at].data = pack(Kind.LAYOUT, layout=number, body_size=len(text)) + text


STRUCTURAL = [end, repeat, move, drop]
ANY = [flip, flip, set_field, set_field, set_size, noise, odd_layout, cut, *STRUCTURAL]


def mutate(random, frames, mutations):
    """Change a stream; returns the index of the first frame that is not as it was."""
    before = [(frame, frame.data, frame.descriptors) for frame in frames]
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        change = random.choice(mutations)
        change(random, frames, random.randrange(len(frames)))
        frames[:] = [frame for frame in frames if frame.data]
        if not frames or change is end:  # what came behind it would be taken for its rest
            break
    for index, (frame, (old, data, handed)) in enumerate(zip(frames, before, strict=False)):
        if frame is not old or frame.data != data or frame.descriptors != handed:
            return index
    return min(len(frames), len(before))


# -- against the server --------------------------------------------------------------------------


def sound_stream(random, handed):
    """What a sound client sends: small requests, and large ones in shared memory."""
    frames = []
    shapes = [(random.randint(1, 3), random.randint(1, 9)) for _ in range(2)]
    frames += [
        Frame(layout_frame(number, np.empty(shape, np.float32)))
        for number, shape in enumerate(shapes)
    ]
    large = np.broadcast_to(np.float32(0), (8, 1024))
    frames.append(Frame(layout_frame(2, large)))
    for slot in range(2):
        frames.append(Frame(pack(Kind.ATTACH, slot=slot, request=SLOT_BYTES), (handed.good,)))
    session = random.choice([0, 0, 1, 2**32 - 1])
    calls = iter(session_calls(random, session) if session else ())
    for request in range(random.randint(3, 9)):
        if session and random.random() < 0.5 and (call := next(calls, None)) is not None:
            data = b"".join(bytes(each) for each in call.buffers(request))
            frames.append(Frame(data))
            continue
        flags = 1 if random.random() < 0.05 else 0
        first = session if random.random() < 0.5 else 0
        if first:
            flags = SESSION
        number = random.randrange(3)
        if number == 2:
            slot = random.randrange(2)
            frames.append(
                Frame(
                    pack(
                        *(Kind.REQUEST,),
                        flags=flags,
                        slot=slot,
                        layout=2,
                        request=request,
                        first=first,
                    )
                )
            )
        else:
            body = random.randbytes(4 * shapes[number][0] * shapes[number][1])
            header = pack(
                *(Kind.REQUEST,),
                flags=flags,
                layout=number,
                request=request,
                body_size=len(body),
                first=first,
            )
            frames.append(Frame(header + body))
    return frames


def session_calls(random, session):
    """What a sound client asks for about a session, in order."""
    yield SessionCall(SessionOp.OPEN, session)
    for _ in range(random.randint(0, 3)):
        op = random.choice([SessionOp.GET, SessionOp.SET, SessionOp.RESET])
        total = np.ones((2, random.choice([2, 10_000])), np.float32)
        yield SessionCall(op, session, {"total": total} if op is SessionOp.SET else None)
    yield SessionCall(SessionOp.CLOSE, session)


def hand_over_wrongly(handed):
    def change(random, frames, at):
        kind = random.randrange(6)
        frame = frames[at]
        if kind == 0:
            frame.descriptors = ()
        elif kind == 1:
            frame.descriptors = (random.choice(handed.bad),)
        elif kind == 2:
            frame.descriptors = (handed.good,) * random.randint(2, 12)
        elif kind == 3:
            frame.data = pack(Kind.ATTACH, slot=random.choice([0, 1, 1023, 1024, INLINE]))
            frame.descriptors = (handed.empty,)
        elif kind == 4:
            frame.data = pack(Kind.ATTACH, slot=0, request=random.choice(ODD_NUMBERS))
            frame.descriptors = (random.choice([handed.good, *handed.bad]),)
        else:
            frame.descriptors = (*frame.descriptors, random.choice(handed.bad))

    return change


def send_all(connected, frames):
    """Send as much as the other end takes; it may close the lane at any frame."""
    pending = bytearray()
    try:
        for frame in frames:
            if not frame.descriptors:
                pending += frame.data
                continue
            if pending:
                connected.sendall(pending)
                pending = bytearray()
            socket.send_fds(connected, [frame.data], list(frame.descriptors))
        if pending:
            connected.sendall(pending)
        connected.shutdown(socket.SHUT_WR)
    except ConnectionError:
        pass


def drain(connected):
    """Read until the other end closes the lane; it has to, and soon."""
    try:
        while connected.recv(MIB):
            pass
    except ConnectionError:
        pass
    connected.close()


class Watcher:
    """A sound client that asks all the time and checks what it is told."""

    def __init__(self, loop, server):
        mine, theirs = wire_pair()
        server.add(theirs)
        self.client = Client(loop, mine)
        self.answered = 0
        self.error = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="watcher")
        self._thread.start()

    def _ask(self):
        try:
            while not self._is_over.is_set():
                size = (5, 3_000, 20_000)[self.answered % 3]
                array = numbers(1, size, self.answered % 1000)
                (question,) = self.client.send(Question(array))
                assert_echo(question.outputs(10), array)
                self.answered += 1
        except BaseException as error:  # noqa: BLE001 - it is raised where the test ends
            self.error = error

    def close(self):
        self._is_over.set()
        self._thread.join(5)
        self.client.close()


class Remembering(Runner):
    """A runner whose sessions keep the last input; it can say how many are open."""

    variables = (Port("total", ("total",), np.dtype(np.float32), (2, -1)),)

    def __init__(self, function):
        super().__init__(function)
        self.open = set()

    def open_session(self, number):
        session = Remembered(self, number)
        self.open.add(session)
        return session


class Remembered:
    def __init__(self, runner, number):
        self.runner = runner
        self.number = number
        self.total = {}

    def run(self, bound, memory=None):
        return self.runner.run(bound, memory)

    def state(self):
        return self.total

    def set_state(self, state):
        self.total = state

    def reset(self):
        self.total = {}

    def close(self):
        self.runner.open.discard(self)

    abandon = close


def carefully(arrays):
    with np.errstate(all="ignore"):
        return {"y": arrays["x"] + 1}


@pytest.mark.parametrize("thread_count", [1, 2])
def test_no_frames_bring_a_server_down(loop, handed, thread_count):
    runner = Remembering(carefully)
    server = LaneServer(runner, ECHO, thread_count)
    watcher = Watcher(loop, server)
    random = Random(thread_count)  # noqa: S311 - the same frames in every run
    mutations = [*ANY, *[hand_over_wrongly(handed)] * 3]
    sent = 0
    steady = None
    try:
        while sent < FRAME_COUNT // 2:
            lanes = []
            for _ in range(LANES_AT_ONCE):
                mine, theirs = socket.socketpair()
                mine.settimeout(10)
                server.add(Wire(theirs))
                frames = sound_stream(random, handed)
                if random.random() < 0.9:
                    mutate(random, frames, mutations)
                send_all(mine, frames)
                sent += len(frames)
                lanes.append(mine)
            for mine in lanes:
                drain(mine)
            if steady is None and sent > FRAME_COUNT // 20:
                steady = (used_bytes(), threads(), watcher.answered)
        wait_until(lambda: server.lane_count == 1, timeout_s=10, every_s=0.01)
        assert watcher.error is None
        answered = watcher.answered
        wait_until(lambda: watcher.answered > answered + 3, timeout_s=10, every_s=0.01)
        memory_bytes, before, answered = steady
        assert used_bytes() - memory_bytes < 48 * MIB
        assert set(threads()) <= {*before, "runner_0", "runner_1"}
        assert descriptors()["socket"] < LANES_AT_ONCE
        assert watcher.answered > answered
    finally:
        watcher.close()
        server.close()
        runner.close()
    assert server.queue_len == 0
    assert runner.open == set()
    assert server._sessions._behind == {}


# -- against the client --------------------------------------------------------------------------


class FakeReplica:
    """Reads what a client sends and makes the frames of sound answers, to be changed and sent."""

    def __init__(self, connected):
        self.socket = connected
        self.wire = Wire(connected)
        self._reader = FrameReader(lambda _header: 2**40)
        self._layouts = {}
        self._slots = {}

    def requests(self, count):
        """The next requests: number, slot, and the input's bytes."""
        found = []

        def read():
            space = self._reader.space()
            received = self.wire.read_into(space)
            for frame in self._reader.received(received) if received else ():
                if frame.kind == Kind.LAYOUT:
                    self._layouts[frame.layout] = Layout.decode(frame.body)
                elif frame.kind == Kind.ATTACH:
                    self._attach(frame)
                else:
                    found.append(frame)
            return len(found) >= count

        wait_until(read, timeout_s=10, every_s=0.0005)
        return found

    def _attach(self, frame):
        self._slots[frame.slot] = memory.attach(self.wire.descriptors.popleft(), frame.request)

    def answers(self, requests, random):
        frames = []
        known = {}
        for request in requests:
            if request.kind == Kind.SESSION:
                body = b"".join(bytes(each) for each in encode_state({"total": np.ones(3)}))
                header = pack(Kind.STATE, request=request.request, body_size=len(body))
                frames.append(Frame(header + body, (), request.request))
                continue
            layout = self._layouts[request.layout]
            is_inline = request.slot == INLINE
            source = request.body if is_inline else self._slots[request.slot]
            (array,) = layout.views(source)
            if random.random() < 0.1:
                text = encode_error(ValueError(f"{array.flat[0]}"), "m", "d")
                header = pack(Kind.ERROR, request=request.request, body_size=len(text))
                frames.append(Frame(header + text, (), request.request))
                continue
            answer = array + 1
            if answer.shape not in known:
                known[answer.shape] = len(known)
                frames.append(Frame(layout_frame(known[answer.shape], answer)))
            number = known[answer.shape]
            header = pack(
                *(Kind.ANSWER,),
                layout=number,
                request=request.request,
                body_size=answer.nbytes,
                first=5,
            )
            frames.append(Frame(header + answer.tobytes(), (), request.request))
        return frames

    def close(self):
        self.wire.close()


def odd_error(random, frames, at):
    text = random.choice(ODD_ERRORS)
    request = frames[at].question or 1
    frames[at].data = pack(Kind.ERROR, request=request, body_size=len(text)) + text


def odd_answer(random, frames, at):
    """An answer that is announced as something that cannot be."""
    request = frames[at].question or 1
    text = random.choice(ODD_LAYOUTS)
    frames[at].data = (
        pack(Kind.LAYOUT, layout=9, body_size=len(text))
        + text
        + pack(Kind.ANSWER, layout=9, request=request)
    )


@pytest.fixture
def small_answers(monkeypatch):
    """A limit that is reached without using up this machine."""
    monkeypatch.setattr(client_lane, "_MAX_ANSWER_BYTES", 4 * MIB)


@pytest.mark.parametrize("is_structural", [False, True])
def test_no_frames_make_a_client_lose_or_mistake_a_request(loop, small_answers, is_structural):
    random = Random(is_structural)  # noqa: S311 - the same frames in every run
    mutations = STRUCTURAL if is_structural else [*ANY, odd_error, odd_error, odd_answer]
    sent = 0
    before = None
    waiting = deque()
    while sent < FRAME_COUNT // 10:
        one, other = socket.socketpair()
        client, replica = Client(loop, Wire(one)), FakeReplica(other)
        count = random.randint(2, 9)
        arrays = [
            numbers(1, random.choice([1, 5, 7, 5_000]), random.randrange(1000))
            for _ in range(count)
        ]
        questions = client.send(
            *(
                Question(array, session=1) if random.random() < 0.9 else Question(call=GET)
                for array in arrays
            )
        )
        frames = replica.answers(replica.requests(count), random)
        first_touched = mutate(random, frames, mutations)
        sound = {frame.question for frame in frames[:first_touched]} - {None}
        send_all(other, frames)
        sent += len(frames)
        waiting.append((client, replica, questions, arrays, sound))
        if len(waiting) >= LANES_AT_ONCE:
            check_end(*waiting.popleft(), is_structural)
        if before is None and sent > FRAME_COUNT // 50:
            before = used_bytes()
    while waiting:
        check_end(*waiting.popleft(), is_structural)
    assert used_bytes() - before < 48 * MIB


def check_end(client, replica, questions, arrays, sound, is_structural):
    wait_until(lambda: client.lost_calls, timeout_s=10, every_s=0.001)
    replica.close()
    lost, _ = client.lost_calls[0]
    unanswered = [question for question in questions if question.reply is None]
    assert [question.returned for question in questions] == [1] * len(questions)
    assert sorted(map(id, lost)) == sorted(map(id, unanswered))
    assert len(client.lost_calls) == 1
    for number, (question, array) in enumerate(zip(questions, arrays, strict=True), 1):
        if number in sound:
            assert question.reply is not None
        if question.reply is None or (number not in sound and not is_structural):
            continue
        if question.reply.error is not None:
            assert str(array.flat[0]) in str(question.reply.error)
        elif question.call is not None:
            assert question.reply.outputs["total"].tolist() == [1, 1, 1]
        else:
            assert_echo(question.reply.outputs, array)


def test_the_streams_that_are_changed_are_sound(loop, handed):
    server = LaneServer(Remembering(carefully), ECHO, 1)
    random = Random(1)  # noqa: S311 - the same frames in every run
    for _ in range(50):
        mine, theirs = socket.socketpair()
        mine.settimeout(10)
        server.add(Wire(theirs))
        frames = [frame for frame in sound_stream(random, handed) if frame.data[1] != 1]
        expected = sum(frame.data[0] == Kind.REQUEST for frame in frames)
        for frame in frames:
            send = [frame.data]
            socket.send_fds(mine, send, list(frame.descriptors))
        reader = FrameReader(lambda _header: 2**40)
        answered = 0
        while answered < expected:
            space = reader.space()
            count = mine.recv_into(space)
            assert count > 0
            answered += sum(
                frame.kind in (Kind.ANSWER, Kind.STATE, Kind.ERROR)
                for frame in reader.received(count)
            )
        mine.close()
    server.close()


def test_headers_are_as_long_as_is_assumed_here():
    assert HEADER_BYTES == 32
    assert max(position + size for position, size in FIELDS.values()) == HEADER_BYTES
