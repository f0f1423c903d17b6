"""Deadlines while a replica hangs, over every way to it; and programs that ask more than others."""

from __future__ import annotations

import os
import signal

import pytest

from tests.cluster.tools import wait_until
from tests.conftest import EXAMPLES

DIGITS = str(EXAMPLES / "models" / "digits.onnx")


@pytest.fixture(params=["auto", "tcp", "off"])
def program(request, driver_on):
    """A program with a model, whose requests travel in one of the ways there are."""
    started = driver_on()
    started.do(f"""
        import time
        os.environ["ATRIVA_LANES"] = {request.param!r}
        own = InferenceRuntime()
        model = own.load_model({DIGITS!r}, name="hangs-{request.param}", replicas=1)
        image = {{"input": np.zeros((1, 1, 8, 8), "f4")}}
        expected = model.run(image)["output"].to_numpy()

        def late(ask):
            began_s = time.monotonic()
            try:
                ask()
            except DeadlineExceededError as error:
                return time.monotonic() - began_s, str(error)
            return None
    """)
    return started


def test_callers_learn_at_the_deadline_that_a_replica_hangs(program):
    (pid,) = program.get("[use.info.pid for use in model.replicas]")
    os.kill(pid, signal.SIGSTOP)
    try:
        took_s, message = program.get("late(lambda: model.run(image, timeout_s=0.5))")
        assert 0.5 <= took_s < 10
        assert "given up after it was sent to a replica" in message
        program.do("""
            futures = [model.submit(image, timeout_s=1.0) for _ in range(300)]
            endings = [late(future.result) for future in futures]
        """)
        assert all(program.get("[ending is not None and ending[0] < 10 for ending in endings]"))
        assert "given up while it waited for a replica" in program.get("endings[-1][1]")
        program.do("""
            futures = [model.submit(image) for _ in range(100)]
            cancelled = [future.cancel() for future in futures]
        """)
        assert all(program.get("cancelled"))
    finally:
        os.kill(pid, signal.SIGCONT)
    assert program.get("np.array_equal(model.run(image)['output'].to_numpy(), expected)")
    wait_until(lambda: program.get("model.waiting") == 0)
    assert program.get("len(model.replicas)") == 1
    program.do("own.close()")


def test_a_program_whose_queue_is_full_is_told_when_to_come_back(program):
    program.do(f"""
        bounded = own.load_model({DIGITS!r}, name="bounded", max_waiting=5)
        pid = bounded.replicas[0].info.pid
    """)
    pid = program.get("pid")
    os.kill(pid, signal.SIGSTOP)
    try:
        program.do("""
            taken, refusal = [], None
            while refusal is None and len(taken) < 1000:
                try:
                    taken.append(bounded.submit(image))
                except OverloadedError as error:
                    refusal = error
        """)
        assert program.get("refusal.waiting, refusal.limit") == [5, 5]
        assert 0 < program.get("refusal.retry_after_s") <= 30
    finally:
        os.kill(pid, signal.SIGCONT)
    program.do("answers = [future.result(60) for future in taken]")
    assert program.get("len(answers) == len(taken) >= 5")
    program.do("own.close()")
