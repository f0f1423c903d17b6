"""A cluster in memory: runtimes that load nothing, and a router that dies when it is told to."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

from atriva_ray.errors import ClusterError


class FakeCluster:
    """What several processes share; call it to get the runtime of one.

    Attributes:
        refused: origins that cannot be opened now.
        stillborn: origins whose models are lost before anybody has them.
        gate: set; while it is not, opening takes on.
        opening: origins that are being opened just now.
        asked: path, device and options of every model that was to be loaded.
        tried: every origin that was to be opened, one after the other.
        events: what was ``opened`` and ``closed``.
        models: every model that was opened.
    """

    def __init__(self):
        self.generation = 0
        self.refused = set()
        self.stillborn = set()
        self.gate = threading.Event()
        self.gate.set()
        self.opening = []
        self.asked = []
        self.tried = []
        self.events = []
        self.models = []

    def __call__(self, *_, **__):
        return FakeRuntime(self)

    def lose_router(self):
        self.generation += 1

    def open_models(self):
        return [model for model in self.models if not model.is_closed]


class FakeRuntime:
    def __init__(self, cluster):
        self._cluster = cluster

    def load_model(self, path, device, **options):
        self._cluster.asked.append((path, device, options))
        return self.open_model(str(path))

    def open_model(self, origin):
        cluster = self._cluster
        cluster.tried.append(origin)
        cluster.opening.append(origin)
        try:
            assert cluster.gate.wait(60)
        finally:
            cluster.opening.remove(origin)
        if origin in cluster.refused:
            raise ClusterError("the fake", f"it refuses {origin}")
        model = FakeModel(cluster, origin)
        if origin in cluster.stillborn:
            model.generation = -1
        cluster.models.append(model)
        cluster.events.append(("opened", origin))
        return model

    def close(self):
        for model in self._cluster.open_models():
            model.close()


class FakeModel:
    inputs = ()
    outputs = ()
    parallelism = 1
    service_time_s = 0.0

    def __init__(self, cluster, origin):
        self.cluster = cluster
        self.generation = cluster.generation
        self.origin = self.name = origin
        self.is_closed = False
        self.answer = asyncio.Event()

    @property
    def is_loaded(self):
        return not self.is_closed and self.generation == self.cluster.generation

    def submit(self, _):
        future = Future()
        future.set_result({})
        return future

    async def run_async(self, _, **_terms):
        await self.answer.wait()
        assert not self.is_closed
        return {}

    def close(self):
        if not self.is_closed:
            self.is_closed = True
            self.cluster.events.append(("closed", self.origin))
