"""The models that one ingress has open: as many as the newest table offers, changed all at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from atriva_inference.errors import (
    InferenceRuntimeError,
    InputDtypeError,
)
from atriva_inference.ports import Port
from atriva_inference.tensor import Tensor
from atriva_inference.terms import Priority
from atriva_ray.errors import (
    BadRequestError,
    DeadlineExceededError,
    ModelNotLoadedError,
    ModelUnavailableError,
    OverloadedError,
)
from atriva_ray.model import Model
from atriva_ray.runtime import InferenceRuntime
from atriva_ray.serve.protocol.datatypes import datatype_of, dtype_of
from atriva_ray.serve.protocol.messages import (
    InferAnswer,
    InferRequest,
    InputTensor,
    OutputTensor,
)
from atriva_ray.serve.table import Offer, Table
from atriva_ray.serve.tally import Tally

__all__ = ["OpenModel", "OpenModels"]

_logger = logging.getLogger(__name__)

_OPENERS = 4
_MAX_WAITING = 1024
_RETRY_AFTER_S = 1.0
_LOOK_AFTER_EVERY_S = 5.0
_MEDIUM_LEVEL = 2


@dataclass(slots=True, eq=False)
class OpenModel:
    """A version that this ingress can answer for.

    Attributes:
        offer: what it is.
        model: its replicas.
        tally: what it answered here.
        running: requests that have no answer yet.
        users: those, and requests that are not under way yet.
        is_idle: set when the last of the users has gone.
    """

    offer: Offer
    model: Model
    tally: Tally = field(default_factory=Tally)
    running: int = 0
    users: int = 0
    is_idle: asyncio.Event = field(default_factory=asyncio.Event)

    def is_load_of(self, offer: Offer) -> bool:
        """Whether it is what an offer says, or was until it was lost here."""
        return self.offer.load_id == offer.load_id

    @contextmanager
    def kept(self) -> Iterator[Self]:
        """Keep it open for a request; one that is being prepared may run it later."""
        self.users += 1
        try:
            yield self
        finally:
            self.users -= 1
            if self.users == 0:
                self.is_idle.set()

    async def infer(self, request: InferRequest) -> InferAnswer:
        """Run one request.

        Raises:
            BadRequestError, InputError: it does not fit the model.
            InferenceRuntimeError: what `run` raises.
        """
        ports = _wanted_ports(self.model.outputs, request)
        inputs = _fitted(self.model.inputs, request.inputs)
        settings = self.offer.settings  # it may get new ones while it runs
        outputs = await self.run(inputs, request.timeout_s, priority_of(request.priority))
        tensors = tuple(
            OutputTensor(
                name,
                datatype_of(port.dtype),
                outputs[port.name].to_numpy(),
                settings.labels_of(port.name),
            )
            for name, port in ports
        )
        return InferAnswer(self.offer.name, self.offer.version, tensors, request.id)

    async def run(
        self,
        inputs: Mapping[str, Tensor],
        timeout_s: float | None = None,
        priority: Priority = Priority.MEDIUM,
    ) -> dict[str, Tensor]:
        """Run the model, counted and bounded; cancelling it cancels the request.

        Raises:
            OverloadedError: too many wait already.
            DeadlineExceededError: its time is over; it is cancelled.
            InferenceRuntimeError: what the model raises.
        """
        limit = self.offer.settings.max_waiting or _MAX_WAITING
        if self.running >= limit:
            raise OverloadedError(self.running, limit, _RETRY_AFTER_S)
        began_ns = time.perf_counter_ns()
        self.running += 1
        try:
            with self.kept():
                left_s = None if timeout_s is None else max(0.0, timeout_s)
                outputs = await self.model.run_async(inputs, timeout_s=left_s, priority=priority)
        except BaseException as error:
            self.tally.failed(time.perf_counter_ns() - began_ns)
            if isinstance(error, DeadlineExceededError):  # clients know it by another name
                raise DeadlineExceededError(self.offer.name, *error.args[1:]) from None
            raise
        finally:
            self.running -= 1
        samples = _sample_count(self.model.inputs, inputs)
        self.tally.answered(time.perf_counter_ns() - began_ns, samples, time.time_ns() // 1_000_000)
        return outputs


class OpenModels:
    """Follows tables: opens what is new, then switches, then closes what is gone.

    What is lost here although the table has it is opened again. If everybody has lost it, the next
    table says so, and the one after that has another load of it.

    `switch` runs on the event loop's thread, as `find` does, so every request sees one table.
    """

    def __init__(self, runtime: InferenceRuntime) -> None:
        self._runtime = runtime
        self._threads = ThreadPoolExecutor(_OPENERS, thread_name_prefix="atriva-open")
        self._open: dict[tuple[str, str], OpenModel] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._told = Table()
        self._switching = asyncio.Lock()
        self._looking_after: asyncio.Task[None] | None = None
        self.table = Table()

    async def switch(self, table: Table) -> dict[Offer, str]:
        """Open what the table has and this has not, then answer by the table.

        Returns:
            Why offers could not be opened here, which are unavailable until they can: try again.
        """
        if self._looking_after is None:
            self._looking_after = asyncio.create_task(self._look_after())
        async with self._switching:
            self._told = table
            return await self._go_over()

    async def _go_over(self) -> dict[Offer, str]:
        table = self._told
        wanted = {(offer.name, offer.version): offer for offer in table.offers if offer.is_ready}
        opened = {
            key: here
            for key, here in self._open.items()
            if key in wanted and here.is_load_of(wanted[key]) and here.model.is_loaded
        }
        fresh = [offer for key, offer in wanted.items() if key not in opened]
        results = await asyncio.gather(*map(self._opened, fresh), return_exceptions=True)
        failures: dict[Offer, str] = {}
        for offer, result in zip(fresh, results, strict=True):
            if isinstance(result, Exception):  # whatever it is, it keeps no other model away
                failures[offer] = str(result)
            elif isinstance(result, BaseException):
                raise result
            else:
                opened[offer.name, offer.version] = OpenModel(offer, result)
        gone = [each for key, each in self._open.items() if opened.get(key) is not each]
        for key, each in opened.items():
            each.offer = wanted[key]
        self._open, self.table = opened, table.without(failures)
        for each in gone:
            task = asyncio.create_task(self._close(each))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return failures

    async def _look_after(self) -> None:
        """Open again what is lost here for longer than the catalog takes to say it is lost."""
        before: set[OpenModel] = set()
        failures: dict[Offer, str] = {}
        while True:
            await asyncio.sleep(_LOOK_AFTER_EVERY_S)
            async with self._switching:
                lost = {each for each in self._open.values() if not each.model.is_loaded}
                if lost & before or failures:
                    failures = await self._go_over()
                    for offer, reason in failures.items():
                        _logger.warning("cannot open model %s again: %s", offer.name, reason)
                before = lost

    async def _opened(self, offer: Offer) -> Model:
        lost = self._open.get((offer.name, offer.version))
        if lost is not None and lost.is_load_of(offer):
            await self._close(lost)  # before: the router may count both as one
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._open_model, offer)

    def _open_model(self, offer: Offer) -> Model:
        assert offer.origin is not None, "only offers that are ready are opened"  # noqa: S101
        model = self._runtime.open_model(offer.origin)
        if not model.is_loaded:  # this process has heard only meanwhile that the router is gone
            model.close()
            raise ModelNotLoadedError(offer.name, ())
        return model

    def find(self, name: str, version: str = "") -> OpenModel:
        """Return what answers for a model; without a version, its highest.

        Raises:
            UnknownModelError: there is no such model or version.
            ModelUnavailableError: it cannot answer now.
        """
        offer = self.table.find(name, version)
        found = self._open[offer.name, offer.version]
        if not found.model.is_loaded:
            raise ModelUnavailableError(name, version, "unavailable", "the cluster has lost it")
        return found

    @property
    def tallies(self) -> Mapping[tuple[str, str], Tally]:
        """What was answered here, by name and version."""
        return {
            key: replace(each.tally, compute_ns=int(each.model.service_time_s * 1e9))
            for key, each in self._open.items()
        }

    @property
    def opened(self) -> Sequence[OpenModel]:
        """Every version that is open."""
        return tuple(self._open.values())

    async def close(self) -> None:
        """Answer what runs, then close every model."""
        if self._looking_after is not None:
            self._looking_after.cancel()
        gone, self._open, self.table = list(self._open.values()), {}, Table()
        await asyncio.gather(*(self._close(each) for each in gone), *self._closing)
        self._threads.shutdown()

    async def _close(self, each: OpenModel) -> None:
        while each.users:
            each.is_idle.clear()
            await each.is_idle.wait()
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, each.model.close)
        except RuntimeError:  # the threads end with the ingress, which closes models too
            pass
        except InferenceRuntimeError as error:  # with its router everything of it is gone
            _logger.info("model %s could not be given back: %s", each.offer.name, error)


def priority_of(level: int) -> Priority:
    """Return the priority that a client means, as with Triton's three levels: 1 is the highest.

    0, and a request that says nothing, is the one in the middle.
    """
    if level == 1:
        return Priority.HIGH
    return Priority.LOW if level > _MEDIUM_LEVEL else Priority.MEDIUM


def _wanted_ports(ports: Sequence[Port], request: InferRequest) -> list[tuple[str, Port]]:
    """Return the outputs that are wanted, each under the name that the client used."""
    if not request.outputs:
        return [(port.name, port) for port in ports]
    by_name = {name: port for port in ports for name in port.names}
    unknown = [each.name for each in request.outputs if each.name not in by_name]
    if unknown:
        names = ", ".join(repr(port.name) for port in ports)
        raise BadRequestError(f"the model has no output {unknown[0]!r}; its outputs are {names}")
    return [(each.name, by_name[each.name]) for each in request.outputs]


def _fitted(ports: Sequence[Port], inputs: Sequence[InputTensor]) -> dict[str, Tensor]:
    """Return tensors in the model's own layout; their element types have to be the model's."""
    by_name = {name: port for port in ports for name in port.names}
    for each in inputs:
        port = by_name.get(each.name)
        if port is not None and _kind(dtype_of(each.datatype)) != _kind(port.dtype):
            wanted = datatype_of(port.dtype)
            raise InputDtypeError(
                port.name, each.datatype, wanted, f"send {wanted}, nothing is converted here"
            )
    return {each.name: Tensor.from_numpy(each.array, layout=None) for each in inputs}


def _kind(dtype: np.dtype[Any]) -> tuple[str, int]:
    return ("U", 0) if dtype.kind in "OSU" else (dtype.kind, dtype.itemsize)


def _sample_count(ports: Sequence[Port], inputs: Mapping[str, Tensor]) -> int:
    """How many samples a request holds: its first dimension, where the model leaves that open."""
    if not ports or not ports[0].shape or ports[0].shape[0] != -1:
        return 1
    tensor = next((inputs[name] for name in ports[0].names if name in inputs), None)
    if tensor is None:
        return 1
    return tensor.shape[0]
