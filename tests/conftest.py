"""What every test can ask for: real models, and one Ray for the whole run."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
import threading
from pathlib import Path

import onnx
import psutil
import pytest
from hypothesis import settings

from tests.cluster.tools import Cluster, wait_until

# The same examples in every run; `HYPOTHESIS_PROFILE=search` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("search", max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "tests" / "models"
LIGHT_MODELS = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
EXAMPLES = ROOT / "examples"


def pytest_collection_modifyitems(items):
    """Count threads and descriptors of lanes before Ray, which has its own, is in this process."""
    items.sort(key=lambda item: "tests/lanes/" not in item.nodeid)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left():
    """When all tests are done: no process, thread or shared memory that was not there before."""
    shm = Path("/dev/shm")  # noqa: S108 - looked at, not written
    before = {path.name for path in shm.iterdir()}
    yield
    own = psutil.Process()

    def left():
        processes = [child for child in own.children(recursive=True) if child.is_running()]
        threads = [thread.name for thread in threading.enumerate() if "atriva" in thread.name]
        memory = {path.name for path in shm.iterdir() if path.name.startswith("atriva")} - before
        return [*processes, *threads, *memory]

    gc.collect()
    wait_until(lambda: not left(), timeout_s=30, what=left)


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of small models in every format."""
    return MODELS


@pytest.fixture(scope="session")
def light_models() -> Path:
    """The folder of real architectures that ship with the onnx package."""
    return LIGHT_MODELS


@pytest.fixture(scope="session")
def short_tmp():
    """A folder with a short path: the names of Unix sockets are limited to 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="at-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cluster(short_tmp):
    """A cluster of one node that other programs can join."""
    folder = short_tmp / "c"
    folder.mkdir()
    running = Cluster(folder, {"ATRIVA_MODEL_STORE": str(folder / "store")})
    yield running
    running.stop()


@pytest.fixture(scope="session")
def embedded_cluster():
    """Ray inside this process, kept from one runtime to the next."""
    import atriva_ray  # noqa: PLC0415 - the unit tests pass without Ray

    with atriva_ray.InferenceRuntime(address="local"):
        yield
