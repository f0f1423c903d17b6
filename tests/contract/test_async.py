"""Requests under way: one object per request, futures, and asyncio."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import numpy as np
import pytest

PATIENCE_S = 60


def half_input(value):
    return {"input": np.full((2, 4), value, np.float16)}


def is_answer(result, value):
    return np.array_equal(result["output"].to_numpy(), np.full((2, 4), 2 * value + 1))


def test_several_requests_at_once(half):
    requests = [half.create_async_request() for _ in range(20)]
    for value, request in enumerate(requests):
        request.start(half_input(value))

    for value, request in reversed(list(enumerate(requests))):
        assert is_answer(request.wait(), value)


def test_done(half):
    request = half.create_async_request()
    assert not request.done()
    request.start(half_input(1))
    request.wait()
    assert request.done()


def test_not_done_while_it_waits_its_turn(queue):
    requests = queue()
    assert not requests[-1].done()
    for request in requests:
        request.wait(PATIENCE_S)
    assert all(request.done() for request in requests)


def test_waiting_twice_gives_the_same_answer(half):
    request = half.create_async_request()
    request.start(half_input(3))
    assert is_answer(request.wait(), 3)
    assert is_answer(request.wait(), 3)


def test_a_request_can_be_started_again(half):
    request = half.create_async_request()
    for value in range(5):
        request.start(half_input(value))
        assert is_answer(request.wait(), value)


def test_a_callback_is_called_with_the_finished_request(half):
    called = threading.Event()
    seen = []

    def callback(request):
        seen.append((request, request.done(), request.wait()))
        called.set()

    request = half.create_async_request(callback)
    request.start(half_input(4))

    assert called.wait(PATIENCE_S)
    ((given, was_done, result),) = seen
    assert given is request
    assert was_done
    assert is_answer(result, 4)


def test_a_callback_is_called_for_a_failure_too(package, data_dependent):
    called = threading.Event()
    request = data_dependent.create_async_request(lambda _request: called.set())
    request.start({"data": np.ones(3), "shape": [2, 2]})

    assert called.wait(PATIENCE_S)
    with pytest.raises(package.InferenceFailedError):
        request.wait()


def test_a_callback_may_start_the_request_again(half):
    results = []
    finished = threading.Event()

    def callback(request):
        results.append(request.wait())
        if len(results) < 10:
            request.start(half_input(len(results)))
        else:
            finished.set()

    half.create_async_request(callback).start(half_input(0))

    assert finished.wait(PATIENCE_S)
    assert all(is_answer(result, value) for value, result in enumerate(results))


def test_starting_a_busy_request_is_refused(package, queue, image):
    requests = queue()

    with pytest.raises(package.RequestBusyError) as caught:
        requests[-1].start(image)
    assert "still runs" in str(caught.value)
    assert "create another request" in str(caught.value)

    requests[-1].wait(PATIENCE_S)
    requests[-1].start(image)
    requests[-1].wait(PATIENCE_S)


def test_waiting_before_starting_is_refused(package, half):
    request = half.create_async_request()
    with pytest.raises(package.RequestNotStartedError, match=r"call start\(inputs\)"):
        request.wait()
    request.start(half_input(2))
    assert is_answer(request.wait(), 2)


@pytest.mark.parametrize("timeout_s", [0, 0.001])
def test_a_timeout_leaves_the_request_running(package, queue, timeout_s):
    last = queue()[-1]

    with pytest.raises(package.InferenceTimeoutError) as caught:
        last.wait(timeout_s)
    assert isinstance(caught.value, TimeoutError)
    assert f"{timeout_s:g} s" in str(caught.value)
    assert "can be awaited again" in str(caught.value)

    assert last.wait(PATIENCE_S)


def test_a_timeout_that_is_not_reached_changes_nothing(half):
    request = half.create_async_request()
    request.start(half_input(6))
    assert is_answer(request.wait(timeout_s=PATIENCE_S), 6)
    assert is_answer(request.wait(timeout_s=0), 6)


def test_inputs_that_are_refused_leave_the_request_startable(package, half):
    request = half.create_async_request()
    with pytest.raises(package.InputShapeError):
        request.start({"input": np.zeros((2, 5))})
    assert not request.done()
    request.start(half_input(7))
    assert is_answer(request.wait(), 7)


def test_run_async(half):
    async def gather():
        return await asyncio.gather(*(half.run_async(half_input(value)) for value in range(20)))

    assert all(is_answer(result, value) for value, result in enumerate(asyncio.run(gather())))


def test_run_async_does_not_block_the_event_loop(slow, image):
    async def count_turns_meanwhile():
        task = asyncio.create_task(slow.run_async(image))
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        await task
        return turns

    assert asyncio.run(count_turns_meanwhile()) > 1


def test_run_async_raises_what_run_raises(package, data_dependent):
    good = {"data": np.ones(4), "shape": [2, 2]}
    bad = {"data": np.ones(4), "shape": [3, 3]}
    refused = {"data": np.ones((2, 2)), "shape": [2, 2]}

    async def gather():
        requests = [data_dependent.run_async(inputs) for inputs in (good, bad, refused, good)]
        return await asyncio.gather(*requests, return_exceptions=True)

    first, second, third, fourth = asyncio.run(gather())
    assert isinstance(second, package.InferenceFailedError)
    assert isinstance(third, package.InputShapeError)
    for result in (first, fourth):
        assert np.array_equal(result["output"].to_numpy(), np.ones((2, 2)))


def test_a_task_can_be_cancelled(slow, image, half):
    async def cancel_one():
        tasks = [asyncio.create_task(slow.run_async(image)) for _ in range(8 * slow.parallelism)]
        await asyncio.sleep(0)
        tasks[-1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    *others, cancelled = asyncio.run(cancel_one())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert all(isinstance(result, dict) for result in others)
    assert is_answer(half.run(half_input(1)), 1)


def test_submit_gives_a_future(half):
    futures = [half.submit(half_input(value)) for value in range(20)]
    assert not wait(futures, PATIENCE_S).not_done
    assert all(is_answer(future.result(), value) for value, future in enumerate(futures))


def test_submit_gives_the_error_through_the_future(package, data_dependent):
    future = data_dependent.submit({"data": np.ones(4), "shape": [3, 3]})
    assert isinstance(future.exception(PATIENCE_S), package.InferenceFailedError)


def test_a_queued_future_can_be_cancelled(slow, image):
    *others, last = [slow.submit(image) for _ in range(8 * slow.parallelism)]

    assert last.cancel()
    with pytest.raises(CancelledError):
        last.result(PATIENCE_S)
    assert all(future.result(PATIENCE_S) for future in others)


def test_many_threads_share_a_model(half):
    def work(value):
        request = half.create_async_request()
        request.start(half_input(value))
        return is_answer(half.run(half_input(value + 100)), value + 100) and is_answer(
            request.wait(), value
        )

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(100)))


def test_a_request_that_threads_fight_for_runs_once_at_a_time(package, slow, image):
    request = slow.create_async_request()
    barrier = threading.Barrier(8)

    def start(_index):
        barrier.wait(PATIENCE_S)
        try:
            request.start(image)
        except package.RequestBusyError:
            return "busy"
        return "started"

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(start, range(8)))

    assert outcomes.count("started") >= 1
    assert set(outcomes) <= {"started", "busy"}
    assert request.wait(PATIENCE_S)


def test_a_callback_may_run_further_requests_and_close(load, models, expected):
    model = load(models / "onnx/conv.onnx")
    inputs = {"input": expected["x_nchw"]}
    shapes = []
    finished = threading.Event()

    def callback(_request):
        shapes.append(model.run(inputs)["output"].shape)
        model.close()
        finished.set()

    request = model.create_async_request(callback)
    request.start(inputs)
    assert finished.wait(60)
    assert shapes == [(1, 4)]
