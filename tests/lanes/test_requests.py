"""Requests and answers of every size and kind, over every kind of connection."""

from __future__ import annotations

import numpy as np
import pytest

from atriva_inference import InferenceRuntime
from atriva_inference.binding import BoundInputs
from atriva_inference.errors import InferenceFailedError, InputShapeError
from atriva_ray.lanes import client_lane, memory
from atriva_ray.lanes.server_lane import INLINE_BYTES, Ports
from atriva_ray.lanes.together import Together
from tests.cluster.tools import wait_until
from tests.conftest import EXAMPLES, MODELS

from .tools import Question, assert_echo, numbers, port

SIZES = [25, 1_000, 4_000, 4_095, 4_096, 4_097, 16_384, 16_385, 250_000, 5_000_000]
"""Elements of four bytes: 0.1 kB to 20 MB."""


@pytest.mark.parametrize("size", SIZES)
def test_answers_of_every_size_are_right(make_replica, make_client, kind, size):
    client = make_client(make_replica(), kind)
    for number in range(3):
        array = numbers(1, size, number)
        assert_echo(client.ask(array), array)


def test_requests_of_all_sizes_travel_together(make_replica, make_client, kind):
    client = make_client(make_replica(), kind)
    arrays = [numbers(1 + n % 3, size, n) for n, size in enumerate([1, 5_000, 70_000, 3] * 8)]
    questions = client.send(*map(Question, arrays))
    for question, array in zip(questions, arrays, strict=True):
        assert_echo(question.outputs(), array)
    assert [question.returned for question in questions] == [1] * len(arrays)


def test_shapes_grow_and_shrink_from_request_to_request(make_replica, make_client, kind):
    client = make_client(make_replica(), kind)
    for size in [1, 10, 100_000, 10, 300_000, 5_000, 299_999, 4_096, 1, 600_000, 2]:
        array = numbers(2, size, size)
        assert_echo(client.ask(array), array)


def test_more_shapes_than_there_are_numbers_for_are_answered(make_replica, make_client, kind):
    client = make_client(make_replica(), kind)
    for _ in range(2):
        questions = []
        for size in range(1, 1_300):
            questions += client.send(Question(numbers(1, size)))
            if size % 50 == 0:
                questions[-1].outputs()
        for size, question in enumerate(questions, 1):
            assert_echo(question.outputs(), numbers(1, size))


@pytest.mark.parametrize("writes_to_memory", [False, True])
@pytest.mark.parametrize("size", [10, INLINE_BYTES // 4, INLINE_BYTES // 4 + 1, 1_000_000])
def test_large_answers_come_from_small_requests(
    make_replica, make_client, kind, size, writes_to_memory
):
    ports = Ports("wide", [port("x", (-1, -1))], [port("y", (1, size))])
    replica = make_replica(lambda arrays: {"y": arrays["x"][:1, :1] + numbers(1, size)}, ports)
    replica.runner.writes_to_memory = writes_to_memory
    client = make_client(replica, kind)
    for number in range(5):
        outputs = client.ask(numbers(1, 3, number))
        assert np.array_equal(outputs["y"], numbers(1, size, number))
    in_memory = writes_to_memory and kind == "unix" and size * 4 > INLINE_BYTES
    assert replica.runner.used_memory == (5 if in_memory else 0)


@pytest.mark.parametrize("size", [5_000, 1_000_000])
def test_large_answers_of_unknown_size_come_from_small_requests(
    make_replica, make_client, kind, size
):
    def widen(arrays):
        return {"y": numbers(1, int(arrays["x"][0, 0]))}

    client = make_client(make_replica(widen), kind)
    for length in (1, size, 2, size + 1, size // 2, 3):
        outputs = client.ask(np.full((1, 1), length, np.float32))
        assert np.array_equal(outputs["y"], numbers(1, length))


def test_small_answers_come_from_large_requests(make_replica, make_client, kind):
    client = make_client(make_replica(lambda arrays: {"y": arrays["x"][:1, -2:]}), kind)
    for size in (4, 5_000, 2_000_000):
        assert client.ask(numbers(2, size))["y"].tolist() == [[size - 2, size - 1]]


def test_several_inputs_and_outputs_keep_their_names(make_replica, make_client, kind):
    ports = Ports(
        "many",
        [port("a", (-1,)), port("b", (-1, -1), "i8"), port("c", (), "u1")],
        [port("sum", (-1,)), port("flag", (-1,), "?"), port("c", (), "u1"), port("none", (0,))],
    )

    def compute(arrays):
        return {
            "c": arrays["c"] + np.uint8(1),
            "none": np.empty(0, np.float32),
            "flag": arrays["a"] > 1,
            "sum": arrays["a"] + arrays["b"].sum(axis=0).astype(np.float32),
        }

    client = make_client(make_replica(compute, ports), kind)
    for size in (1, 3, 5_000, 400_000, 2):
        a = np.arange(size, dtype=np.float32)
        b = np.ones((2, size), np.int64)
        outputs = client.ask({"a": a, "b": b, "c": np.array(7, np.uint8)})
        assert list(outputs) == ["sum", "flag", "c", "none"]
        assert np.array_equal(outputs["sum"], a + 2)
        assert np.array_equal(outputs["flag"], a > 1)
        assert (outputs["c"].shape, outputs["c"].item()) == ((), 8)
        assert outputs["none"].shape == (0,)


@pytest.mark.parametrize("size", [0, 1, 3, 10_000])
def test_answers_without_elements_come(make_replica, make_client, kind, size):
    client = make_client(make_replica(lambda arrays: {"y": arrays["x"][:0]}), kind)
    outputs = client.ask(numbers(1, size + 1))
    assert outputs["y"].shape == (0, size + 1)


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_answers_are_the_callers_to_change(make_replica, make_client, kind, size):
    client = make_client(make_replica(lambda arrays: {"y": arrays["x"][:, :size]}), kind)
    array = numbers(1, 100_000)
    first = client.ask(array)["y"]
    second = client.ask(array)["y"]
    first[...] = -1
    assert np.array_equal(second, array[:, :size])
    assert not np.shares_memory(first, second)
    assert client.ask(array)["y"].flags.writeable


TEXT = Ports("text", [port("x", (-1,), object)], [port("y", (-1,), object)])


@pytest.mark.parametrize("dtype", [object, np.str_])
@pytest.mark.parametrize("length", [1, 30, 20_000])
def test_text_travels_both_ways(make_replica, make_client, kind, length, dtype):
    def shout(arrays):
        return {"y": np.array([f"{each}!" for each in arrays["x"]], object)}

    client = make_client(make_replica(shout, TEXT), kind)
    words = ["", "a", "höhe ⺠ 😀", "x" * length]
    outputs = client.ask(np.array(words, dtype))
    assert outputs["y"].tolist() == [f"{each}!" for each in words]
    assert outputs["y"].dtype == object


def test_one_text_without_axes_is_answered(make_replica, make_client, kind):
    ports = Ports("text", [port("x", (), object)], [port("y", (), object)])
    client = make_client(make_replica(lambda arrays: {"y": arrays["x"]}, ports), kind)
    outputs = client.ask(np.array("word"))
    assert (outputs["y"].shape, outputs["y"].item()) == ((), "word")


@pytest.mark.parametrize("size", [3, 100_000])
def test_an_error_of_the_runner_arrives_and_the_lane_goes_on(make_replica, make_client, kind, size):
    def pick(arrays):
        number = int(arrays["x"][0, 0])
        if number == 1:
            raise InputShapeError("x", (1, 2), None, "no")
        if number == 2:
            raise ZeroDivisionError("by nothing")
        if number == 3:
            raise ValueError("😀" * 10_000)
        return {"y": arrays["x"] + 1}

    client = make_client(make_replica(pick), kind)
    for _ in range(2):
        with pytest.raises(InputShapeError) as caught:
            client.ask(numbers(1, size, 1))
        assert caught.value.args == ("x", (1, 2), None, "no")
        with pytest.raises(InferenceFailedError, match="ZeroDivisionError: by nothing"):
            client.ask(numbers(1, size, 2))
        with pytest.raises(InferenceFailedError, match="😀"):
            client.ask(numbers(1, size, 3))
        assert_echo(client.ask(numbers(1, size, 9)), numbers(1, size, 9))


@pytest.mark.parametrize("size", [3, 100_000])
def test_specialised_requests_are_run_as_such(make_replica, make_client, kind, size):
    replica = make_replica()
    client = make_client(replica, kind)
    signature = (("x", (1, size)),)
    questions = client.send(*(Question(numbers(1, size, n), signature) for n in range(10)))
    for number, question in enumerate(questions):
        assert_echo(question.outputs(), numbers(1, size, number))
    assert replica.runner.submitted == 10


def test_a_specialised_request_that_fails_says_so(make_replica, make_client, kind):
    def fail(_arrays):
        raise InputShapeError("x", (1, 3), None, "no")

    client = make_client(make_replica(fail), kind)
    with pytest.raises(InputShapeError):
        client.ask(numbers(1, 3), (("x", (1, 3)),))


@pytest.mark.parametrize("signature", [None, (("x", (1, 3)),)])
def test_a_runner_that_forgets_an_output_does_not_leave_its_caller_waiting(
    make_replica, make_client, signature
):
    replica = make_replica(lambda _arrays: {})
    client = make_client(replica)
    (question,) = client.send(Question(numbers(1, 3), signature))
    assert question.answer.exception(5) is not None
    other = make_client(replica)
    replica.runner.function = lambda arrays: {"y": arrays["x"] + 1}
    assert_echo(other.ask(numbers(1, 3)), numbers(1, 3))


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_replies_tell_the_service_time_and_who_else_waits(make_replica, make_client, kind):
    replica = make_replica(thread_count=1)
    client = make_client(replica, kind)
    replica.runner.gate.clear()
    questions = client.send(*(Question(numbers(1, 3, n)) for n in range(5)))
    wait_until(lambda: replica.server.queue_len == 5, every_s=0.01)
    replica.runner.gate.set()
    for question in questions:
        question.outputs()
    assert [question.reply.queue_len for question in questions] == [4, 3, 2, 1, 0]
    assert all(question.reply.service_time_s < 5 for question in questions)
    assert questions[0].reply.service_time_s > questions[1].reply.service_time_s


# -- what shared memory is taken -----------------------------------------------------------------


@pytest.fixture
def taken(monkeypatch):
    """The sizes of shared memory that clients took."""
    sizes = []
    create = memory.create

    def note(size_bytes):
        sizes.append(size_bytes)
        return create(size_bytes)

    monkeypatch.setattr(client_lane.memory, "create", note)
    return sizes


def test_one_request_after_the_other_uses_the_same_memory(make_replica, make_client, taken):
    client = make_client(make_replica())
    for number in range(50):
        client.ask(numbers(1, 100_000, number))
    assert 1 <= len(taken) <= 2  # again, once the size of the answer is known


def test_shared_memory_is_for_large_requests_on_this_machine_only(
    make_replica, make_client, kind, taken
):
    client = make_client(make_replica(), kind)
    client.ask(numbers(1, INLINE_BYTES // 4))
    assert taken == []
    client.ask(numbers(1, INLINE_BYTES // 4 + 1))
    assert bool(taken) == (kind == "unix")


def test_requests_go_on_where_there_is_no_shared_memory_left(
    make_replica, make_client, monkeypatch
):
    def refuse(_size_bytes):
        raise OSError("no memory")

    monkeypatch.setattr(client_lane.memory, "create", refuse)
    client = make_client(make_replica())
    for size in (5_000, 1_000_000):
        assert_echo(client.ask(numbers(1, size)), numbers(1, size))


def test_what_is_kept_of_many_shapes_in_the_same_memory_stays_small(make_replica, make_client):
    client = make_client(make_replica(lambda arrays: {"y": arrays["x"][:1, :1]}))
    for size in range(5_000, 8_000):
        client.ask(np.broadcast_to(np.float32(0), (1, 8_000 - size + 5_000)).copy())
    kept = sum(len(slot.views) for slot in client.lane._free)
    assert kept <= 1_024


def test_a_large_request_is_the_callers_again_once_it_is_sent(make_replica, make_client):
    replica = make_replica(thread_count=1)
    client = make_client(replica)
    replica.runner.gate.clear()
    array = numbers(1, 100_000)
    (question,) = client.send(Question(array))
    array[:] = -1
    replica.runner.gate.set()
    assert_echo(question.outputs(), numbers(1, 100_000))


# -- a real runtime ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runtime():
    with InferenceRuntime("openvino") as opened:
        opened.devices()
        yield opened


@pytest.fixture
def make_real(runtime, make_replica):
    """Make replicas of real models, compiled for the processor."""
    opened = []

    def make(path, is_together=False):
        model = runtime.load_model(path, "CPU")
        executor = model._executor
        opened.append(model)
        ports = Ports("real", executor.inputs, executor.outputs)
        together = Together(executor.inputs, executor.outputs) if is_together else None
        return make_replica(ports=ports, together=together, runner=_Borrowed(executor))

    yield make
    for model in opened:
        model.close()


class _Borrowed:
    """An executor that somebody else closes."""

    def __init__(self, executor):
        self.run = executor.run
        self.submit = executor.submit
        self.shape_cache_info = executor.shape_cache_info


@pytest.mark.parametrize("is_together", [False, True])
def test_digits_are_recognised_as_in_one_process(make_real, make_client, kind, is_together):
    with np.load(EXAMPLES / "models" / "digits_heldout.npz") as held_out:
        images = held_out[held_out.files[0]][:64].reshape(-1, 1, 8, 8).astype(np.float32)
    replica = make_real(EXAMPLES / "models" / "digits.onnx", is_together)
    client = make_client(replica, kind)
    expected = replica.runner.run(BoundInputs({"input": images}))["output"]
    questions = client.send(*(Question({"input": images[n : n + 1]}) for n in range(64)))
    for number, question in enumerate(questions):
        outputs = question.outputs()["output"]
        assert outputs.shape == (1, 10)
        assert np.allclose(outputs[0], expected[number], atol=1e-3)
    assert np.allclose(client.ask({"input": images})["output"], expected, atol=1e-3)


def test_a_real_model_takes_every_shape(make_real, make_client, kind):
    replica = make_real(MODELS / "onnx" / "dynamic.onnx")
    client = make_client(replica, kind)
    random = np.random.default_rng(1)
    for shape in [(1, 3, 8, 8), (4, 3, 64, 64), (1, 3, 4, 9), (2, 3, 300, 200), (1, 3, 8, 8)]:
        array = random.random(shape, np.float32)
        expected = replica.runner.run(BoundInputs({"input": array}))["output"]
        assert np.allclose(client.ask({"input": array})["output"], expected, atol=1e-4)
        signature = (("input", shape),)
        assert np.allclose(client.ask({"input": array}, signature)["output"], expected, atol=1e-4)
    assert replica.runner.shape_cache_info().misses > 0


def test_a_real_model_of_several_inputs_and_outputs_is_answered(make_real, make_client, kind):
    client = make_client(make_real(MODELS / "onnx" / "multi.onnx"), kind)
    for rows in (1, 7, 20_000):
        a = np.ones((rows, 4), np.float32)
        b = np.full((rows, 4), 2, np.int64)
        outputs = client.ask({"a": a, "b": b})
        assert outputs["sum"].shape == (rows, 4)
        assert outputs["count"].shape == (rows,)


def test_a_real_model_that_fails_says_so_and_goes_on(make_real, make_client):
    replica = make_real(MODELS / "onnx" / "dynamic.onnx")
    client = make_client(replica)
    array = np.ones((1, 3, 8, 8), np.float32)
    (question,) = client.send(Question({"input": np.ones((1, 3, 1, 1), np.float32)}))
    question.answer.exception(30)
    assert client.ask({"input": array})["output"].shape == (1, 4)
