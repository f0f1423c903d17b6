"""Programs that are interrupted, or lose Ray, while requests are under way."""

from __future__ import annotations

import pytest

DIGITS = "examples/models/digits.onnx"
LOAD = f"""
    import signal, threading, time
    model = runtime.load_model({DIGITS!r}, cpus_per_replica=1)
    image = {{"input": np.ones((1, 1, 8, 8), np.float32)}}
    expected = model.run(image)["output"].to_numpy()
"""


@pytest.fixture(params=["auto", "off"])
def lanes(request):
    return request.param


@pytest.fixture
def program(lanes, cluster, start_driver):
    driver = start_driver({"RAY_ADDRESS": cluster.address, "ATRIVA_LANES": lanes})
    driver.do("""
        import numpy as np, ray
        from atriva_ray import *
        runtime = InferenceRuntime()
    """)
    driver.do(LOAD)
    return driver


def test_an_interrupt_loses_no_other_request(program):
    program.do("""
        answers = []

        def go_on():
            while not is_over:
                answers.append(model.run(image)["output"].to_numpy())

        is_over = False
        others = [threading.Thread(target=go_on) for _ in range(2)]
        for thread in others:
            thread.start()
        interrupts = 0
        for number in range(8):
            signal.setitimer(signal.ITIMER_REAL, 0.003 + 0.0007 * number)
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                while True:
                    model.run(image)
            except KeyboardInterrupt:
                interrupts += 1
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        is_over = True
        for thread in others:
            thread.join(30)
        stuck = [thread for thread in others if thread.is_alive()]
        last = model.run(image)["output"].to_numpy()
        model.close()
    """)
    assert program.get("interrupts") == 8
    assert program.get("len(stuck)") == 0
    assert program.get("all(np.array_equal(each, expected) for each in [*answers, last])")


def test_requests_under_way_end_when_ray_is_shut_down(program, lanes):
    program.do("""
        futures = [model.submit(image) for _ in range(2_000)]
        ray.shutdown()
        deadline = time.monotonic() + 3
        while not all(future.done() for future in futures) and time.monotonic() < deadline:
            time.sleep(0.01)
        hung = sum(not future.done() for future in futures)
        runtime.close()
        unsettled = sum(not future.done() for future in futures)
        errors = {type(f.exception()).__name__ for f in futures if f.done() and f.exception()}
        is_started_again = ray.is_initialized()
    """)
    assert program.get("unsettled") == 0
    if lanes == "auto":  # Ray forgets calls that it has not answered; closing settles them
        assert program.get("hung") == 0
    assert set(program.get("sorted(errors)")) <= {"ClosedError", "ClusterError", "ReplicaLostError"}
    assert not program.get("is_started_again")


def test_a_killed_replica_costs_no_request_while_another_lives(program):
    program.do("""
        import os
        model.close()  # its processor is needed
        pair = runtime.load_model("examples/models/digits.onnx", name="pair", replicas=2,
                                  cpus_per_replica=1)
        pair.run(image)
        futures = [pair.submit(image) for _ in range(300)]
        os.kill(pair.replicas[0].info.pid, signal.SIGKILL)
        futures += [pair.submit(image) for _ in range(300)]
        failed = [repr(future.exception(60)) for future in futures if future.exception(60)]
    """)
    assert program.get("failed[:3]") == []
