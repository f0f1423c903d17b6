"""The router actor: a thin shell that does what `RouterCore` decides."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from types import MappingProxyType
from typing import Any

import ray

from atriva_inference.device import Device
from atriva_inference.errors import InferenceFailedError, InferenceRuntimeError, ModelError
from atriva_inference.tensor import Tensor
from atriva_ray.errors import (
    ModelNotLoadedError,
    ReplicaLostError,
)
from atriva_ray.inventory import Inventory, alive_nodes, node_options
from atriva_ray.model_store import ModelArchive, ModelSource, keep
from atriva_ray.ray_errors import translated
from atriva_ray.replica import MAX_CONCURRENT_CALLS, Replica, ReplicaInfo
from atriva_ray.route_table import RouteTable
from atriva_ray.routing.elastic import ElasticCore
from atriva_ray.routing.fallback import elsewhere
from atriva_ray.routing.messages import (
    Grant,
    Instruction,
    ModelRequest,
    Refuse,
    StartReplica,
    StopReplica,
)
from atriva_ray.routing.schedules import Schedule, make_schedule
from atriva_ray.routing.tables import Tables
from atriva_ray.scaling import Scaling
from atriva_ray.starting import load_on, process_of

__all__ = ["MAX_ATTEMPTS", "Router"]

_logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""How many replicas a request may lose before it fails."""

_PING_TIMEOUT_S = 5.0
_DRAIN_TIMEOUT_S = 12.0
_TICK_S = 1.0


class Router:
    """One per cluster namespace. Lives until its cluster ends; its replicas live no longer."""

    def __init__(self) -> None:
        self._core = ElasticCore(first_generation=time.time_ns())
        self._replica_class: Any = ray.remote(Replica)  # once: it costs memory each time
        self._inventory = Inventory()
        self._scaling = Scaling(self._core, self._inventory)
        self._reports = self._scaling.reports  # the newest of each replica, by its id
        self._sources: dict[str, ModelSource] = {}
        self._actors: dict[str, Any] = {}
        self._infos: dict[str, ReplicaInfo] = {}
        self._begun: dict[str, asyncio.Event] = {}  # of replicas whose processes do not run yet
        self._balancers: dict[str, Schedule] = {}
        self._tables = Tables()
        self._told = self._core.version
        self._tickets = count(1)
        self._granted: dict[int, asyncio.Future[str]] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._tick())
        self._spawn(self._follow_load())

    # -- clients -------------------------------------------------------------------------------

    async def devices(self, backend: str) -> list[Device]:
        """Return the devices of all nodes, each with its node's name."""
        nodes = await self._inventory.nodes(backend)
        return [replace(device, node=node.name) for node in nodes for device in node.devices]

    async def load(self, client_id: str, request: ModelRequest, source: ModelSource) -> RouteTable:
        """Return when the model is ready on every replica that was started for it.

        Raises:
            ModelFilesMissingError: a chosen node lacks the files: `upload` them and try again.
            ModelError, DeviceNotAvailableError: see `InferenceRuntime.load_model`.
        """
        self._core.client_seen(client_id, time.monotonic())
        nodes = await self._scaling.nodes(request.backend, self._actors)
        self._sources[request.fingerprint] = source
        ticket = next(self._tickets)
        granted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._granted[ticket] = granted
        try:
            await self._carry_out(self._core.model_requested(ticket, client_id, request, nodes))
            key = await granted
            async with self._changed:  # between the grant and now, a replica may have died
                await self._changed.wait_for(lambda: self._is_gone_or_routed(key, client_id))
            if self._core.routes(key) is None:
                raise ModelNotLoadedError(request.name, sorted(self._core.requests()))
            return self._table_of(key, client_id, 0)
        finally:
            del self._granted[ticket]

    async def find_model(self, path: str) -> ModelSource:
        """Describe a model that the client's machine lacks, by asking node after node.

        Raises:
            ModelNotFoundError: no node has it.
        """
        return await self._inventory.find_model(path)

    async def upload(self, source: ModelSource, archive: list[Any]) -> None:
        """Keep a model's files on the router's node, from where other nodes get them."""
        content: ModelArchive = await archive[0]
        await asyncio.to_thread(keep, source, content)

    async def release(self, client_id: str, key: str, generation: int) -> None:
        """One client's one `close`; returns when replicas that nobody uses any more are gone."""
        await self._carry_out(self._core.model_released(client_id, key, generation))

    async def leave(self, client_id: str) -> None:
        """Release everything a client used."""
        await self._carry_out(self._core.client_left(client_id))

    async def unload(self, name: str) -> None:
        """Take a model away from every client.

        Raises:
            ModelNotLoadedError: there is none of this name.
        """
        await self._carry_out(self._core.model_unloaded(name))

    async def watch(
        self,
        client_id: str,
        version: int,
        timeout_s: float,
        outstanding: Mapping[str, int] = MappingProxyType({}),
    ) -> tuple[int, dict[str, RouteTable]]:
        """Wait until something is newer than `version`, at most `timeout_s`, and return it.

        Only what concerns this client counts as new.

        Args:
            client_id: who asks.
            version: what it knows.
            timeout_s: how long to wait.
            outstanding: requests that it has no answer to, by key of the model.

        Returns:
            The newest version and the routes of every model the client uses. The call is also the
            client's sign of life.
        """
        self._core.client_seen(client_id, time.monotonic())
        self._scaling.client_reported(client_id, outstanding)
        for key in outstanding:
            self._spawn(self.wake(key))
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._tables.changed(client_id) > version)
        except TimeoutError:
            pass
        self._core.client_seen(client_id, time.monotonic())
        keys = self._core.keys_of(client_id)
        return self._core.version, {key: self._table_of(key, client_id, version) for key in keys}

    async def wake(self, key: str) -> None:
        """Start a model's replicas again for requests that wait, if it has none for want of any."""
        if self._core.is_asleep(key):
            backend = self._core.requests()[key].backend
            nodes = await self._scaling.nodes(backend, self._actors)
            await self._carry_out(self._core.model_wanted(key, nodes))

    async def report_lost(self, replica_id: str) -> None:
        """Look after a replica whose process a client saw end."""
        actor = self._actors.get(replica_id)
        if actor is None:
            return
        try:
            await asyncio.wait_for(actor.ping.remote(), _PING_TIMEOUT_S)
        except (ray.exceptions.RayError, TimeoutError):
            await self._on_death(replica_id)

    async def report_failed(
        self, key: str, replica_id: str, reason: str, *, is_proven: bool
    ) -> int | None:
        """Note that a device failed while it ran a request.

        Args:
            key: the model.
            replica_id: where.
            reason: what it said.
            is_proven: whether another replica has answered the same request.

        Returns:
            The version from which on the routes tell where else the request may be tried; None if
            there will be no other replica.
        """
        instructions = self._core.replica_failing(replica_id, time.monotonic(), is_proven=is_proven)
        if is_proven:
            _logger.warning("replica %s is set aside: %s", replica_id, reason)
        await self._carry_out(instructions)
        others = [route for route in self._core.routes(key) or () if route.replica_id != replica_id]
        is_hopeful = bool(others) or self._core.expects_stand_in(key)
        return self._core.version if is_hopeful else None

    async def infer(self, model_name: str, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run one request on the best replica, for Ray programs that want a plain call.

        Args:
            model_name: the name it was loaded under.
            inputs: array, tensor, or ``ray.put`` reference to one, by input name. A reference
                passes the router untouched; an array above 100 kB is copied on its way through.

        Returns:
            Tensors by output name; large ones carry a reference and fetch their data when asked.

        Raises:
            ModelNotLoadedError: there is none of this name.
            InputError: the inputs do not fit.
            ReplicaLostError: replicas died under the request three times.
            InferenceFailedError: every device that tried it failed, three at the most.
        """
        key = self._core.resolve(model_name)
        with self._scaling.relayed(key):
            return await self._relay(key, model_name, inputs)

    async def _relay(
        self, key: str, model_name: str, inputs: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        auto = self._core.requests()[key].auto
        failures: dict[str, InferenceFailedError] = {}
        for attempt in range(1, MAX_ATTEMPTS + 1):
            balancer = self._balancers.setdefault(key, make_schedule(auto.schedule_policy))
            replica_id = await self._room(key, balancer, failures)
            balancer.started(replica_id, time.monotonic())
            try:
                outputs: dict[str, Tensor] = await self._actors[replica_id].infer_relayed.remote(
                    inputs
                )
            except ray.exceptions.RayError as error:
                failure = translated(error, model_name)
                may_go_on = auto.runtime_fallback and attempt < MAX_ATTEMPTS
                if isinstance(failure, InferenceFailedError) and may_go_on:
                    failures[replica_id] = failure
                    await self.report_failed(key, replica_id, failure.reason, is_proven=False)
                    continue
                if not isinstance(failure, ReplicaLostError):
                    raise failure from None
                await self._on_death(replica_id)
                if attempt == MAX_ATTEMPTS:
                    raise ReplicaLostError(model_name, attempt, failure.reason) from None
            else:
                for failed, failure in failures.items():
                    await self.report_failed(key, failed, failure.reason, is_proven=True)
                return outputs
            finally:
                balancer.finished(replica_id, time.monotonic())
                await self._announce()
        raise ModelNotLoadedError(model_name, sorted(self._core.requests()))

    async def status(self) -> dict[str, dict[str, Any]]:
        """Return, as plain data, each model's replicas, how many it wants, and why."""
        return {
            key: self._core.scale_of(key)
            | {
                "replicas": [
                    {
                        "replica": route.replica_id,
                        "device": route.label,
                        "slots": route.slot_count,
                        "pid": self._infos[route.replica_id].pid,
                    }
                    for route in self._core.routes(key) or ()
                ]
            }
            for key in self._core.requests()
        }

    # -- carrying out --------------------------------------------------------------------------

    async def _carry_out(self, instructions: list[Instruction]) -> None:
        stops = []
        for instruction in instructions:
            match instruction:
                case StartReplica(replica_id):
                    self._begun[replica_id] = asyncio.Event()
                    self._spawn(self._start(instruction))
                case StopReplica(replica_id):
                    stops.append(self._stop(replica_id))
                case Grant(ticket, key):
                    self._answer(ticket, key)
                case Refuse(ticket, error):
                    self._answer(ticket, error)
        await self._announce()
        await asyncio.gather(*stops)

    def _answer(self, ticket: int, answer: str | InferenceRuntimeError) -> None:
        future = self._granted.get(ticket)
        if future is None or future.done():
            return
        if isinstance(answer, str):
            future.set_result(answer)
        else:
            future.set_exception(answer)

    async def _start(self, order: StartReplica) -> None:
        await asyncio.sleep(order.delay_s)
        if order.after in self._begun:
            await self._begun[order.after].wait()
        request, seat = order.request, order.placement.seat
        has_gpus = any(
            node["NodeID"] == seat.node_id and "GPU" in node["Resources"] for node in alive_nodes()
        )
        actor: Any = self._replica_class.options(
            num_cpus=order.placement.cpu_count if request.reserve_cpus else 0,
            max_concurrency=MAX_CONCURRENT_CALLS,
            max_restarts=0,
            **node_options(seat.node_id, has_ray_gpus=has_gpus),
        ).remote(order.replica_id, request.name)
        self._actors[order.replica_id] = actor
        options = request.options
        if seat.takes_cpus:
            options = replace(options, thread_count=max(1, order.placement.cpu_count))
        try:
            await process_of(actor, order)
            self._begun.pop(order.replica_id, asyncio.Event()).set()
            info = await load_on(actor, self._sources[request.fingerprint], order, options)
        except Exception as error:  # noqa: BLE001 - whatever it is, the core decides what follows
            failure = translated(error, request.name)
            _logger.info("no replica of %s on %s: %s", request.name, seat.label, failure)
            if not isinstance(failure, InferenceRuntimeError):
                failure = ModelError(f"a replica on {seat.label} could not be started: {failure!r}")
            await self._end(order.replica_id)
            if isinstance(failure, ReplicaLostError):  # its process ended while it compiled
                await self._carry_out(self._core.replica_died(order.replica_id))
            else:
                await self._carry_out(self._core.replica_failed(order.replica_id, failure))
            return
        self._infos[order.replica_id] = info
        self._spawn(self._watch(order.replica_id, actor))
        await self._carry_out(self._core.replica_ready(order.replica_id, info.slot_count))

    async def _watch(self, replica_id: str, actor: Any) -> None:
        try:
            await actor.watch.remote()
        except ray.exceptions.RayError:
            await self._on_death(replica_id)

    async def _on_death(self, replica_id: str) -> None:
        if replica_id not in self._infos:
            return
        _logger.warning("replica %s died", replica_id)
        del self._infos[replica_id]
        instructions = self._core.replica_died(replica_id)
        await self._end(replica_id)
        await self._carry_out(instructions)

    async def _stop(self, replica_id: str) -> None:
        actor = self._actors.get(replica_id)
        if actor is None:
            return
        is_ready = self._infos.pop(replica_id, None) is not None
        if is_ready:  # one that still compiles runs nothing, and is ended at once
            try:
                await asyncio.wait_for(actor.drain.remote(), _DRAIN_TIMEOUT_S)
            except (ray.exceptions.RayError, TimeoutError):
                _logger.info("replica %s was gone or hung before it was stopped", replica_id)
        await self._end(replica_id)

    async def _end(self, replica_id: str) -> None:
        self._infos.pop(replica_id, None)
        self._begun.pop(replica_id, asyncio.Event()).set()
        actor = self._actors.pop(replica_id, None)
        if actor is not None:
            await asyncio.to_thread(ray.kill, actor)

    # -- small things --------------------------------------------------------------------------

    def _table_of(self, key: str, client_id: str, version: int) -> RouteTable:
        table = self._tables.table(key, client_id, version)
        return RouteTable(
            key,
            self._core.generation(key),
            self._core.version,
            table.routes,
            {each: (self._infos[each], self._actors[each]) for each in table.news},
            self._core.refusals(key),
            self._core.expects_stand_in(key),
        )

    def _service_times_s(self) -> dict[str, float | None]:
        return {each: report.service_time_s for each, report in self._reports.items()}

    def _update_tables(self) -> None:
        version = self._core.version
        if version == self._told:
            return
        self._told = version
        times_s = self._service_times_s()
        keys = self._core.requests().keys()
        for key in keys:
            routes = self._core.routes(key) or ()
            there = [
                replace(route, service_time_s=times_s.get(route.replica_id))
                for route in routes
                if route.replica_id in self._infos
            ]
            self._tables.update(key, there, self._core.users(key), version)
            remark = (self._core.refusals(key), self._core.expects_stand_in(key))
            self._tables.remark(key, remark, version)
        self._tables.keep(keys, version)

    def _is_gone_or_routed(self, key: str, client_id: str) -> bool:
        is_gone = self._core.routes(key) is None
        return is_gone or bool(self._tables.table(key, client_id, 0).routes)

    async def _room(
        self, key: str, balancer: Schedule, failures: Mapping[str, InferenceFailedError]
    ) -> str:
        """Return the best replica with room, waiting until there is one.

        What failed goes to a replica on which it did not; without any, its last error is raised.
        """
        async with self._changed:
            while True:
                routes = self._core.routes(key)
                if routes is None:
                    raise ModelNotLoadedError(key, sorted(self._core.requests()))
                if not routes:
                    self._spawn(self.wake(key))
                balancer.set_routes(route for route in routes if route.replica_id in self._actors)
                if failures:
                    replica_id = elsewhere(balancer.in_flight, failures)
                else:
                    replica_id = balancer.choose(time.monotonic())
                if replica_id is not None:
                    return replica_id
                if failures and not self._core.expects_stand_in(key):
                    raise list(failures.values())[-1]
                await self._changed.wait()

    async def _announce(self) -> None:
        self._update_tables()
        async with self._changed:
            self._changed.notify_all()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._tables.keep_clients(self._core.clients)
            self._spawn(self._carry_out(self._core.clock_ticked(time.monotonic())))

    async def _follow_load(self) -> None:
        while True:
            await self._scaling.next_look(len(self._infos))
            try:
                ready = {each: self._actors[each] for each in self._infos if each in self._actors}
                orders = await self._scaling.look(ready, self._actors)
                if self._tables.measured(self._service_times_s()):
                    self._core.version += 1  # homes are given anew when this is announced
                self._spawn(self._carry_out(orders))  # stopping one takes as long as its requests
            except Exception:
                _logger.exception("the load could not be looked at")

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
