"""Requests that run together on devices that gain by it: fake ones that do, a real one that may."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest

from atriva_inference import InferenceRuntime
from atriva_inference.binding import BoundInputs
from atriva_ray.lanes.server_lane import Ports
from atriva_ray.lanes.together import Together, find_together

from .tools import ECHO, Question, Runner, assert_echo, numbers, port

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODELS = Path(__file__).parents[1] / "models"


class Accelerator(Runner):
    """One slot that takes a while for a batch and a little for each of its rows."""

    def __init__(self, fixed_s=4e-3, each_s=0.1e-3):
        super().__init__(self._compute)
        self.rows = []
        self._fixed_s = fixed_s
        self._each_s = each_s
        self._slot = threading.Lock()

    def _compute(self, arrays):
        with self._slot:
            count = len(arrays["x"])
            self.rows.append(count)
            time.sleep(self._fixed_s + self._each_s * count)
            return {"y": arrays["x"] + 1}


def ask_for(clients, seconds, size=100):
    """Have every client ask, one request after the other, for that long; return the rate."""

    def work(number):
        count = 0
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            array = numbers(1, size, number * 1_000 + count % 1_000)
            assert_echo(clients[number].ask(array), array)
            count += 1
        return count

    with ThreadPoolExecutor(len(clients)) as threads:
        return sum(threads.map(work, range(len(clients)))) / seconds


@pytest.mark.parametrize("size", [100, 20_000])
def test_a_device_that_gains_by_it_answers_many_clients_at_once(make_replica, make_client, size):
    together = Together(ECHO.inputs, ECHO.outputs, 1)
    replica = make_replica(runner=Accelerator(), thread_count=2, together=together)
    clients = [make_client(replica) for _ in range(16)]

    def best_rows():
        ask_for(clients, 0.25, size)
        return max(
            (shape.best_rows for shape in replica.server.batching_report().shapes), default=1
        )

    # How soon it is learned depends on who else computes; that it is does not.
    deadline_s = time.monotonic() + 60
    while best_rows() < 8:
        assert time.monotonic() < deadline_s, replica.server.batching_report()
    (shape,) = replica.server.batching_report().shapes
    assert [each.rows for each in shape.sizes][:4] == [1, 2, 4, 8]
    assert max(replica.runner.rows) >= 8


def test_a_lone_client_does_not_wait_for_others(make_replica, make_client):
    together = Together(ECHO.inputs, ECHO.outputs, 1)
    replica = make_replica(runner=Accelerator(), thread_count=2, together=together)
    ask_for([make_client(replica)], 2.0)
    assert set(replica.runner.rows) == {1}
    assert replica.server.batching_report().waited_s < 0.02


def test_clients_are_told_how_many_should_wait(make_replica, make_client):
    replica = make_replica(
        runner=Accelerator(), thread_count=2, together=Together(ECHO.inputs, ECHO.outputs, 1)
    )
    client = make_client(replica)
    questions = client.send(*(Question(numbers(1, 4, n)) for n in range(1_500)))
    for question in questions:
        question.outputs()
    assert questions[0].reply.wanted == 1
    assert questions[-1].reply.wanted == 32


def test_without_batching_there_is_nothing_to_report(make_replica, make_client):
    replica = make_replica()
    assert_echo(make_client(replica).ask(numbers(1, 4)), numbers(1, 4))
    assert replica.server.batching_report() is None


def test_requests_that_cannot_be_taken_yet_wait_for_the_slot_and_not_for_a_thread(
    make_replica, make_client
):
    runner = Accelerator()
    together = Together(ECHO.inputs, ECHO.outputs, 1)
    replica = make_replica(runner=runner, thread_count=3, together=together)
    client = make_client(replica)
    questions = client.send(*(Question(numbers(1, 4, n)) for n in range(200)))
    for question in questions:
        question.outputs()
    assert runner.most_inside == 1


def test_odd_shapes_among_others_are_all_answered(make_replica, make_client):
    runner = Accelerator(fixed_s=1.5e-3)
    together = Together(ECHO.inputs, ECHO.outputs, 1)
    replica = make_replica(runner=runner, thread_count=2, together=together)
    clients = [make_client(replica) for _ in range(3)]
    sent = []
    for number in range(600):
        rows, width = (1, 4) if number % 7 else (1 + number % 3, 5 + number % 2)
        array = numbers(rows, width, number)
        sent += zip(clients[number % 3].send(Question(array)), [array], strict=True)
    for question, array in sent:
        assert_echo(question.outputs(), array)
    shapes = {shape.row_shapes for shape in replica.server.batching_report().shapes}
    assert shapes == {((4,),), ((5,),), ((6,),)}
    assert len(runner.rows) < 400


# -- real models ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtime():
    with InferenceRuntime("openvino") as opened:
        opened.devices()
        yield opened


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    """A real architecture whose first dimension is a batch of any size."""
    model = ov.Core().read_model(LIGHT / "light_squeezenet.onnx")
    model.reshape([-1, 3, 224, 224])
    path = tmp_path_factory.mktemp("models") / "squeezenet.xml"
    ov.save_model(model, path, compress_to_fp16=False)
    return path


@pytest.fixture
def make_real(runtime, make_replica):
    opened = []

    class Borrowed:
        """An executor that somebody else closes; remembers how many rows came."""

        def __init__(self, executor):
            self.executor = executor
            self.submit = executor.submit
            self.rows = []

        def run(self, bound, memory=None):
            self.rows.append(len(next(iter(bound.arrays.values()))))
            return self.executor.run(bound, memory)

    def make(path):
        model = runtime.load_model(path, "CPU")
        opened.append(model)
        executor = model._executor
        runner = Borrowed(executor)
        slots = executor.parallelism
        together = find_together(runner, executor.inputs, executor.outputs, slots)
        assert together is not None
        runner.rows.clear()
        ports = Ports("real", executor.inputs, executor.outputs)
        return make_replica(ports=ports, thread_count=slots, together=together, runner=runner)

    yield make
    for model in opened:
        model.close()


def test_a_real_model_answers_in_company_exactly_as_alone(squeezenet, make_real, make_client):
    replica = make_real(squeezenet)
    name = replica.ports.inputs[0].name
    clients = [make_client(replica) for _ in range(4)]
    random = np.random.default_rng(1)
    pictures = [random.standard_normal((1, 3, 224, 224), np.float32) for _ in range(12)]
    sent = []
    for number in range(72):
        picture = pictures[number % 12]
        sent += [(number % 12, *clients[number % 4].send(Question({name: picture})))]
    answers = [(which, question.outputs(60)) for which, question in sent]
    assert max(replica.runner.rows) > 1
    alone = [replica.runner.executor.run(BoundInputs({name: picture})) for picture in pictures]
    for which, outputs in answers:
        for output, array in outputs.items():
            np.testing.assert_array_equal(array, alone[which][output])


def test_a_real_model_of_any_size_runs_alike_sizes_together(make_real, make_client):
    replica = make_real(MODELS / "onnx" / "dynamic.onnx")
    name = replica.ports.inputs[0].name
    clients = [make_client(replica) for _ in range(3)]
    random = np.random.default_rng(2)
    shapes = [(1, 3, 32, 32), (1, 3, 64, 48), (2, 3, 32, 32), (1, 3, 40, 40)]
    arrays = [random.random(shapes[number % 4], np.float32) for number in range(400)]
    sent = []
    for number, array in enumerate(arrays):
        sent += clients[number % 3].send(Question({name: array}))
    outputs = [question.outputs(60) for question in sent]
    assert len(replica.runner.rows) < len(arrays)
    for array, got in zip(arrays, outputs, strict=True):
        for output, expected in replica.runner.executor.run(BoundInputs({name: array})).items():
            np.testing.assert_allclose(got[output], expected, rtol=1e-5, atol=1e-6)
    report = replica.server.batching_report()
    assert not report.is_mixing
    assert len(report.shapes) == 3


def test_pixels_run_together_too(make_replica, make_client):
    pixels = port("x", (-1, 4), np.uint8)
    runner = Runner(lambda arrays: {"y": arrays["x"].astype(np.float32) + 1})
    together = find_together(runner, [pixels], [port("y", (-1, 4))], 1)
    replica = make_replica(
        runner=runner,
        ports=Ports("p", [pixels], [port("y", (-1, 4))]),
        thread_count=1,
        together=together,
    )
    client = make_client(replica)
    arrays = [np.full((1, 4), number % 251, np.uint8) for number in range(300)]
    before = runner.started
    for question, array in zip(
        client.send(*(Question({"x": array}) for array in arrays)), arrays, strict=True
    ):
        np.testing.assert_array_equal(question.outputs()["y"], array.astype(np.float32) + 1)
    assert runner.started - before < 300
