"""Deadlines, priorities, bounded queues, and requests that are given up."""

from __future__ import annotations

import asyncio
import math
import threading
from concurrent.futures import CancelledError, wait

import numpy as np
import pytest

PATIENCE_S = 60
ENOUGH_S = 60
TOO_LITTLE_S = 1e-4
SOON_S = 0.02
"""Less than the slow model takes, and more than it takes to ask for it."""

WAYS = {
    "run": lambda model, inputs, **terms: model.run(inputs, **terms),
    "submit": lambda model, inputs, **terms: model.submit(inputs, **terms).result(PATIENCE_S),
    "run_async": lambda model, inputs, **terms: asyncio.run(model.run_async(inputs, **terms)),
    "start": lambda model, inputs, **terms: started(model, inputs, **terms).wait(PATIENCE_S),
    "stream.run": lambda model, inputs, **terms: model.create_stream().run(inputs, **terms),
    "stream.map": lambda model, inputs, **terms: next(model.create_stream().map([inputs], **terms)),
}


def started(model, inputs, **terms):
    request = model.create_async_request()
    request.start(inputs, **terms)
    return request


@pytest.fixture(params=WAYS)
def ask(request):
    """Every way to ask a model."""
    return WAYS[request.param]


@pytest.fixture
def fresh(load, light_models, exact_config):
    """ResNet-50 of which nothing is known yet, and one input."""

    def make(**options):
        model = load(light_models / "light_resnet50.onnx", config=exact_config, **options)
        port = model.inputs[0]
        return model, {port.name: np.ones(port.shape, port.dtype)}

    return make


def half_input(value):
    return {"input": np.full((2, 4), value, np.float16)}


def is_answer(result, value):
    return np.array_equal(result["output"].to_numpy(), np.full((2, 4), 2 * value + 1))


@pytest.mark.parametrize(
    ("timeout_s", "priority"), [(None, "high"), (ENOUGH_S, "Medium"), (math.inf, "LOW")]
)
def test_terms_that_are_met_change_nothing(package, ask, half, timeout_s, priority):
    for each in (priority, package.Priority[priority.upper()]):
        assert is_answer(ask(half, half_input(3), timeout_s=timeout_s, priority=each), 3)


@pytest.mark.parametrize("timeout_s", [-1, math.nan])
def test_what_is_no_time_is_refused(package, ask, half, timeout_s):
    with pytest.raises(package.OptionError, match="timeout_s"):
        ask(half, half_input(1), timeout_s=timeout_s)


@pytest.mark.parametrize("priority", ["urgent", None])
def test_what_is_no_priority_is_refused(package, ask, half, priority):
    with pytest.raises(package.OptionError, match="HIGH, MEDIUM, LOW"):
        ask(half, half_input(1), priority=priority)


def test_no_time_at_all_is_over_at_once(package, ask, half):
    with pytest.raises(package.DeadlineExceededError) as caught:
        ask(half, half_input(1), timeout_s=0)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.model == half.name
    assert caught.value.timeout_s == 0
    assert is_answer(ask(half, half_input(2)), 2)


def test_a_deadline_passes_while_the_model_is_busy_with_it(package, ask, slow, image):
    slow.run(image)
    with pytest.raises(package.DeadlineExceededError) as caught:
        ask(slow, image, timeout_s=TOO_LITTLE_S)
    assert caught.value.timeout_s == TOO_LITTLE_S
    assert ask(slow, image, timeout_s=ENOUGH_S)


def begun(package, start):
    """Start a request, again if its time was over before anybody could look at it."""
    while True:
        try:
            return start()
        except package.DeadlineExceededError:
            continue


def test_a_deadline_passes_while_the_request_waits(package, fresh):
    model, image = fresh()
    others = [model.submit(image) for _ in range(8 * model.parallelism)]
    late = begun(package, lambda: model.submit(image, timeout_s=SOON_S))
    with pytest.raises(package.DeadlineExceededError) as caught:
        late.result(PATIENCE_S)
    assert not others[-1].done()  # it is said at the deadline, and not when its turn comes
    assert caught.value.expected_s is None
    # It goes before the others, so it may have begun.
    assert "given up" in str(caught.value)
    assert all(other.result(PATIENCE_S) for other in others)


def test_what_cannot_be_met_is_refused_at_once_and_says_by_how_much(package, slow, image):
    for _ in range(3):
        wait([slow.submit(image) for _ in range(2 * slow.parallelism)], PATIENCE_S)
    others = [slow.submit(image) for _ in range(16 * slow.parallelism)]
    with pytest.raises(package.DeadlineExceededError) as caught:
        slow.submit(image, timeout_s=1e-3, priority="low")
    assert not others[-1].done()
    assert caught.value.expected_s > 1e-3
    assert "0.001 s were allowed" in str(caught.value)
    kept = slow.submit(image, timeout_s=ENOUGH_S)
    assert kept.result(PATIENCE_S)
    assert not wait(others, PATIENCE_S).not_done


def test_the_higher_priority_goes_first(slow, image):
    low = [slow.submit(image, priority="low") for _ in range(8 * slow.parallelism)]
    medium = [slow.submit(image) for _ in range(2 * slow.parallelism)]
    high = slow.submit(image, priority="high")
    assert high.result(PATIENCE_S)
    assert not medium[-1].done()
    assert medium[-1].result(PATIENCE_S)
    assert not low[-1].done()
    assert not wait(low + medium, PATIENCE_S).not_done


def test_the_earlier_deadline_goes_first(slow, image):
    plain = [slow.submit(image) for _ in range(8 * slow.parallelism)]
    late = [slow.submit(image, timeout_s=1000) for _ in range(2 * slow.parallelism)]
    early = slow.submit(image, timeout_s=500)
    assert early.result(PATIENCE_S)
    assert not late[-1].done()
    assert late[-1].result(PATIENCE_S)
    assert not plain[-1].done()
    assert not wait(plain + late, PATIENCE_S).not_done


@pytest.mark.parametrize("limit", [0, 3])
def test_one_too_many_is_refused_at_once(package, fresh, limit):
    model, image = fresh(max_waiting=limit)
    taken, refusal = [], None
    while refusal is None:
        assert len(taken) <= 3 * model.parallelism + limit
        try:
            taken.append(model.submit(image))
        except package.OverloadedError as error:
            refusal = error
    assert len(taken) >= model.parallelism + limit
    assert not taken[-1].done()
    assert refusal.waiting == refusal.limit == limit
    assert refusal.retry_after_s > 0
    with pytest.raises(package.OverloadedError):
        started(model, image)
    with pytest.raises(package.OverloadedError):
        asyncio.run(model.run_async(image, priority="high", timeout_s=ENOUGH_S))
    with pytest.raises(package.OverloadedError):
        model.run(image)
    assert all(future.result(PATIENCE_S) for future in taken)
    assert model.run(image)


@pytest.mark.parametrize("limit", [-1, 0.5, "few"])
def test_what_is_no_limit_is_refused(package, load, models, limit):
    with pytest.raises(package.OptionError, match="max_waiting"):
        load(models / "onnx/conv.onnx", max_waiting=limit)


def test_by_default_very_many_may_wait(half):
    futures = [half.submit(half_input(1)) for _ in range(5_000)]
    assert all(is_answer(future.result(PATIENCE_S), 1) for future in futures)


def test_whatever_is_not_answered_can_be_cancelled(slow, image):
    futures = [slow.submit(image) for _ in range(8 * slow.parallelism)]
    cancelled = [future for future in futures if future.cancel()]
    assert futures[-1] in cancelled
    assert len(cancelled) >= len(futures) - slow.parallelism
    assert not wait(futures, PATIENCE_S).not_done
    for future in cancelled:
        assert future.cancel()
        with pytest.raises(CancelledError):
            future.result(0)
    assert slow.run(image, timeout_s=ENOUGH_S)


def test_cancelled_tasks_make_room_for_others(fresh):
    model, image = fresh()

    async def cancel_all_but_one():
        tasks = [asyncio.create_task(model.run_async(image)) for _ in range(16 * model.parallelism)]
        await asyncio.sleep(0)
        last = tasks.pop()
        for task in tasks:
            task.cancel()
        return await asyncio.gather(last, *tasks, return_exceptions=True)

    answer, *others = asyncio.run(cancel_all_but_one())
    assert isinstance(answer, dict)
    assert all(isinstance(other, asyncio.CancelledError) for other in others)


def test_a_request_that_was_given_up_tells_so_and_can_be_started_again(package, fresh):
    model, image = fresh()
    others = [model.submit(image) for _ in range(8 * model.parallelism)]
    seen = []
    finished = threading.Event()

    def callback(request):
        try:
            seen.append(request.wait())
            finished.set()
        except package.DeadlineExceededError as error:
            seen.append(error)
            request.start(image, timeout_s=ENOUGH_S)

    request = model.create_async_request(callback)
    begun(package, lambda: request.start(image, timeout_s=SOON_S))
    assert finished.wait(PATIENCE_S)
    error, outputs = seen
    assert isinstance(error, package.DeadlineExceededError)
    assert isinstance(outputs, dict)
    assert not wait(others, PATIENCE_S).not_done


def test_buffers_of_a_request_that_was_given_up_are_not_used_again(package, slow, image):
    """Converted inputs lie in the stream's buffers, which the device may still read."""
    (name, array), *_ = image.items()
    wide = {name: array.astype(np.float64)}
    expected = slow.run(image)
    with slow.create_stream() as stream:
        for _ in range(5):
            with pytest.raises(package.DeadlineExceededError):
                stream.run({name: np.zeros(array.shape)}, timeout_s=TOO_LITTLE_S)
            outputs = stream.run(wide)
            for port, tensor in expected.items():
                assert np.allclose(outputs[port].to_numpy(), tensor.to_numpy(), atol=1e-4)


def test_a_stream_goes_through_items_of_low_priority(half):
    with half.create_stream() as stream:
        items = [half_input(value) for value in range(20)]
        answers = list(stream.map(items, timeout_s=ENOUGH_S, priority="low"))
    assert all(is_answer(answer, value) for value, answer in enumerate(answers))


def test_closing_refuses_those_with_a_deadline_too(package, fresh):
    model, image = fresh(name="closes")
    futures = [model.submit(image, timeout_s=ENOUGH_S) for _ in range(8 * model.parallelism)]
    model.close()
    assert isinstance(futures[-1].exception(PATIENCE_S), package.ClosedError)
    assert not wait(futures, PATIENCE_S).not_done
    assert not [each for each in threading.enumerate() if "closes-deadlines" in each.name]
