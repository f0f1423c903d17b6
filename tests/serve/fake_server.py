"""A server in memory: its models double what they get, in every datatype."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from atriva_inference.ports import Port
from atriva_ray.errors import (
    BadRequestError,
    ModelUnavailableError,
    OverloadedError,
    RepositoryError,
    UnknownModelError,
)
from atriva_ray.serve.protocol.messages import InferAnswer, OutputTensor
from atriva_ray.serve.server_face import (
    InstanceGroup,
    InstanceKind,
    ModelConfig,
    ModelMetadata,
    ModelState,
    ModelStatistics,
    ServerMetadata,
    Timing,
)

IMAGE = Port("image", ("image",), np.dtype(np.float32), (-1, 3, 4, 5), "NCHW")
TEXT = Port("text", ("text",), np.dtype(np.str_), (-1, 1))
SCORES = Port("scores", ("scores",), np.dtype(np.float16), (-1, 10))
ANYTHING = Port("anything", ("anything",), np.dtype(np.int64), None)

PRIVATE = "what is in /etc/private"


def doubled(array):
    """Return twice the numbers, or texts twice; truth stays as it is."""
    if array.dtype.kind in "OSU":
        return np.array([2 * each for each in array.ravel().tolist()], object).reshape(array.shape)
    return array if array.dtype.kind == "b" else (array + array).astype(array.dtype, copy=False)


@dataclass
class FakeServer:
    """Fills the part of `InferenceServer`; each model is a way to behave.

    ``double``: answers. ``slow``: answers when `release` is set. ``broken``: fails unexpectedly.
    ``lost``: what it waits for is cancelled. ``full``: has no room. ``unready``: is loading.
    ``bad``: takes nothing.
    """

    names: tuple[str, ...] = ("double", "slow", "broken", "lost", "full", "unready", "bad")
    is_up: bool = True
    requests: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    cancelled: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def is_live(self):
        return True

    def is_ready(self):
        return self.is_up

    async def is_model_ready(self, name, version):
        self._check(name, version)
        return name != "unready"

    def metadata(self):
        return ServerMetadata("atriva", "1.2.3", ("classification", "statistics"))

    async def model_metadata(self, name, version):
        self._check(name, version)
        inputs, outputs = (IMAGE, TEXT, ANYTHING), (SCORES,)
        return ModelMetadata(name, ("1", "2"), "openvino_ir", inputs, outputs)

    async def infer(self, name, version, request):
        self._check(name, version)
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._infer(name, version, request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _infer(self, name, version, request):
        if name == "slow":
            await self.release.wait()
        if name == "broken":
            raise ZeroDivisionError(PRIVATE)
        if name == "lost":
            lost = asyncio.get_running_loop().create_future()
            lost.cancel()
            await lost
        if name == "full":
            raise OverloadedError(7, 7, 2.5)
        if name == "unready":
            raise ModelUnavailableError(name, version, "LOADING")
        if name == "bad":
            raise BadRequestError("the input is not good; " + "ü" * 20_000)
        wanted = [output.name for output in request.outputs]
        tensors = {
            f"{each.name}_doubled": OutputTensor(
                f"{each.name}_doubled", each.datatype, doubled(each.array)
            )
            for each in request.inputs
        }
        unknown = [name for name in wanted if name not in tensors]
        if unknown:
            raise BadRequestError(f"there is no output {unknown[0]!r}; there are {list(tensors)}")
        outputs = tuple(tensors[name] for name in wanted or tensors)
        return InferAnswer(name, version or "2", outputs, request.id)

    def labels(self, name, version):
        self.calls.append(("labels", name, version))
        return ("cat", "dog")

    async def repository_index(self, ready_only):
        states = (
            ModelState("double", "2", "READY"),
            ModelState("unready", "1", "LOADING", "it is large"),
        )
        return states[:1] if ready_only else states

    async def load(self, name, parameters):
        self.calls.append(("load", name, parameters))
        if name not in self.names:
            raise RepositoryError(name, "there is no such folder")

    async def unload(self, name, parameters):
        self.calls.append(("unload", name, parameters))
        self._check(name, "")

    async def statistics(self, name, version):
        if name:
            self._check(name, version)
        timings = {"success": Timing(3, 30), "fail": Timing(1, 5), "queue": Timing(3, 6)}
        return tuple(
            ModelStatistics(
                each,
                "2",
                last_inference_ms=1_700_000_000_000,
                inference_count=12,
                execution_count=3,
                compute=Timing(3, 24),
                **timings,
            )
            for each in ([name] if name else self.names)
        )

    async def config(self, name, version):
        self._check(name, version)
        return ModelConfig(
            name,
            "openvino_ir",
            "openvino",
            (IMAGE, TEXT, ANYTHING),
            (SCORES,),
            max_batch_size=8,
            instance_groups=(
                InstanceGroup("CPU", InstanceKind.CPU, 2),
                InstanceGroup("NPU", InstanceKind.MODEL, 1),
            ),
            versions=("1", "2"),
            parameters={"device": "CPU"},
        )

    def _check(self, name, version):
        if name not in self.names:
            raise UnknownModelError(name, "", self.names)
        if version not in ("", "1", "2"):
            raise UnknownModelError(name, version, ("1", "2"))
