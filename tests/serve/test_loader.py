"""What the cluster is asked for when a model of a repository is loaded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atriva_inference.options import PerformanceHint
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.loader import Loader
from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.version_files import ModelVersion
from tests.serve.fake_cluster import FakeCluster

SETTINGS = {
    "device": "GPU",
    "hint": "latency",
    "config": {"NUM_STREAMS": "2"},
    "preprocessing": {"scale": 2},
    "replicas": 3,
    "cpus_per_replica": 4,
    "idle_s": 600,
}


class OneFile:
    def look(self):
        return ()

    def fetch(self, _model, _version):
        return Path("here.onnx")

    def close(self):
        pass


class FailingShelf(OneFile):
    def fetch(self, model, _version):
        raise RepositoryError(model.name, "it cannot be read")


def loaded(shelf, **settings):
    """Return the offer, and what the cluster was asked for."""
    cluster = FakeCluster()
    model = RepositoryModel("m", ModelSettings(**settings))
    version = ModelVersion(3, "m", "m.onnx", ("m.onnx",), 1, "print")

    async def work():
        loader = Loader(shelf, cluster)
        try:
            return await loader.load(model, version)
        finally:
            await loader.close()

    offer, _ = asyncio.run(work())
    return offer, cluster.asked


def test_all_settings_of_a_model_reach_the_cluster():
    offer, [(path, device, options)] = loaded(OneFile(), **SETTINGS)

    assert offer.is_ready
    assert (offer.name, offer.version, offer.fingerprint) == ("m", "3", "print")
    assert offer.platform == "openvino_onnx"
    assert (path, device) == (Path("here.onnx"), "GPU")
    assert options.pop("preprocessing").scale == (2.0,)
    assert options == {
        "performance_hint": PerformanceHint.LATENCY,
        "config": {"NUM_STREAMS": "2"},
        "replicas": 3,
        "cpus_per_replica": 4,
        "batching": True,
        "reserve_cpus": False,
        "idle_s": 600,
    }


@pytest.mark.parametrize(("batching", "is_on"), [("auto", True), ("off", False)])
def test_batching_is_turned_off_where_it_is_not_wanted(batching, is_on):
    _, [(_, _, options)] = loaded(OneFile(), batching=batching)

    assert options["batching"] is is_on


def test_what_cannot_be_read_is_an_offer_that_says_why():
    offer, asked = loaded(FailingShelf())

    assert offer.is_broken
    assert "it cannot be read" in offer.reason
    assert asked == []
