"""A server in memory: its models double what they get, in every datatype."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np

from atriva_inference.ports import Port
from atriva_ray.errors import (
    BadRequestError,
    DeadlineExceededError,
    ModelUnavailableError,
    OverloadedError,
    PictureError,
    RepositoryError,
    UnknownModelError,
)
from atriva_ray.serve.page import ModelCard
from atriva_ray.serve.protocol.messages import InferAnswer, OutputTensor
from atriva_ray.serve.server_face import (
    ClassScore,
    InstanceGroup,
    InstanceKind,
    ModelConfig,
    ModelMetadata,
    ModelState,
    ModelStatistics,
    PictureAnswer,
    ServerMetadata,
    Timing,
)

IMAGE = Port("image", ("image",), np.dtype(np.float32), (-1, 3, 4, 5), "NCHW")
TEXT = Port("text", ("text",), np.dtype(np.str_), (-1, 1))
SCORES = Port("scores", ("scores",), np.dtype(np.float16), (-1, 10))
ANYTHING = Port("anything", ("anything",), np.dtype(np.int64), None)

PRIVATE = "what is in /etc/private"

_CLASSES = (ClassScore(1, 0.75, "dog"), ClassScore(0, 0.25, "cat"), ClassScore(2, -1.5))
_LABELS = ("cat", "dog")
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


def doubled(array):
    """Return twice the numbers, or texts twice; truth stays as it is."""
    if array.dtype.kind in "OSU":
        return np.array([2 * each for each in array.ravel().tolist()], object).reshape(array.shape)
    if array.dtype.kind == "b":
        return array
    with np.errstate(all="ignore"):
        return np.asarray(array + array).astype(array.dtype, copy=False)


@dataclass
class FakeServer:
    """Fills the part of `ServedOverHttp`; each model is a way to behave.

    ``double``: answers. ``slow``: answers when `release` is set. ``broken``: fails unexpectedly.
    ``lost``: what it waits for is cancelled. ``full``: has no room. ``unready``: is loading.
    ``bad``: takes nothing. ``late``: the client's time is over.
    """

    names: tuple[str, ...] = (
        "double",
        "slow",
        "broken",
        "lost",
        "full",
        "unready",
        "bad",
        "late",
    )
    inputs: tuple[Port, ...] = (IMAGE, TEXT, ANYTHING)
    is_alive: bool = True
    is_up: bool = True
    requests: list = field(default_factory=list)
    calls: list = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    cancelled: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)

    def is_live(self):
        return self.is_alive

    def is_ready(self):
        return self.is_up

    async def is_model_ready(self, name, version):
        self._check(name, version)
        return name != "unready"

    def metadata(self):
        return ServerMetadata("atriva", "1.2.3", ("classification", "statistics"))

    async def model_metadata(self, name, version):
        self._check(name, version)
        return ModelMetadata(name, ("1", "2"), "openvino_ir", self.inputs, (SCORES,))

    async def infer(self, name, version, request):
        self._check(name, version)
        self.requests.append(request)
        return await self._counted(self._infer(name, version, request))

    async def classify(self, name, version, picture, count=None, timeout_s=None):
        self._check(name, version)
        self.calls.append(("classify", name, version, len(picture), count))
        return await self._counted(self._classify(name, version, bytes(picture), count, timeout_s))

    async def _counted(self, answering):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await answering
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _behave(self, name, version, timeout_s):
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
        if name == "late":
            raise DeadlineExceededError(name, timeout_s or 1.0)

    async def _infer(self, name, version, request):
        await self._behave(name, version, request.timeout_s)
        wanted = [output.name for output in request.outputs]
        tensors = {
            f"{each.name}_doubled": OutputTensor(
                f"{each.name}_doubled", each.datatype, doubled(each.array), _LABELS
            )
            for each in request.inputs
        }
        unknown = [name for name in wanted if name not in tensors]
        if unknown:
            raise BadRequestError(f"there is no output {unknown[0]!r}; there are {list(tensors)}")
        outputs = tuple(tensors[name] for name in wanted or tensors)
        return InferAnswer(name, version or "2", outputs, request.id)

    async def _classify(self, name, version, picture, count, timeout_s):
        if count is not None and count < 1:
            raise BadRequestError(f"top_k is {count}; ask for at least 1 class")
        await self._behave(name, version, timeout_s)
        if not picture.startswith(_PICTURES):
            raise PictureError("it is neither JPEG nor PNG")
        return PictureAnswer(name, version or "2", {"scores": _CLASSES[: count or 2]})

    def cards(self):
        return (
            ModelCard(
                "double",
                "2",
                "READY",
                devices=("node-1/CPU", "node-1/NPU"),
                inputs=("image FP32 [-1, 3, 4, 5]",),
                outputs=("scores FP16 [-1, 10]",),
                takes_pictures=True,
            ),
            ModelCard("unready", "1", "LOADING", reason="it is large"),
        )

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
