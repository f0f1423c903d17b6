"""A model reaches nodes that cannot read its path."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.cluster.tools import Cluster, DriverError
from tests.conftest import EXAMPLES, MODELS


def _can_unshare() -> bool:
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    return subprocess.run([unshare, "--mount", "true"], check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    not _can_unshare(), reason="needs a mount namespace (root): a node that lacks the files"
)


@pytest.fixture(scope="module")
def poor_cluster(short_tmp):
    """Two nodes; where the first one has the models, the second one sees an empty folder."""
    folder = short_tmp / "t"
    files = folder / "files"
    files.mkdir(parents=True)
    shutil.copy(EXAMPLES / "models" / "digits.onnx", files)
    shutil.copytree(MODELS / "ir", files / "ir")
    shutil.copytree(MODELS / "tensorflow" / "saved_model", files / "saved_model")
    cluster = Cluster(folder, {"ATRIVA_MODEL_STORE": str(folder / "store-1")})
    hide = f'mount -t tmpfs none {files} && exec "$@"'
    cluster.add_node(
        {
            "ATRIVA_MODEL_STORE": str(folder / "store-2"),
            "ATRIVA_OPENVINO_PLUGINS": "FASTCPU=openvino_intel_cpu_plugin",
        },
        wrapper=["unshare", "--mount", "sh", "-c", hide, "sh"],
    )
    yield cluster, files
    cluster.stop()


@pytest.fixture(scope="module")
def program(poor_cluster, module_drivers):
    cluster, files = poor_cluster
    driver = module_drivers.start({"RAY_ADDRESS": cluster.address})
    driver.do(f"""
        import os
        import numpy as np
        from atriva_ray import *
        os.chdir({str(files)!r})
        runtime = InferenceRuntime()
    """)
    return driver


@pytest.mark.parametrize(
    ("path", "shape", "answer"),
    [
        ("digits.onnx", (1, 1, 8, 8), [1, 10]),
        ("ir/model.xml", (1, 3, 8, 8), [1, 4]),
        ("saved_model", (1, 8, 8, 3), [1, 4]),
    ],
)
def test_a_file_travels_with_the_request(program, path, shape, answer):
    program.do(f"model = runtime.load_model({path!r}, device='FASTCPU')")
    assert program.get("model.device") == "FASTCPU"
    assert program.get(f"model.run({{'input': np.zeros({shape}, 'f4')}})['output'].shape") == answer


def test_replicas_on_every_node(program):
    program.do("model = runtime.load_model('digits.onnx', device='CPU')")
    assert program.get("len({use.info.node_id for use in model.replicas})") == 2


def test_a_file_that_only_a_node_has(poor_cluster, start_driver):
    cluster, files = poor_cluster
    copy = files.parent / "only"
    copy.mkdir()
    shutil.copy(EXAMPLES / "models" / "digits.onnx", copy / "remote.onnx")
    hide = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {copy} && exec "$@"', "sh"]
    program = start_driver({"RAY_ADDRESS": cluster.address}, hide)
    program.do("""
        import numpy as np
        from atriva_ray import *
        runtime = InferenceRuntime()
    """)
    program.do(f"model = runtime.load_model({str(copy / 'remote.onnx')!r})")
    assert program.get("model.run({'input': np.zeros((1, 1, 8, 8), 'f4')})['output'].shape") == [
        1,
        10,
    ]
    with pytest.raises(DriverError, match=r"ModelNotFoundError.*any node"):
        program.do("runtime.load_model('/nowhere/x.onnx')")
