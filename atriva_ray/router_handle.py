"""The router as Ray programs see it: a handle whose large tensors stay out of the router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import ray

from atriva_inference.tensor import Tensor
from atriva_ray.connection import DEFAULT_NAMESPACE
from atriva_ray.replica import MAX_CONCURRENT_CALLS
from atriva_ray.router import Router
from atriva_ray.stored_tensor import INLINE_LIMIT_BYTES

__all__ = ["ROUTER_NAME", "RouterHandle", "get_router"]

ROUTER_NAME = "atriva-router"


class RouterHandle:
    """A handle of the router actor; it may be passed to other Ray programs, tasks and actors.

    ``router.infer.remote(model_name, inputs)`` returns an object reference whose value is a dict of
    output name to `Tensor`; see `Router.infer` for what it raises. Inputs above 100 kB are put into
    the object store by the caller, large outputs by the replica, and the router passes on
    references. Other methods are the actor's own.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @property
    def infer(self) -> _Infer:
        """The method to call with ``.remote(model_name, inputs)``."""
        return _Infer(self._actor)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # never while unpickling, before there is an actor
            raise AttributeError(name)
        return getattr(self._actor, name)


class _Infer:
    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def remote(
        self, model_name: str, inputs: Mapping[str, Tensor | npt.ArrayLike | ray.ObjectRef[Any]]
    ) -> Any:
        sent = {name: _stored(value) for name, value in inputs.items()}
        return self._actor.infer.remote(model_name, sent)


def _stored(value: Any) -> Any:
    if getattr(value, "nbytes", 0) <= INLINE_LIMIT_BYTES:
        return value
    return ray.put(value)


def get_router(namespace: str = DEFAULT_NAMESPACE) -> RouterHandle:
    """Return the router of a namespace, starting it if there is none; Ray must be initialised.

    ``ray.get_actor("atriva-router", namespace="atriva")`` gives the bare actor, whose ``infer``
    copies an array above 100 kB once on its way; pass ``ray.put(array)`` to it instead.
    """
    try:
        return RouterHandle(ray.get_actor(ROUTER_NAME, namespace=namespace))
    except ValueError:  # there is none; making a class remote costs memory each time
        actor = (
            ray.remote(Router)
            .options(
                name=ROUTER_NAME,
                namespace=namespace,
                get_if_exists=True,
                lifetime="detached",
                num_cpus=0,
                max_concurrency=MAX_CONCURRENT_CALLS,
            )
            .remote()
        )
        return RouterHandle(actor)
