"""One server for all tests here that need a real one."""

from __future__ import annotations

import pytest

from tests.cluster.tools import wait_until
from tests.serve.serving_tools import Nodes, Repository, Server, ended, started


@pytest.fixture(scope="package")
def repository(short_tmp):
    """What the server has from its beginning."""
    models = Repository(short_tmp / "served" / "repository")
    models.add_digits()
    models.add_plus("step", 1)
    models.add_files("conv", "device: CPU\nbackend: onnxruntime\n", "onnx/conv.onnx")
    models.add_files("net", "device: CPU\n", "ir/model.xml", "ir/model.bin")
    models.add_files("flat", "device: CPU\n", "tflite/model.tflite")
    models.add_garbage("broken", 1)
    return models


@pytest.fixture(scope="package")
def server(cluster, repository, nodes):
    """A server of that repository, named as people do: from the folder that they are in."""
    folder = repository.folder.parent
    env = {"RAY_ADDRESS": cluster.address}
    with started(Server(folder, "--repository", repository.folder.name, env=env)) as running:
        yield running
        processes = [*nodes.serving("Ingress"), *nodes.serving("Catalog"), *nodes.replicas()]
        running.end()
        wait_until(lambda: ended(processes))


@pytest.fixture(scope="package")
def nodes(cluster, short_tmp):
    """The processes behind the server."""
    found = Nodes(cluster, short_tmp)
    yield found
    found.close()
