"""Numbers of replicas follow the load, idle models give way, and no request is lost for it."""

from __future__ import annotations

import psutil
import pytest

from tests.cluster.load import LOAD
from tests.cluster.tools import Cluster, wait_until
from tests.conftest import ROOT

PIDS = "[use.info.pid for use in model.replicas]"
STATUS = "ray.get(runtime.router.status.remote())"


@pytest.fixture(scope="module")
def paced(short_tmp):
    """A cluster of one node with four CPUs, on which a request takes 40 ms and no processor."""
    folder = short_tmp / "s"
    folder.mkdir()
    env = {
        "PYTHONPATH": str(ROOT / "tests" / "paced"),
        "PACED_DEVICES": "CPU=0.04",
        "ATRIVA_MODEL_STORE": str(folder / "store"),
    }
    running = Cluster(folder, env, "--num-cpus=4")
    yield running, env
    running.stop()


@pytest.fixture
def program(paced, drivers, tmp_path):
    """A program that has `load(name, …)`: load a model, each name another one."""
    running, env = paced
    driver = drivers.start(env | {"RAY_ADDRESS": running.address})
    driver.do(LOAD)
    driver.do(f"""
        from pathlib import Path
        import numpy as np, ray
        from atriva_ray import *
        runtime = InferenceRuntime("paced")

        def load(name, **options):
            path = Path({str(tmp_path)!r}) / f"{{name}}.onnx"
            path.write_bytes(name.encode())
            return runtime.load_model(path, name=name, **options)
    """)
    return driver


def test_replicas_come_with_load_and_go_without(program):
    program.do("model = load('busy', replicas=(1, 2))")
    assert len(program.get(PIDS)) == 1
    program.do("crowd = Load(model, 12)")
    wait_until(lambda: len(program.get(PIDS)) == 2, 30, what=lambda: program.get(STATUS))
    scale = program.get(STATUS)["busy"]
    assert (scale["ready"], scale["wanted"], scale["minimum"], scale["maximum"]) == (2, 2, 1, 2)
    assert "requests waited" in scale["why"]
    first, second = program.get(PIDS)
    assert program.get("crowd.end()") > 50
    program.do("few = Load(model, 1, pause_s=0.2)")
    wait_until(lambda: len(program.get(PIDS)) == 1, 60, what=lambda: program.get(STATUS))
    wait_until(lambda: sum(map(psutil.pid_exists, (first, second))) == 1)
    assert program.get("few.end()") > 10
    assert "would have done" in program.get(STATUS)["busy"]["why"]


def test_two_models_share_the_processors_and_lose_nothing(program):
    program.do("""
        one = load('one', replicas=(1, 4))
        first = Load(one, 16)
    """)
    wait_until(lambda: program.get("len(one.replicas)") == 4, 60, what=lambda: program.get(STATUS))
    program.do("""
        two = load('two', replicas=(1, 4))
        second = Load(two, 16)
    """)

    def counts():
        return {key: scale["ready"] for key, scale in program.get(STATUS).items()}

    wait_until(lambda: counts() == {"one": 3, "two": 2}, 60, what=lambda: program.get(STATUS))
    wait_until(lambda: "find no free place" in program.get(STATUS)["two"]["why"], 30)
    assert counts() == {"one": 3, "two": 2}
    program.do("both = first.end(), second.end()")
    assert all(count > 100 for count in program.get("both"))


def test_an_idle_model_gives_its_memory_back_and_comes_again(program):
    program.do("model = load('seldom', idle_s=2)")
    (pid,) = program.get(PIDS)
    assert psutil.Process(pid).memory_info().rss > 20 << 20
    wait_until(lambda: not psutil.pid_exists(pid), 30)
    scale = program.get(STATUS)["seldom"]
    assert (scale["asleep"], scale["wanted"], scale["replicas"]) == (True, 0, [])
    assert "no request came for 2 s" in scale["why"]
    assert program.get("model.is_loaded, model.inputs[0].name") == [True, "x"]
    program.do("""
        asked = [model.create_async_request() for _ in range(20)]
        for number, request in enumerate(asked):
            request.start({"x": np.array([[number]], "f4")})
        answers = [request.wait(timeout_s=60)["y"].to_numpy().item() for request in asked]
    """)
    assert program.get("answers") == [-number for number in range(20)]
    assert program.get(PIDS) != [pid]
    assert not program.get(STATUS)["seldom"]["asleep"]


def test_who_asks_the_router_or_for_a_profile_wakes_a_model_too(program):
    program.do("model = load('dozing', idle_s=1)")

    def sleeps():
        return program.get(STATUS)["dozing"]["asleep"]

    wait_until(sleeps, 30)
    program.do("""
        answer = ray.get(runtime.router.infer.remote("dozing", {"x": np.ones((1, 2), "f4")}))
    """)
    assert program.get("answer['y'].to_numpy().tolist()") == [[-1, -1]]
    wait_until(sleeps, 30)
    assert program.get("len(model.get_profiling({'x': np.ones((1, 2), 'f4')}).layers)") == 0
    wait_until(sleeps, 30)
    program.do("again = load('dozing', idle_s=1)")
    assert program.get("len(again.replicas)") == 1
