"""What the router does so that numbers of replicas follow the load: ask, decide, have it done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray

from atriva_inference.errors import InferenceRuntimeError
from atriva_ray.inventory import Inventory
from atriva_ray.routing.elastic import ElasticCore
from atriva_ray.routing.messages import Instruction, StartReplica, StopReplica
from atriva_ray.routing.placement import Node
from atriva_ray.routing.reports import LoadReport
from atriva_ray.scouts import Scouts

__all__ = ["Scaling"]

_logger = logging.getLogger(__name__)

_PERIOD_S = 2.0
_MAX_REPORTS_PER_S = 200
"""A larger cluster is looked at less often: reports cost the router the same, whatever its size."""

_REPORT_TIMEOUT_S = 2.0
_ROUTER = "router"
"""Stands for all programs that have the router itself run their requests."""


class Scaling:
    """Looks at the load every few seconds. What that costs grows with replicas, not with requests.

    Attributes:
        reports: the newest report of each replica that is ready, by its id.
    """

    def __init__(self, core: ElasticCore, inventory: Inventory) -> None:
        self.reports: dict[str, LoadReport] = {}
        self._core = core
        self._inventory = inventory
        self._scouts = Scouts()
        self._relayed: Counter[str] = Counter()

    def client_reported(self, client_id: str, outstanding: Mapping[str, int]) -> None:
        """Take in how many requests a client has no answer to, by key of the model."""
        self._core.loads.client_reported(client_id, outstanding, time.monotonic())

    @contextmanager
    def relayed(self, key: str) -> Iterator[None]:
        """Count a request that the router itself has under way."""
        self._relayed[key] += 1
        try:
            yield
        finally:
            self._relayed[key] -= 1

    async def nodes(self, backend: str, actors: Mapping[str, Any]) -> list[Node]:
        """Return the living nodes, with the CPUs that are ours to give away.

        What other programs hold is taken off where Ray tells it: on a cluster of one node.

        Args:
            backend: whose devices are looked for.
            actors: every replica whose process may still be there.

        Raises:
            InferenceRuntimeError: no node has the backend's library.
        """
        nodes = await self._inventory.nodes(backend)
        leaving = self._core.leaving
        for replica_id in leaving.keys() - actors.keys():
            del leaving[replica_id]
        if len(nodes) != 1:
            return nodes
        (node,) = nodes
        available: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
        usable = available.get("CPU", 0.0) + self._core.granted_cpus(node.node_id)
        usable += sum(placement.cpu_count for placement in leaving.values())
        return [replace(node, cpu_count=min(node.cpu_count, usable))]

    async def next_look(self, replica_count: int) -> None:
        """Return when it is time to look again."""
        await asyncio.sleep(max(_PERIOD_S, replica_count / _MAX_REPORTS_PER_S))

    async def look(self, ready: Mapping[str, Any], actors: Mapping[str, Any]) -> list[Instruction]:
        """Ask every replica for its load, and return what is to be done.

        Args:
            ready: the replicas that answer.
            actors: those, and all others whose process may be there.
        """
        await self._ask(ready)
        self._core.loads.client_reported(_ROUTER, self._relayed, time.monotonic())
        rests, backends = self._core.judge(time.monotonic())
        nodes = {}
        for backend in backends:
            try:
                nodes[backend] = await self.nodes(backend, actors)
            except InferenceRuntimeError as error:
                _logger.warning("no node for more replicas: %s", error)
        instructions = rests + self._core.allot(nodes)
        self._scouts.search(self._core.shortages())
        for each in instructions:
            if isinstance(each, StartReplica):
                _logger.info("adding replica %s on %s", each.replica_id, each.placement.seat.label)
            elif isinstance(each, StopReplica):
                _logger.info("stopping replica %s, which is wanted no more", each.replica_id)
        return instructions

    async def _ask(self, ready: Mapping[str, Any]) -> None:
        ids = list(ready)
        answers = await asyncio.gather(
            *(
                asyncio.wait_for(ready[each].load_report.remote(), _REPORT_TIMEOUT_S)
                for each in ids
            ),
            return_exceptions=True,
        )
        now_s = time.monotonic()
        for gone in self.reports.keys() - ready.keys():
            del self.reports[gone]
        for replica_id, answer in zip(ids, answers, strict=True):
            if isinstance(answer, LoadReport):  # of one that dies, others hear
                self.reports[replica_id] = answer
                self._core.loads.replica_reported(replica_id, answer, now_s)
