"""What is served changes while the server runs."""

from __future__ import annotations

import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.cluster.tools import wait_until
from tests.serve.serving_tools import ended


def test_the_index_has_everything_and_a_broken_model_hides_nothing(server):
    index = server.index()
    ready = {key for key, (state, _) in index.items() if state == "READY"}
    assert ready >= {(name, "1") for name in ("conv", "digits", "flat", "net", "step")}
    state, reason = index["broken", "1"]
    assert state == "UNAVAILABLE"
    assert "model.onnx" in reason
    status, answer = server.load("broken")
    assert status == 400
    assert "model.onnx" in answer["error"]
    client = triton.InferenceServerClient(server.grpc_address)
    listed = client.get_model_repository_index().models
    client.close()
    assert {(each.name, each.version): each.state for each in listed} == {
        key: state for key, (state, _) in index.items()
    }


def test_a_model_that_is_unloaded_gives_its_memory_back(server, repository, nodes):
    repository.add_plus("guest", 4)
    assert server.plus("guest")[0] == 404
    client = triton.InferenceServerClient(server.grpc_address)
    client.load_model("guest")
    assert server.plus("guest") == (200, "4", [4, 4])
    pids = nodes.replicas("guest")
    assert len(pids) == 1
    client.unload_model("guest")
    wait_until(lambda: ended(pids), timeout_s=10)
    assert server.plus("guest")[0] == 404
    assert server.index()["guest", "4"][0] == "UNAVAILABLE"
    assert server.plus("step")[0] == 200
    for call in (client.unload_model, client.load_model):
        with pytest.raises(InferenceServerException) as caught:
            call("nobody")
        assert caught.value.status() == "StatusCode.NOT_FOUND"
    client.close()
    repository.remove("guest")
    assert server.load("guest")[0] == 404
    assert server.unload("guest")[0] == 404


def test_a_version_that_cannot_be_loaded_leaves_the_old_one(server, repository):
    repository.add_plus("picky", 1)
    assert server.load("picky") == (200, None)
    repository.add_garbage("picky", 2)
    status, answer = server.load("picky")
    assert status == 400
    assert "model.onnx" in answer["error"]
    assert server.plus("picky") == (200, "1", [1, 1])
    assert server.plus("picky", "2")[0] == 503
    index = server.index()
    assert index["picky", "1"][0] == "READY"
    assert index["picky", "2"][0] == "UNAVAILABLE"
    repository.remove("picky", 2)
    repository.add_plus("picky", 3)
    assert server.load("picky") == (200, None)
    assert server.plus("picky") == (200, "3", [3, 3])
    assert server.plus("picky", "3") == (200, "3", [3, 3])
    assert server.plus("picky", "1")[0] == 404
    assert server.unload("picky") == (200, None)
