"""Nothing grows with what comes and goes, however it goes."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from atriva_ray.lanes.connect import connect_unix
from tests.cluster.tools import wait_until
from tests.conftest import ROOT

from .tools import (
    Client,
    Question,
    assert_echo,
    descriptors,
    numbers,
    shared_memory_bytes,
    threads,
    used_bytes,
)

MIB = 2**20

FORKS = """
import os, signal, sys
from tests.lanes import endless
for line in sys.stdin:
    role, *arguments = line.split()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        getattr(endless, role)(writing, *arguments)
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 200).decode()
    print(pid, said, flush=True)
    os.waitpid(pid, 0)
    os.close(reading)
    print("ended", flush=True)
"""


class Forks:
    """A program that forks one that serves or asks without end, to be killed."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", FORKS],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *words):
        """Start one; returns its pid and what it says."""
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        pid, *said = self._process.stdout.readline().split()
        return int(pid), said

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)

    def wait(self):
        assert self._process.stdout.readline() == "ended\n"

    def close(self):
        self._process.stdin.close()
        assert self._process.wait(20) == 0
        self._process.stdout.close()


@pytest.fixture
def forks():
    opened = Forks()
    yield opened
    opened.close()


def state():
    shm = {path.name for path in Path("/dev/shm").iterdir()}  # noqa: S108 - looked at only
    return descriptors(), threads(), {name for name in shm if "atriva" in name}


def test_lanes_that_come_and_go_leave_nothing(make_replica, loop, kind):
    cycles = {"unix": 500, "tcp": 500, "tls": 50}[kind]  # certificates are slow to check
    replica = make_replica()
    if kind != "unix":
        replica.listen_tcp()
    small, large = numbers(1, 8), numbers(1, 250_000)

    def cycle():
        client = Client(loop, replica.connect(kind))
        assert_echo(client.ask(small), small)
        assert_echo(client.ask(large), large)
        client.close()

    for _ in range(40):
        cycle()
    wait_until(lambda: replica.server.lane_count == 0, every_s=0.01)
    before, memory_bytes = state(), used_bytes()
    for _ in range(cycles):
        cycle()
    wait_until(lambda: replica.server.lane_count == 0, every_s=0.01)
    wait_until(
        lambda: state() == before, timeout_s=10, every_s=0.05, what=lambda: (before, state())
    )
    assert used_bytes() - memory_bytes < 24 * MIB
    wait_until(lambda: shared_memory_bytes() == 0, timeout_s=10, every_s=0.05)


def test_one_lane_used_for_long_does_not_grow(make_replica, make_client, kind):
    client = make_client(make_replica(), kind)
    arrays = [numbers(1, size) for size in (8, 3_000, 30_000, 250_000)]

    def use(count):
        for number in range(count):
            array = arrays[number % 4]
            assert_echo(client.ask(array), array)

    use(100)
    before, memory_bytes = state(), used_bytes()
    use(1_000)
    assert state() == before
    assert used_bytes() - memory_bytes < 24 * MIB


def test_a_lane_whose_shapes_never_repeat_does_not_grow(make_replica, make_client):
    client = make_client(make_replica(lambda arrays: {"y": arrays["x"][:, :1]}))

    def use(first, count):
        for size in range(first, first + count):
            client.ask(numbers(1, size))

    use(5_000, 1_500)
    memory_bytes = used_bytes()
    use(6_500, 5_000)
    assert used_bytes() - memory_bytes < 8 * MIB


def test_clients_that_are_killed_leave_nothing_and_others_are_served(
    make_replica, make_client, forks
):
    replica = make_replica()
    stays = make_client(replica)
    arrays = [numbers(1, 8), numbers(1, 250_000)]
    for array in arrays * 20:
        assert_echo(stays.ask(array), array)
    before = memory_bytes = None
    for number in range(24):
        pid, _ = forks.start("ask", replica.listener.name, replica.token.hex())
        started = replica.runner.started
        wait_until(lambda started=started: replica.runner.started > started + 10, every_s=0.001)
        forks.kill(pid)
        forks.wait()
        for array in arrays:
            assert_echo(stays.ask(array), array)
        wait_until(lambda: replica.server.lane_count == 1, timeout_s=10, every_s=0.005)
        wait_until(lambda: replica.server.queue_len == 0, timeout_s=10, every_s=0.005)
        if number == 3:
            before, memory_bytes = state(), used_bytes()
    wait_until(
        lambda: state() == before, timeout_s=10, every_s=0.05, what=lambda: (before, state())
    )
    assert used_bytes() - memory_bytes < 24 * MIB


@pytest.mark.parametrize("size", [8, 250_000])
def test_a_server_that_is_killed_is_noticed_soon_and_everything_comes_back_once(
    forks, loop, capsys, size
):
    times_s = []
    for _ in range(5):
        pid, (name, token) = forks.start("serve")
        client = Client(loop, connect_unix(name, bytes.fromhex(token)))
        noticed = threading.Event()
        client_lost = client.lane._on_lost

        def lost(questions, reason, client_lost=client_lost, noticed=noticed):
            client_lost(questions, reason)
            noticed.set()

        client.lane._on_lost = lost
        array = numbers(1, size)
        questions = client.send(*map(Question, [array] * 60))
        assert_echo(questions[0].outputs(), array)
        started_s = time.monotonic()
        forks.kill(pid)
        assert noticed.wait(10)
        times_s.append(time.monotonic() - started_s)
        forks.wait()
        for question in questions:
            question.answer.exception(10)
        assert {question.returned for question in questions} == {1}
        assert len(client.lost_calls) == 1
        answered = [question for question in questions if question.reply is not None]
        for question in answered:
            assert_echo(question.outputs(), array)
        assert len(answered) + len(client.lost_calls[0][0]) == len(questions)
    with capsys.disabled():
        print(f" noticed after {statistics.median(times_s) * 1e3:.1f} ms ", end="")
    assert statistics.median(times_s) < 2
