"""What a program sees when a replica's process is killed, and what a closed runtime leaves."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.cluster.tools import DriverError, wait_until
from tests.conftest import EXAMPLES, MODELS

SHM = Path("/dev/shm")  # noqa: S108 - looked at, not written
DIGITS = str(EXAMPLES / "models" / "digits.onnx")
PIDS = "[use.info.pid for use in model.replicas]"


def test_requests_move_on_when_a_replica_is_killed(driver_on):
    program = driver_on()
    program.do(f"""
        import signal
        model = runtime.load_model({DIGITS!r}, name="pair", replicas=2)
        images = np.load({str(EXAMPLES / "models" / "digits_heldout.npz")!r})["images"]
        expected = [
            model.run({{"input": image[None]}})["output"].to_numpy() for image in images
        ]
    """)
    victim, survivor = program.get(PIDS)
    program.do(f"""
        def killing():
            for index, image in enumerate(images):
                if index == 50:
                    os.kill({victim}, signal.SIGKILL)
                yield {{"input": image[None]}}
        answers = list(model.create_stream().map(killing()))
        right = [
            np.array_equal(answer["output"].to_numpy(), wanted)
            for answer, wanted in zip(answers, expected, strict=True)
        ]
    """)
    assert program.get("all(right), len(right)") == [True, 360]
    wait_until(lambda: len(program.get(PIDS)) == 2 and victim not in program.get(PIDS))
    assert survivor in program.get(PIDS)


def test_the_only_replica_is_replaced(driver_on):
    program = driver_on()
    program.do(f"""
        import signal
        model = runtime.load_model({DIGITS!r}, name="only")
        image = np.zeros((1, 1, 8, 8), "f4")
    """)
    (victim,) = program.get(PIDS)
    program.do(f"os.kill({victim}, signal.SIGKILL)")
    assert program.get('model.run({"input": image})["output"].shape') == [1, 10]
    wait_until(lambda: program.get(PIDS) not in ([victim], []))


def test_a_killed_router_is_replaced_and_models_are_loaded_again(driver_on, cluster):
    program = driver_on()
    program.do(f"""
        model = runtime.load_model({DIGITS!r}, name="before")
        image = np.zeros((1, 1, 8, 8), "f4")
        model.run({{"input": image}})
    """)
    replicas = program.get(PIDS)
    (router,) = [
        process
        for node in cluster.nodes
        for process in psutil.Process(node.pid).children(recursive=True)
        if process.name().startswith("ray::Router")
    ]
    router.kill()

    def is_told():
        try:
            program.get('model.run({"input": image})["output"].shape')
        except DriverError as error:
            return error.name == "ModelNotLoadedError"
        return False

    wait_until(is_told)
    wait_until(lambda: not any(map(psutil.pid_exists, replicas)))
    program.do(f"again = runtime.load_model({DIGITS!r}, name='before')")
    assert program.get('again.run({"input": image})["output"].shape') == [1, 10]
    program.do("model.close()")
    assert program.get('again.run({"input": image})["output"].shape') == [1, 10]


def test_bad_requests_leave_the_replicas_and_other_callers_alone(driver_on):
    program, other = driver_on(), driver_on()
    path = str(MODELS / "onnx" / "data_dependent.onnx")
    for driver in (program, other):
        driver.do(f"""
            model = runtime.load_model({path!r}, name="picky")
            good = {{"data": np.arange(6, dtype="f4"), "shape": np.array([2, 3])}}
            bad = {{"data": np.arange(6, dtype="f4"), "shape": np.array([5, 5])}}
        """)
    pids = program.get(PIDS)
    for _ in range(5):
        with pytest.raises(DriverError, match="InferenceFailedError: 'picky' failed on CPU"):
            program.get("model.run(bad)")
        assert other.get("model.run(good)['output'].shape") == [2, 3]
    assert program.get(PIDS) == pids


def test_an_embedded_cluster_leaves_nothing(start_driver):
    program = start_driver()
    shm = {path.name for path in SHM.iterdir()}
    program.do(f"""
        import logging, threading
        logging.basicConfig(level=logging.INFO)
        import numpy as np
        from atriva_ray import *
        threads = set(threading.enumerate())
        with InferenceRuntime(address="local") as runtime:
            model = runtime.load_model({DIGITS!r}, replicas=2)
            shape = model.run({{"input": np.zeros((1, 1, 8, 8), "f4")}})["output"].shape
            cluster = runtime.cluster
    """)
    assert program.get("shape, cluster") == [[1, 10], "embedded"]
    wait_until(lambda: not psutil.Process(program.process.pid).children(recursive=True))
    assert program.get("[t.name for t in threading.enumerate() if 'atriva' in t.name]") == []
    assert {path.name for path in SHM.iterdir()} <= shm
    assert "embedded" in program.log()


def test_a_wrong_address_is_said(start_driver):
    program = start_driver()
    program.do("from atriva_ray import *")
    with pytest.raises(DriverError, match=r"ClusterError: no connection .* '127.0.0.1:1'"):
        program.do("InferenceRuntime(address='127.0.0.1:1')")


def test_embedded_clusters_of_two_programs_stay_apart(drivers, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    one, two = drivers.start(), drivers.start()
    for driver in (one, two):
        driver.do("""
            from atriva_ray import *
            import ray
            runtime = InferenceRuntime(address="local")
        """)
    three = drivers.start()
    three.do("""
        from atriva_ray import *
        import ray
        runtime = InferenceRuntime()
    """)
    address = "ray.get_runtime_context().gcs_address"
    assert len({driver.get(address) for driver in (one, two, three)}) == 3


def test_two_runtimes_of_one_program_share_the_embedded_cluster(start_driver):
    program = start_driver()
    program.do(f"""
        import numpy as np
        from atriva_ray import *
        one = InferenceRuntime(address="local")
        two = InferenceRuntime("onnxruntime", address="local")
        one.close()
        with two.load_model({DIGITS!r}) as model:
            shape = model.run({{"input": np.zeros((1, 1, 8, 8), "f4")}})["output"].shape
        two.close()
        import ray
    """)
    assert program.get("shape, ray.is_initialized()") == [[1, 10], False]
