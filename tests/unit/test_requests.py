"""Waiting for an answer that another thread gives."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from atriva_inference.errors import ClosedError, InferenceTimeoutError
from atriva_inference.request import await_outputs


def test_an_answer_that_is_there():
    future = Future()
    future.set_result({"y": 1})
    for timeout_s in (None, 0, 1, -1):
        assert await_outputs(future, "conv", timeout_s) == {"y": 1}


@pytest.mark.parametrize("timeout_s", [-1, 0, 0.001])
def test_an_answer_that_does_not_come_in_time(timeout_s):
    future = Future()
    with pytest.raises(InferenceTimeoutError, match="'conv'") as caught:
        await_outputs(future, "conv", timeout_s)
    assert caught.value.timeout_s == timeout_s
    future.set_result({"y": 1})
    assert await_outputs(future, "conv", timeout_s) == {"y": 1}


def test_an_answer_that_comes_while_it_is_awaited():
    future = Future()
    timer = threading.Timer(0.01, future.set_result, [{"y": 1}])
    timer.start()
    assert await_outputs(future, "conv", 30) == {"y": 1}


@pytest.mark.parametrize("timeout_s", [None, 5])
def test_a_timeout_of_the_request_itself_is_passed_on(timeout_s):
    future = Future()
    future.set_exception(TimeoutError("the device did not answer"))
    with pytest.raises(TimeoutError, match="the device did not answer") as caught:
        await_outputs(future, "conv", timeout_s)
    assert not isinstance(caught.value, InferenceTimeoutError)


def test_a_request_that_was_dropped_means_that_the_model_was_closed():
    future = Future()
    future.cancel()
    future.set_running_or_notify_cancel()
    for timeout_s in (None, 5):
        with pytest.raises(ClosedError, match="model 'conv'"):
            await_outputs(future, "conv", timeout_s)
