"""Things end in an order nobody planned, and nobody waits for ever."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.cluster.tools import DriverError, wait_until
from tests.conftest import EXAMPLES, LIGHT_MODELS

DIGITS = str(EXAMPLES / "models" / "digits.onnx")
RESNET = str(LIGHT_MODELS / "light_resnet50.onnx")

MANY_REQUESTS = f"""
    model = runtime.load_model({RESNET!r}, cpus_per_replica=1)
    inputs = {{model.inputs[0].name: np.ones((1, 3, 224, 224), "f4")}}
    requests = [model.create_async_request() for _ in range(40)]
    for request in requests:
        request.start(inputs)
"""


@pytest.fixture
def embedded(drivers):
    """A program with a cluster of its own."""
    driver = drivers.start()
    driver.do("""
        import os, threading
        import numpy as np, ray
        from atriva_ray import *
        runtime = InferenceRuntime(address="local")
        def outcome(work):
            try:
                work()
            except Exception as error:
                return type(error).__name__
            return "answered"
    """)
    return driver


def test_a_program_ends_with_requests_under_way(driver_on):
    program = driver_on()
    program.do(MANY_REQUESTS)
    program.close()


def test_close_while_requests_wait_and_run(embedded):
    embedded.do(MANY_REQUESTS)
    embedded.do("""
        model.close()
        outcomes = {outcome(request.wait) for request in requests}
    """)
    assert set(embedded.get("list(outcomes)")) <= {"answered", "ClosedError"}


def test_close_while_a_request_is_sent_again(embedded):
    embedded.do(MANY_REQUESTS)
    embedded.do("""
        import signal
        os.kill(model.replicas[0].info.pid, signal.SIGKILL)
        model.close()
        outcomes = {outcome(request.wait) for request in requests}
    """)
    assert set(embedded.get("list(outcomes)")) <= {"answered", "ClosedError"}


def test_ray_is_shut_down_first(embedded):
    embedded.do(MANY_REQUESTS)
    embedded.do("""
        ray.shutdown()
        afterwards = outcome(lambda: model.run(inputs))
        model.close()
        runtime.close()
        outcomes = {outcome(request.wait) for request in requests}
    """)
    assert embedded.get("afterwards") == "ClusterError"
    known = {"answered", "ClosedError", "ClusterError", "ReplicaLostError"}
    assert set(embedded.get("list(outcomes)")) <= known


def test_a_hung_replica_holds_up_nobody_for_long(driver_on):
    program = driver_on()
    program.do(f"model = runtime.load_model({DIGITS!r}, name='hung')")
    (pid,) = program.get("[use.info.pid for use in model.replicas]")
    os.kill(pid, signal.SIGSTOP)
    program.do("model.close()")
    wait_until(lambda: not psutil.pid_exists(pid))


def test_cpus_that_nobody_has_are_refused_at_once(driver_on):
    program = driver_on()
    with pytest.raises(DriverError, match=r"OptionError: cpus_per_replica='64' .* at most 2"):
        program.do(f"runtime.load_model({DIGITS!r}, cpus_per_replica=64)")


def test_cpus_that_another_program_holds_are_left_to_it(driver_on):
    program = driver_on()
    program.do(f"""
        @ray.remote(num_cpus=1)
        class Holder:
            def ready(self):
                return True
        holder = Holder.remote()
        ray.get(holder.ready.remote())
        model = runtime.load_model({DIGITS!r}, name="beside")
    """)
    assert program.get("model.replicas[0].info.thread_count") == 1
    program.do("ray.kill(holder)")
