"""The first requests of a model, so that no client has to wait for what only they cost."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

from atriva_inference.errors import InferenceRuntimeError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.model import Model

__all__ = ["warm_up"]


def warm_up(model: Model) -> None:
    """Run every replica a few times.

    A model with dynamic dimensions may rightly refuse the sizes that are tried, all 1.

    Raises:
        InferenceRuntimeError: a model whose sizes are all known failed on zeros.
    """
    inputs = {port.name: _zeros(port) for port in model.inputs}
    futures = [model.submit(inputs) for _ in range(2 * model.parallelism)]
    is_static = not any(port.is_dynamic for port in model.inputs)
    for future in futures:
        if is_static:
            future.result()
        else:
            with suppress(InferenceRuntimeError):
                future.result()


def _zeros(port: Port) -> Array:
    shape = () if port.shape is None else tuple(max(size, 1) for size in port.shape)
    if port.dtype.kind in "OSU":
        return np.full(shape, " ")
    return np.zeros(shape, port.dtype)
