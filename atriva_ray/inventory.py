"""Which devices each node really has, found out on the node itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from atriva_inference.backend import make_backend
from atriva_inference.device import Device
from atriva_inference.errors import ModelNotFoundError
from atriva_inference.model_files import ModelFiles
from atriva_ray.model_store import ModelSource
from atriva_ray.ray_errors import translated
from atriva_ray.routing.placement import Node

__all__ = ["Inventory", "alive_nodes", "node_options"]

_PROBE_TIMEOUT_S = 60.0


def alive_nodes() -> list[dict[str, Any]]:
    """Return Ray's description of every node that is alive."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def node_options(node_id: str, *, has_ray_gpus: bool) -> dict[str, Any]:
    """Return the options that put a task or actor onto one node and let it see all its GPUs.

    A process that was granted no GPU by Ray gets an empty CUDA_VISIBLE_DEVICES; we choose devices
    ourselves, so that variable must be left alone.
    """
    options: dict[str, Any] = {
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)
    }
    if has_ray_gpus:
        options["runtime_env"] = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
    return options


@ray.remote(num_cpus=0, max_retries=2)
def _probe(backend: str) -> list[Device]:
    return make_backend(backend).devices()


@ray.remote(num_cpus=0, max_retries=2)
def _describe(path: str) -> ModelSource:
    return ModelSource.of(ModelFiles.find(path))


class Inventory:
    """Asks each node once for each backend; nodes that come and go are noticed at every call."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[Device, ...]] = {}
        self._lock = asyncio.Lock()

    async def nodes(self, backend: str) -> list[Node]:
        """Return the living nodes with their devices.

        Raises:
            InferenceRuntimeError: no node has the backend's library; the first node's reason.
        """
        async with self._lock:
            alive = alive_nodes()
            unknown = [node for node in alive if (node["NodeID"], backend) not in self._found]
            results = await asyncio.gather(
                *(self._ask(node, backend) for node in unknown), return_exceptions=True
            )
            failures = []
            for node, result in zip(unknown, results, strict=True):
                if isinstance(result, BaseException):
                    failures.append(result)
                else:
                    self._found[node["NodeID"], backend] = tuple(result)
            if failures and len(failures) == len(alive):
                raise translated(failures[0], backend)
            return [
                Node(
                    node["NodeID"],
                    name,
                    node["Resources"].get("CPU", 0.0),
                    self._found.get((node["NodeID"], backend), ()),
                )
                for node, name in zip(alive, _names(alive), strict=True)
            ]

    async def find_model(self, path: str) -> ModelSource:
        """Describe a model that at least one node has at this path.

        Raises:
            ModelNotFoundError: none has.
            ModelError: the file is there, but is no model; the first node's reason.
        """
        answers = await asyncio.gather(
            *(
                _describe.options(**node_options(node["NodeID"], has_ray_gpus=False)).remote(path)
                for node in alive_nodes()
            ),
            return_exceptions=True,
        )
        errors = []
        for answer in answers:
            if isinstance(answer, ModelSource):
                return answer
            errors.append(translated(answer, path))
        unlike = [error for error in errors if not isinstance(error, ModelNotFoundError)]
        if unlike:
            raise unlike[0]
        raise ModelNotFoundError(path, "on this machine or on any node of the cluster")

    async def _ask(self, node: dict[str, Any], backend: str) -> list[Device]:
        options = node_options(node["NodeID"], has_ray_gpus="GPU" in node["Resources"])
        answer = _probe.options(**options).remote(backend)
        devices: list[Device] = await asyncio.wait_for(answer, _PROBE_TIMEOUT_S)
        return devices


def _names(nodes: Iterable[dict[str, Any]]) -> list[str]:
    """Name nodes by host, and by host and id where several share one."""
    nodes = list(nodes)
    hosts = [str(node["NodeManagerHostname"]) for node in nodes]
    return [
        host if hosts.count(host) == 1 else f"{host}-{node['NodeID'][:6]}"
        for node, host in zip(nodes, hosts, strict=True)
    ]
