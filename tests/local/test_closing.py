"""Closing in one process: whatever runs meanwhile, nothing hangs and nothing is left."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from atriva_inference import ClosedError, InferenceRuntime

PATIENCE_S = 60


def half_input(value):
    return {"input": np.full((2, 4), value, np.float16)}


def is_answer(result, value):
    return np.array_equal(result["output"].to_numpy(), np.full((2, 4), 2 * value + 1))


def threads_of(name):
    return [thread for thread in threading.enumerate() if thread.name.startswith(f"atriva-{name}")]


def test_requests_that_run_are_answered_and_those_that_wait_are_refused(runtime, light_models):
    model = runtime.load_model(light_models / "light_squeezenet.onnx")
    (port,) = model.inputs
    inputs = {port.name: np.ones(port.shape, port.dtype)}
    requests = [model.create_async_request() for _ in range(100)]
    for request in requests:
        request.start(inputs)
    requests[0].wait(PATIENCE_S)
    model.close()

    outcomes = []
    for request in requests:
        assert request.done()
        try:
            assert request.wait(0)
        except ClosedError:
            outcomes.append("refused")
        else:
            outcomes.append("answered")
    assert outcomes[0] == "answered"
    assert outcomes[-1] == "refused"


@pytest.mark.parametrize("whole_runtime", [False, True], ids=["model", "runtime"])
def test_closing_under_threads_that_run(runtime, models, whole_runtime):
    model = runtime.load_model(models / "onnx/half.onnx")
    all_run = threading.Barrier(9)

    def run_for_ever(value):
        while True:
            assert is_answer(model.run(half_input(value)), value)
            assert is_answer(model.submit(half_input(value)).result(PATIENCE_S), value)

    def work(value):
        assert is_answer(model.run(half_input(value)), value)
        all_run.wait(PATIENCE_S)
        with pytest.raises(ClosedError):
            run_for_ever(value)

    with ThreadPoolExecutor(8) as threads:
        working = [threads.submit(work, value) for value in range(8)]
        all_run.wait(PATIENCE_S)
        (runtime if whole_runtime else model).close()
        for each in working:
            each.result(PATIENCE_S)


def test_closing_from_several_threads(runtime, models):
    model = runtime.load_model(models / "onnx/half.onnx")
    model.submit(half_input(1)).result(PATIENCE_S)
    with ThreadPoolExecutor(4) as threads:
        for closed in [threads.submit(model.close) for _ in range(4)]:
            closed.result(PATIENCE_S)


def test_a_callback_may_close_the_model(runtime, models, caplog):
    model = runtime.load_model(models / "onnx/half.onnx", name="closed-by-callback")
    closed = threading.Event()

    def callback(_request):
        model.close()
        closed.set()

    model.create_async_request(callback).start(half_input(1))
    assert closed.wait(PATIENCE_S)
    with pytest.raises(ClosedError):
        model.run(half_input(1))
    for thread in threads_of("closed-by-callback"):
        thread.join(PATIENCE_S)
    assert threads_of("closed-by-callback") == []
    assert caplog.text == ""


def test_no_thread_is_left_after_close(runtime, models):
    model = runtime.load_model(models / "onnx/half.onnx", name="threads-closed")
    for future in [model.submit(half_input(value)) for value in range(20)]:
        future.result(PATIENCE_S)
    assert 1 <= len(threads_of("threads-closed")) <= model.parallelism

    model.close()
    assert threads_of("threads-closed") == []


def test_run_needs_no_threads(runtime, models):
    model = runtime.load_model(models / "onnx/half.onnx", name="no-threads")
    with model.create_stream() as stream:
        stream.run(half_input(1))
    model.run(half_input(1))
    assert threads_of("no-threads") == []


def test_a_model_nobody_closed_leaves_no_thread_and_no_memory(runtime, models):
    model = runtime.load_model(models / "onnx/half.onnx", name="forgotten")
    model.submit(half_input(1)).result(PATIENCE_S)
    threads = threads_of("forgotten")
    alive = weakref.ref(model)
    assert threads
    del model
    gc.collect()

    assert alive() is None
    for thread in threads:
        thread.join(PATIENCE_S)
    assert threads_of("forgotten") == []


def test_a_request_keeps_its_model_alive(runtime, models):
    request = runtime.load_model(models / "onnx/half.onnx").create_async_request()
    gc.collect()
    request.start(half_input(3))
    assert is_answer(request.wait(PATIENCE_S), 3)


def test_a_runtime_nobody_closed_goes_with_its_models(backend, models):
    runtime = InferenceRuntime(backend)
    model = runtime.load_model(models / "onnx/half.onnx")
    alive = weakref.ref(runtime), weakref.ref(model)
    del runtime, model
    gc.collect()
    assert [each() for each in alive] == [None, None]


PROGRAM = """
import sys, numpy as np
from atriva_inference import InferenceRuntime

model = InferenceRuntime(sys.argv[1]).load_model(sys.argv[2])
requests = [model.create_async_request() for _ in range(20)]
for request in requests:
    request.start({"input": np.ones((2, 4))})
print(requests[0].wait()["output"].shape)
"""


def test_a_program_may_end_without_closing_anything(backend, models):
    command = [sys.executable, "-c", PROGRAM, backend, str(models / "onnx/half.onnx")]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (result.returncode, result.stdout) == (0, "(2, 4)\n"), result.stderr
    assert "Traceback" not in result.stderr
