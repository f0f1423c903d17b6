"""Requests that fail inside the library, where it has one thread, several, or much to do."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from atriva_inference import InferenceFailedError, InferenceRuntime

PATIENCE_S = 60

PROGRAM = """
import os, sys
import numpy as np
from atriva_inference import InferenceFailedError, InferenceRuntime

backend, path, core_count, config = sys.argv[1:]
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(core_count)])
a, good, bad = np.ones((2, 4)), np.ones((2, 4), int), np.ones((3, 4), int)

with InferenceRuntime(backend) as runtime:
    for hint in ("LATENCY", "THROUGHPUT"):
        model = runtime.load_model(path, "CPU", performance_hint=hint, config=eval(config))
        for _ in range(5):
            try:
                print("answered", model.run({"a": a, "b": bad})["sum"].shape)
            except InferenceFailedError:
                assert model.run({"a": a, "b": good})["sum"].shape == (2, 4)
        try:
            print("profiled", model.get_profiling({"a": a, "b": bad}, runs=1))
        except InferenceFailedError:
            assert model.get_profiling({"a": a, "b": good}, runs=1).runs == 1
"""


@pytest.mark.parametrize(
    ("core_count", "config"), [(1, {}), (2, {}), (2, {"INFERENCE_NUM_THREADS": 1})]
)
def test_however_few_threads_there_are(backend, models, core_count, config):
    """A single thread crashed OpenVINO, or made it answer with what lay in its memory."""
    if backend == "onnxruntime" and config:
        config = {"intra_op_num_threads": 1}
    path = str(models / "onnx/multi.onnx")
    command = [sys.executable, "-c", PROGRAM, backend, path, str(core_count), repr(config)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stderr


def test_good_requests_beside_bad_ones(runtime, models):
    model = runtime.load_model(models / "onnx/multi.onnx")
    bad = {"a": np.ones((2, 4)), "b": np.ones((3, 4), np.int64)}
    all_began = threading.Barrier(6)

    def good_ones(seed):
        rng = np.random.default_rng(seed)
        all_began.wait(PATIENCE_S)
        for rows in rng.integers(1, 9, 100):
            inputs = {"a": np.full((rows, 4), rows), "b": np.ones((rows, 4), np.int64)}
            output = model.run(inputs)["sum"].to_numpy()
            assert np.array_equal(output, np.full((rows, 4), rows + 1))

    def bad_ones():
        all_began.wait(PATIENCE_S)
        for _ in range(20):
            with pytest.raises(InferenceFailedError):
                model.run(bad)

    with ThreadPoolExecutor(6) as threads:
        working = [threads.submit(good_ones, seed) for seed in range(4)]
        working += [threads.submit(bad_ones) for _ in range(2)]
        for each in working:
            each.result(PATIENCE_S)


def test_one_thread_computes_the_same(models):
    """The same numbers, on the calling thread."""
    expected = np.load(models / "expected.npz")
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    with InferenceRuntime("openvino") as runtime:
        model = runtime.load_model(models / "onnx/conv.onnx", "CPU", config=config)
        assert model.parallelism == 1
        futures = [model.submit({"input": expected["x_nchw"]}) for _ in range(20)]
        for future in futures:
            output = future.result(PATIENCE_S)["output"].to_numpy()
            np.testing.assert_allclose(output, expected["y"], atol=1e-5)
