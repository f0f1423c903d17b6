"""Replicas and clients of lanes without Ray: real sockets, real servers, runners that are told."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil

from atriva_inference.binding import BoundInputs
from atriva_inference.ports import Port
from atriva_inference.terms import USUAL
from atriva_ray.lanes.client_lane import ClientLane
from atriva_ray.lanes.connect import connect_tcp, connect_unix
from atriva_ray.lanes.handshake import make_token
from atriva_ray.lanes.listen import Listener
from atriva_ray.lanes.server import LaneServer
from atriva_ray.lanes.server_lane import Ports
from atriva_ray.lanes.wire import Wire

PATIENCE_S = 30
FLOAT = np.dtype(np.float32)
_DESCRIPTORS = Path("/proc/self/fd")


def port(name, shape, dtype=FLOAT):
    return Port(name, (name,), np.dtype(dtype), shape)


ECHO = Ports("echo", [port("x", (-1, -1))], [port("y", (-1, -1))])
"""`x` float32 ?×? → `y`, the same plus one."""


def plus_one(arrays):
    return {"y": arrays["x"] + 1}


class Runner:
    """Runs a function of arrays by name; counts what runs, and can hold it back."""

    variables = ()

    def __init__(self, function=plus_one):
        self.function = function
        self.gate = threading.Event()
        self.gate.set()
        self.started = 0
        self.inside = 0
        self.most_inside = 0
        self.used_memory = 0
        self.submitted = 0
        self.writes_to_memory = False
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="runner")

    def run(self, bound, memory=None):
        with self._lock:
            self.started += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            assert self.gate.wait(PATIENCE_S)
            outputs = self.function(bound.arrays)
            if memory is None or not self.writes_to_memory:
                return outputs
            self.used_memory += 1
            for name, array in outputs.items():
                np.copyto(memory[name], array)
            return memory
        finally:
            with self._lock:
                self.inside -= 1

    def submit(self, bound, wrap, **_terms):
        self.submitted += 1
        return self._threads.submit(lambda: wrap(self.run(bound)))

    def close(self):
        self.gate.set()
        self._threads.shutdown()


class Replica:
    """A lane server behind a listener, on an event loop of its own."""

    def __init__(self, runner, ports=ECHO, thread_count=2, together=None):
        self.runner = runner
        self.ports = ports
        self.token = make_token()
        self.server = LaneServer(runner, ports, thread_count, together)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="replica")
        self._thread.start()
        self.listener = self.on_loop(self._make_listener())
        self.tcp = None

    def on_loop(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    async def _make_listener(self):
        return Listener(self.token, self.server.add)

    async def _listen_tcp(self):
        return self.listener.listen_tcp("127.0.0.1")

    def listen_tcp(self):
        self.tcp = self.on_loop(self._listen_tcp())
        return self.tcp

    def connect(self, kind="unix"):
        if kind == "unix":
            return connect_unix(self.listener.name, self.token)
        return connect_tcp(*self.listen_tcp(), self.token)

    def close(self):
        self.on_loop(self.listener.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        self.server.close()
        if hasattr(self.runner, "close"):
            self.runner.close()


class Question:
    """One request, and how often it came back."""

    def __init__(self, arrays=None, signature=None, terms=USUAL, session=0, call=None):
        if not isinstance(arrays, dict):
            arrays = {"x": arrays}
        self.session = session if call is None else call.session
        self.call = call
        self.bound = BoundInputs(arrays, signature)
        self.terms = terms
        self.returned = 0
        self.reply = None
        self.reason = None
        self.answer = Future()

    def outputs(self, timeout_s=PATIENCE_S):
        return self.answer.result(timeout_s)


class LostError(Exception):
    """The request came back unanswered."""


class Client:
    """One end of a lane that notes everything that comes back."""

    def __init__(self, loop, wire, ports=ECHO):
        self.loop = loop
        self.lost_calls = []
        self.lane = ClientLane(wire, ports, self._take_replies, self._take_lost)
        loop.add(self.lane)

    def send(self, *questions):
        self.loop.send(self.lane, questions)
        return questions

    def ask(self, arrays, signature=None):
        (question,) = self.send(Question(arrays, signature))
        return question.outputs()

    def close(self):
        self.loop.remove(self.lane)

    def _take_replies(self, replies):
        for reply in replies:
            question = reply.request
            question.returned += 1
            question.reply = reply
            if question.returned > 1:
                continue
            if reply.error is not None:
                question.answer.set_exception(reply.error)
            else:
                question.answer.set_result(reply.outputs)

    def _take_lost(self, questions, reason):
        self.lost_calls.append((list(questions), reason))
        for question in questions:
            question.returned += 1
            question.reason = reason
            if question.returned == 1:
                question.answer.set_exception(LostError(reason))


def wire_pair():
    one, other = socket.socketpair()
    return Wire(one), Wire(other)


def numbers(rows, columns, first=0):
    """A float32 array of these axes whose every element is its own number."""
    return (np.arange(rows * columns, dtype=np.float32) + first).reshape(rows, columns)


def assert_echo(outputs, array):
    assert set(outputs) == {"y"}
    assert outputs["y"].dtype == array.dtype
    assert np.array_equal(outputs["y"], array + 1)


def descriptors():
    """Count open descriptors by what they are."""
    kinds = Counter()
    for path in _DESCRIPTORS.iterdir():
        if path.is_symlink():
            kinds[str(path.readlink()).partition(":")[0]] += 1
    return kinds


def threads():
    return sorted(thread.name for thread in threading.enumerate())


def lane_threads():
    return [name for name in threads() if name.startswith(("atriva-lane", "replica", "runner"))]


def used_bytes():
    """Memory that is this process's own, after everything that can be freed was."""
    gc.collect()
    return psutil.Process().memory_info().rss


def shared_memory_bytes():
    """What all shared memory of this machine without a name and /dev/shm take in this process."""
    total = 0
    is_slot = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.partition(" ")[0]:
            is_slot = "atriva-slot" in line
        elif is_slot and line.startswith("Size:"):
            total += int(line.split()[1]) * 1024
    return total
