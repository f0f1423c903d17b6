"""Where no node has CPUs free, Ray's autoscaler adds one, and the model goes on meanwhile."""

from __future__ import annotations

from tests.cluster.load import LOAD
from tests.cluster.tools import Cluster, wait_until
from tests.conftest import ROOT

STATUS = "ray.get(runtime.router.status.remote())['model']"


def test_a_node_is_added_for_load_and_used(short_tmp, drivers):
    folder = short_tmp / "a"
    folder.mkdir()
    env = {
        "PYTHONPATH": str(ROOT / "tests" / "paced"),
        "PACED_DEVICES": "CPU=0.04",
        "ATRIVA_MODEL_STORE": str(folder / "store"),
    }
    cluster = Cluster(folder, env, "--num-cpus=1", cpus_of_new_nodes=1)
    try:
        program = drivers.start(env | {"RAY_ADDRESS": cluster.address})
        program.do(LOAD)
        program.do(f"""
            from pathlib import Path
            import numpy as np, ray
            from atriva_ray import *
            runtime = InferenceRuntime("paced")
            path = Path({str(folder)!r}) / "model.onnx"
            path.write_bytes(b"model")
            model = runtime.load_model(path, name="model", replicas=(1, 2), cpus_per_replica=1)
            load = Load(model, 8)
        """)

        def status():
            return program.get(STATUS)

        wait_until(lambda: "find no free place" in status()["why"], 30, what=status)
        before = program.get("load.answered")
        wait_until(lambda: status()["ready"] == 2, 120, 0.5, what=status)
        assert len({each["device"] for each in status()["replicas"]}) == 2
        wait_until(lambda: "find no free place" not in status()["why"], 10, what=status)
        wait_until(lambda: program.get("all(use.answered for use in model.replicas)"), 30)
        assert program.get("load.end()") > before
        program.do("runtime.close()")
    finally:
        cluster.stop()
