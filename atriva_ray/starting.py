"""The steps from a new replica actor to one that answers."""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from atriva_inference.options import CompileOptions
from atriva_ray.errors import ClusterError, ModelFilesMissingError
from atriva_ray.model_store import ModelSource, locate, pack
from atriva_ray.replica import ReplicaInfo
from atriva_ray.routing.messages import StartReplica

__all__ = ["load_on", "process_of"]

_START_TIMEOUT_S = 600.0
_PROCESS_TIMEOUT_S = 60.0


async def process_of(actor: Any, order: StartReplica) -> None:
    """Return when the replica's process runs.

    Raises:
        ClusterError: Ray does not start it, most often for want of CPUs.
    """
    try:
        await asyncio.wait_for(actor.ping.remote(), _PROCESS_TIMEOUT_S)
    except (TimeoutError, ray.exceptions.ActorUnschedulableError) as error:
        cpus = order.placement.cpu_count
        raise ClusterError(
            order.placement.seat.label,
            f"Ray did not start a process with {cpus} CPUs there; free CPUs "
            "(other programs and models hold them), or pass a smaller cpus_per_replica",
        ) from error


async def load_on(
    actor: Any, source: ModelSource, order: StartReplica, options: CompileOptions
) -> ReplicaInfo:
    """Have a replica load the model, sending it the files only if its node lacks them.

    Raises:
        ray.exceptions.RayError: it could not, and why.
        TimeoutError: it is not ready after ten minutes.
    """
    arguments = (order.request.backend, order.placement.seat.device, options)
    load = actor.load.remote
    try:
        info: ReplicaInfo = await asyncio.wait_for(load(source, [], *arguments), _START_TIMEOUT_S)
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, ModelFilesMissingError):
            raise
        files = await asyncio.to_thread(locate, source)
        archive = await asyncio.to_thread(lambda: ray.put(pack(files)))
        info = await asyncio.wait_for(load(source, [archive], *arguments), _START_TIMEOUT_S)
    return info
