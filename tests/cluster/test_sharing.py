"""Programs that share a cluster share its models."""

from __future__ import annotations

import psutil
import pytest

from tests.cluster.tools import DriverError, wait_until
from tests.conftest import EXAMPLES, MODELS

DIGITS = str(EXAMPLES / "models" / "digits.onnx")
CONV = str(MODELS / "onnx" / "conv.onnx")

ANSWER = 'model.run({"input": np.zeros((1, 1, 8, 8), "f4")})["output"].shape'
PIDS = "[use.info.pid for use in model.replicas]"


def load(driver, options=""):
    driver.do(f"model = runtime.load_model({DIGITS!r}{options})")


def test_two_programs_share_replicas_by_name(driver_on):
    one, two = driver_on(), driver_on()
    load(one, ", name='shared'")
    load(two, ", name='shared'")
    assert one.get(PIDS) == two.get(PIDS)
    two.do("model.close()")
    assert one.get(ANSWER) == [1, 10]
    with pytest.raises(DriverError, match="ClosedError"):
        two.get(ANSWER)


def test_the_replicas_end_when_nobody_uses_them(driver_on):
    one, two = driver_on(), driver_on()
    load(one, ", name='last'")
    load(two, ", name='last'")
    (pid,) = one.get(PIDS)
    one.close()
    assert psutil.pid_exists(pid)
    two.do("model.close()")
    wait_until(lambda: not psutil.pid_exists(pid))


def test_unload_takes_a_model_from_everybody(driver_on):
    one, two = driver_on(), driver_on()
    load(one, ", name='taken'")
    load(two, ", name='taken'")
    (pid,) = one.get(PIDS)
    two.do("runtime.unload('taken')")
    wait_until(lambda: not psutil.pid_exists(pid))

    def is_told():
        try:
            one.get(ANSWER)
        except DriverError as error:
            return error.name == "ModelNotLoadedError"
        return False

    wait_until(is_told)
    with pytest.raises(DriverError, match=r"ModelNotLoadedError.*'taken'.*loaded are"):
        two.do("runtime.unload('taken')")


def test_the_same_load_without_a_name_is_shared_too(driver_on):
    one, two = driver_on(), driver_on()
    load(one)
    load(two)
    assert one.get(PIDS) == two.get(PIDS)
    two.do(f"latency = runtime.load_model({DIGITS!r}, performance_hint='LATENCY')")
    assert two.get("latency.replicas[0].info.pid") not in one.get(PIDS)


def test_one_name_cannot_mean_two_models(driver_on):
    one, two = driver_on(), driver_on()
    load(one, ", name='mine'")
    with pytest.raises(DriverError, match=r"ModelNameConflictError.*'mine'.*other content"):
        two.do(f"runtime.load_model({CONV!r}, name='mine')")
    with pytest.raises(DriverError, match=r"ModelNameConflictError.*performance_hint"):
        two.do(f"runtime.load_model({DIGITS!r}, name='mine', performance_hint='LATENCY')")
    assert one.get(ANSWER) == [1, 10]


def test_more_replicas_are_added_to_a_loaded_model(driver_on):
    one, two = driver_on(), driver_on()
    load(one, ", name='grows', replicas=1")
    load(two, ", name='grows', replicas=3")
    assert len(two.get(PIDS)) == 3
    wait_until(lambda: len(one.get(PIDS)) == 3)


def test_a_killed_program_loses_its_models(driver_on):
    one, two = driver_on(), driver_on()
    load(one, ", name='orphan'")
    (pid,) = one.get(PIDS)
    one.kill()
    wait_until(lambda: not psutil.pid_exists(pid), timeout_s=60)
    assert "orphan" not in two.get("ray.get(runtime.router.status.remote())")
