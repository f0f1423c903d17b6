"""How Ray is told that CPUs are wanted which no node has free now."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping

import ray

from atriva_ray.routing.elastic import Shortage

__all__ = ["Scouts"]

_logger = logging.getLogger(__name__)

_MAX_SCOUTS = 100
"""Of one model, at the same time."""

_REST_S = 10.0
"""After one has found CPUs, the next is not sent before the router could use them."""


@ray.remote(max_retries=0)
def _look_around() -> None:
    """Run as soon as a node has the CPUs; that is all."""


class Scouts:
    """Tasks that do nothing but ask Ray for a replica's CPUs.

    While they wait, Ray's autoscaler counts them as demand and adds nodes for them, without a
    replica that would have to wait for its process. One that runs has found CPUs, on a new node
    most likely, which are free again at once: the replica that goes there is the router's affair.
    """

    def __init__(self) -> None:
        self._under_way: defaultdict[str, list[asyncio.Task[None]]] = defaultdict(list)

    def search(self, shortages: Mapping[str, Shortage]) -> None:
        """Have as many under way, by key of the model, as replicas are short; call others back."""
        for key in {*self._under_way, *shortages}:
            shortage = shortages.get(key)
            wanted = 0 if shortage is None else min(_MAX_SCOUTS, shortage.replica_count)
            tasks = [each for each in self._under_way[key] if not each.done()]
            for each in tasks[wanted:]:
                each.cancel()
            if shortage is None:
                del self._under_way[key]
                continue
            if not tasks:
                _logger.warning(
                    "model %s wants %d replicas more, and no node has %d CPUs free: it goes on "
                    "with those it has; add nodes, or let Ray's autoscaler add them",
                    key,
                    shortage.replica_count,
                    shortage.cpus_each,
                )
            missing = range(wanted - len(tasks))
            self._under_way[key] = tasks + [
                asyncio.create_task(_search(shortage.cpus_each)) for _ in missing
            ]


async def _search(cpu_count: int) -> None:
    found = _look_around.options(num_cpus=cpu_count).remote()
    try:
        await found
        await asyncio.sleep(_REST_S)
    except ray.exceptions.RayError as error:
        _logger.info("looking for %d CPUs ended: %s", cpu_count, error)
    finally:
        ray.cancel(found)
