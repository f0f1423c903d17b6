"""A picture that was uploaded: to the model's input, and from its scores to classes."""

from __future__ import annotations

import asyncio

import numpy as np

from atriva_inference.tensor import Tensor
from atriva_ray.best_entries import best_entries
from atriva_ray.errors import BadRequestError
from atriva_ray.picture_port import PicturePort, only_picture_port
from atriva_ray.serve.open_models import OpenModel
from atriva_ray.serve.server_face import ClassScore, PictureAnswer

__all__ = ["classify_picture", "takes_pictures"]


def takes_pictures(found: OpenModel) -> bool:
    """Whether a model takes one picture and nothing else."""
    ports = found.model.inputs
    return len(ports) == 1 and PicturePort.of(ports[0]) is not None


async def classify_picture(
    found: OpenModel, data: bytes | memoryview, count: int | None, timeout_s: float | None
) -> PictureAnswer:
    """Run a picture through a model; see `InferenceServer.classify`."""
    settings = found.offer.settings
    wanted = settings.top_k if count is None else count
    if wanted < 1:
        raise BadRequestError(f"top_k is {wanted}; ask for at least 1 class")
    port = only_picture_port(found.model.inputs)
    fit = "stretch" if settings.preprocessing is None else settings.preprocessing.fit
    pixels = await asyncio.to_thread(port.decode, bytes(data), fit)
    outputs = await found.run({port.name: Tensor(pixels[np.newaxis], "NHWC")}, timeout_s)
    classes: dict[str, list[ClassScore]] = {}
    for name, tensor in outputs.items():
        array = tensor.to_numpy()
        if array.dtype.kind not in "iuf":
            continue
        indices, scores = best_entries(array.reshape(1, -1), wanted)
        labels = settings.labels_of(name)
        classes[name] = [
            ClassScore(int(index), float(score), labels[index] if index < len(labels) else "")
            for index, score in zip(indices[0], scores[0], strict=True)
        ]
    return PictureAnswer(found.offer.name, found.offer.version, classes)
