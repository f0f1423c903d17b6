"""The replica actor: one compiled model on one device of one node."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import ray

from atriva_inference.backend import make_backend
from atriva_inference.binding import BoundInputs, ShapeSignature, bind_inputs
from atriva_inference.device import DeviceSpec
from atriva_inference.errors import ModelError
from atriva_inference.executor import LocalExecutor, Outputs
from atriva_inference.options import CompileOptions
from atriva_inference.ports import Port
from atriva_inference.profiling import Profile
from atriva_inference.runtime import compile_model
from atriva_inference.shape_cache import ShapeCacheInfo
from atriva_inference.tensor import Array, Tensor
from atriva_ray.errors import LaneError
from atriva_ray.lanes.busy import BusyTime
from atriva_ray.lanes.handshake import make_token
from atriva_ray.lanes.listen import Listener
from atriva_ray.lanes.server import LaneServer
from atriva_ray.lanes.server_lane import Ports
from atriva_ray.lanes.together import find_together
from atriva_ray.model_store import ModelSource, keep, locate
from atriva_ray.routing.batching import BatchingReport
from atriva_ray.routing.reports import LoadReport
from atriva_ray.stored_tensor import INLINE_LIMIT_BYTES, StoredTensor

__all__ = ["MAX_CONCURRENT_CALLS", "Answer", "Replica", "ReplicaInfo", "open_lanes"]

MAX_CONCURRENT_CALLS = 10_000
"""Calls that may wait in one actor; Ray's own limit of 1,000 would block the next caller."""

_DRAIN_TIMEOUT_S = 10.0
_DRAIN_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """What a replica says of itself once its model is compiled.

    Attributes:
        replica_id: unique over the life of the cluster.
        inputs: what the model takes.
        outputs: what the model gives.
        device: what it was compiled for.
        execution_devices: the devices that really execute.
        slot_count: requests it runs at once.
        thread_count: threads it computes on, None if the device brings its own.
        node_id: Ray's id of its node.
        pid: its process.
        lane_name: Unix socket, in the abstract namespace of its node, where it takes lanes.
        lane_token: secret that opens a lane.
        variables: what the model remembers within a session.
    """

    replica_id: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    device: str
    execution_devices: tuple[str, ...]
    slot_count: int
    thread_count: int | None
    node_id: str
    pid: int
    lane_name: str
    lane_token: bytes = field(repr=False)
    variables: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs of one request.

    Attributes:
        outputs: arrays by output name.
        service_time_s: time the device took, without waiting for its turn.
        queue_len: requests, running or waiting, left at the replica.
    """

    outputs: Mapping[str, Array]
    service_time_s: float
    queue_len: int


class Replica:
    """Owns the compiled model; lives until it is stopped, and its process ends with it."""

    def __init__(self, replica_id: str, model_name: str) -> None:
        self._replica_id = replica_id
        self._model_name = model_name
        self._executor: LocalExecutor | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._lanes: LaneServer | None = None
        self._listener: Listener | None = None
        self._queue_len = 0
        self._calls = BusyTime()
        self._calls_lock = threading.Lock()

    async def load(
        self,
        source: ModelSource,
        archive: list[Any],
        backend_name: str,
        device: str,
        options: CompileOptions,
    ) -> ReplicaInfo:
        """Compile the model on a thread, so that the actor keeps answering meanwhile.

        Args:
            source: which model.
            archive: a reference to its files where this node may lack them, else empty; in a list,
                so that Ray does not fetch it before it is needed.
            backend_name: inference library.
            device: one device, or a composite of this node's devices.
            options: hint, backend properties, and as many threads as Ray granted CPUs.

        Raises:
            ModelFilesMissingError: the node lacks the files and no archive was sent.
            CompileError: the device refused the model.
        """
        try:
            files = await asyncio.to_thread(locate, source)
        except ModelError:
            if not archive:
                raise
            files = await asyncio.to_thread(keep, source, await archive[0])
        backend = make_backend(backend_name)
        spec = DeviceSpec.parse(device)
        compiled = await asyncio.to_thread(compile_model, backend, files, spec, options)
        self._executor = LocalExecutor(self._model_name, compiled)
        self._threads = ThreadPoolExecutor(compiled.slot_count, thread_name_prefix="atriva-slot")
        lanes = await asyncio.to_thread(
            open_lanes, self._model_name, self._executor, has_batching=options.batching
        )
        token = make_token()
        self._lanes = lanes
        self._listener = Listener(token, lanes.add)
        return ReplicaInfo(
            replica_id=self._replica_id,
            inputs=compiled.inputs,
            outputs=compiled.outputs,
            device=compiled.device,
            execution_devices=compiled.execution_devices,
            slot_count=compiled.slot_count,
            thread_count=options.thread_count,
            node_id=ray.get_runtime_context().get_node_id(),
            pid=os.getpid(),
            lane_name=self._listener.name,
            lane_token=token,
            variables=self._executor.variables,
        )

    async def listen_tcp(self) -> tuple[str, int]:
        """Take lanes from other hosts too, from now on; return host and port.

        Raises:
            LaneError: this node cannot.
        """
        host = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        if self._listener is None:
            raise LaneError(self._replica_id, "it has not loaded its model yet")
        try:
            return self._listener.listen_tcp(host)
        except (OSError, KeyError) as error:
            raise LaneError(self._replica_id, f"it cannot listen on {host}: {error!r}") from error

    async def infer(self, arrays: Mapping[str, Array], signature: ShapeSignature | None) -> Answer:
        """Run one request whose arrays the caller has fitted to the model's ports."""
        self._queue_len += 1
        try:
            outputs, service_time_s = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._timed_run, BoundInputs(arrays, signature)
            )
        finally:
            self._queue_len -= 1
        return Answer(outputs, service_time_s, self._waiting)

    async def infer_relayed(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run one request that came through the router.

        Args:
            inputs: arrays, tensors, or references to such in the object store.

        Returns:
            Tensors; one above 100 kB stays in the object store until its data is asked for, so
            that the router passes on a reference and never the data.
        """
        executor = self._loaded()
        resolved = {name: await _resolved(value) for name, value in inputs.items()}
        bound = bind_inputs(executor.inputs, resolved)
        answer = await self.infer(bound.arrays, bound.signature)
        return {
            port.name: _packed(answer.outputs[port.name], port.layout) for port in executor.outputs
        }

    async def profile(self, arrays: Mapping[str, Array] | None, runs: int) -> Profile:
        """Profile the model on this replica's device."""
        bound = None if arrays is None else BoundInputs(arrays)
        self._queue_len += 1  # neither idle nor to be stopped meanwhile
        try:
            return await asyncio.to_thread(self._loaded().profile, bound, runs)
        finally:
            self._queue_len -= 1

    async def shape_cache_info(self) -> ShapeCacheInfo:
        """Return the state of this replica's shape cache."""
        return self._loaded().shape_cache_info()

    async def session_count(self) -> int:
        """Return how many sessions are open, of all programs."""
        return self._loaded().session_count

    async def batching_report(self) -> BatchingReport | None:
        """Return what was learned about running requests together; None if they never do."""
        return None if self._lanes is None else self._lanes.batching_report()

    async def ping(self) -> None:
        """Return at once: the process is there."""

    async def load_report(self) -> LoadReport:
        """Return how busy this replica is; costs next to nothing."""
        lanes, calls = self._lanes, self._calls
        if lanes is None or self._executor is None:
            return LoadReport(0.0, 0, self._waiting, 0, 1)
        with self._calls_lock:
            calls_s = calls.total_s(time.monotonic())
        return LoadReport(
            lanes.busy_s + calls_s,
            lanes.busy.answered + calls.answered,
            self._waiting,
            lanes.lane_count,
            self._executor.parallelism,
            lanes.busy.service_time_s or calls.service_time_s,
        )

    async def watch(self) -> None:
        """Never return: the caller learns from the error that this replica's process has ended."""
        await asyncio.Event().wait()

    async def drain(self) -> None:
        """Return when nothing runs any more, or after 10 s."""
        try:
            async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                while self._waiting or not self._are_lanes_idle():  # noqa: ASYNC110 - the lanes' threads count, not this loop
                    await asyncio.sleep(_DRAIN_LOOK_S)
        except TimeoutError:
            return

    def _are_lanes_idle(self) -> bool:
        return self._lanes is None or self._lanes.is_idle

    @property
    def _waiting(self) -> int:
        lanes = self._lanes
        return self._queue_len + (0 if lanes is None else lanes.queue_len)

    def _timed_run(self, bound: BoundInputs) -> tuple[Outputs, float]:
        executor = self._loaded()
        started_s = time.monotonic()
        with self._calls_lock:
            self._calls.began(started_s)
        try:
            outputs = executor.run(bound)
        finally:
            time_s = time.monotonic() - started_s
            with self._calls_lock:
                self._calls.ended(started_s + time_s)
                self._calls.took(time_s)
        return outputs, time_s

    def _loaded(self) -> LocalExecutor:
        if self._executor is None:
            raise ModelError(f"replica {self._replica_id} has not loaded its model yet")
        return self._executor


def open_lanes(model_name: str, executor: LocalExecutor, *, has_batching: bool) -> LaneServer:
    """Start a replica's lanes, with as many threads as requests run at once.

    Where the processor computes, a thread that only reads would take it from those that compute;
    beside another device, it gets the next request ready meanwhile.
    """
    is_busy = any("CPU" in device for device in executor.execution_devices)
    together = None
    if has_batching and not executor.variables:
        slots = executor.parallelism
        together = find_together(executor, executor.inputs, executor.outputs, slots)
    return LaneServer(
        executor,
        Ports(model_name, executor.inputs, executor.outputs),
        executor.parallelism if is_busy else executor.parallelism + 1,
        together,
    )


async def _resolved(value: Any) -> Any:
    """Fetch what is in the object store without holding up the actor's other calls."""
    if isinstance(value, StoredTensor):
        return await asyncio.to_thread(value.fetched)
    return await value if isinstance(value, ray.ObjectRef) else value


def _packed(array: Array, layout: str | None) -> Tensor:
    if array.nbytes <= INLINE_LIMIT_BYTES:
        return Tensor(array, layout)
    return StoredTensor(ray.put(array), array.shape, array.dtype, layout)
