"""`InferenceRuntime` over a Ray cluster: same names, same behaviour as in one process."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import threading
import uuid
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import PurePath
from typing import Any, Self

import numpy.typing as npt
import ray

from atriva_inference.admission import DEFAULT_MAX_WAITING, check_max_waiting
from atriva_inference.backend import backend_names
from atriva_inference.device import Device, DeviceSpec
from atriva_inference.errors import (
    ClosedError,
    ModelNotFoundError,
    OptionError,
    UnknownBackendError,
)
from atriva_inference.model_files import ModelFiles
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_inference.preprocess import Preprocessing, check_preprocessing
from atriva_inference.runtime import check_config
from atriva_inference.tensor import DEFAULT_LAYOUT, Tensor
from atriva_ray.connection import DEFAULT_NAMESPACE, connect
from atriva_ray.counts import check_count, check_idle, check_replicas
from atriva_ray.dispatch import Dispatcher
from atriva_ray.errors import ClusterError, ModelFilesMissingError
from atriva_ray.lanes.loop import LaneLoop
from atriva_ray.model import Model, ModelOrigin
from atriva_ray.model_store import ModelSource, pack
from atriva_ray.posting import post
from atriva_ray.ray_errors import LOST, translated
from atriva_ray.route_table import KnownReplicas, ModelRoutes, RouteTable
from atriva_ray.router_handle import RouterHandle, get_router
from atriva_ray.routing.auto import AutoOptions, ModelPriority, SchedulePolicy
from atriva_ray.routing.messages import ModelRequest
from atriva_ray.transport import Connector

__all__ = ["InferenceRuntime"]

_logger = logging.getLogger(__name__)

_WATCH_TIMEOUT_S = 5.0
_CALLBACK_THREADS = 4
_RETRY_S = 1.0
_MAX_SLACK_S = 1.0


_open_runtimes: weakref.WeakSet[InferenceRuntime] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A program that ends without closing its runtimes releases its models all the same."""
    for runtime in list(_open_runtimes):
        runtime.close()


class InferenceRuntime:
    """Loads models onto the replicas of a Ray cluster and runs them there.

    Close it, or use it as a context manager; that releases the models it loaded. Thread-safe.
    """

    def __init__(
        self,
        backend: str = "openvino",
        *,
        address: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        slack_s: float = 0.0,
    ) -> None:
        """Join a cluster, or start one in this program; logs which.

        Args:
            backend: ``openvino``, ``onnxruntime`` or ``tensorrt``; at least one node must have its
                library.
            address: as for ``ray.init``. None: the cluster this process is in already, else the one
                of ``RAY_ADDRESS``, else one that runs on this machine, else an embedded one.
            namespace: programs in the same namespace share one router, and so their models.
            slack_s: how much later than it could an answer may come, where replicas are kept busy
                all the same. Programs that keep many requests under way save processor time with
                some hundredths of a second: answers are then taken in several at once.

        Raises:
            UnknownBackendError: there is no such backend.
            BackendNotInstalledError: no node has its library.
            OptionError: `slack_s` is negative, or more than a second.
            ClusterError: there is no cluster at `address`.
        """
        if not 0 <= slack_s <= _MAX_SLACK_S:
            raise OptionError("slack_s", str(slack_s), f"seconds from 0 to {_MAX_SLACK_S:g}")
        if backend not in backend_names():
            raise UnknownBackendError(str(backend), backend_names())
        self._backend = backend
        self._namespace = namespace
        self._client_id = uuid.uuid4().hex
        self._models: weakref.WeakSet[Model] = weakref.WeakSet()
        self._dispatchers: dict[str, list[Dispatcher]] = defaultdict(list)
        self._routes_lock = threading.Lock()
        self._newest: tuple[int, dict[str, ModelRoutes]] = (0, {})
        self._known = KnownReplicas()
        self._is_closed = False
        self._slack_s = slack_s
        self._loop = LaneLoop(self._pause_s) if slack_s else LaneLoop()
        self._connection = connect(address)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="atriva-dispatch")
        self._answers = ThreadPoolExecutor(_CALLBACK_THREADS, thread_name_prefix="atriva-callbacks")
        try:
            self._connector = Connector(self._loop, partial(post, self._worker))
            self._router = get_router(namespace)
            self._ask("devices", backend, backend)
        except BaseException:
            self._worker.shutdown()
            self._answers.shutdown()
            self._connection.close()
            raise
        self._watch(0)
        _open_runtimes.add(self)

    @property
    def backend(self) -> str:
        """Name of the backend."""
        return self._backend

    @property
    def cluster(self) -> str:
        """The cluster's address, or ``embedded``."""
        return self._connection.address

    @property
    def router(self) -> RouterHandle:
        """The router's handle; see `atriva_ray.get_router`."""
        return self._router

    def devices(self) -> list[Device]:
        """Return the devices of all nodes (``device.node``), the one AUTO prefers first."""
        self._check_open()
        devices: list[Device] = self._ask("devices", self._backend, self._backend)
        return sorted(devices, key=lambda device: device.preference)

    def load_model(
        self,
        model_path: str | os.PathLike[str],
        device: str = "AUTO",
        *,
        performance_hint: str = PerformanceHint.THROUGHPUT,
        config: Mapping[str, Any] | None = None,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        batching: bool = True,
        startup_fallback: bool = True,
        runtime_fallback: bool = True,
        schedule_policy: str = SchedulePolicy.EARLIEST,
        model_priority: str = ModelPriority.MEDIUM,
        name: str | None = None,
        replicas: int | str | tuple[int, int] = "auto",
        cpus_per_replica: int | None = None,
        reserve_cpus: bool = True,
        max_waiting: int | None = DEFAULT_MAX_WAITING,
        idle_s: float | None = None,
    ) -> Model:
        """Load a model onto the cluster; blocks until its replicas can answer.

        With AUTO, that is as soon as one device can answer, which may be one that only stands in
        for the preferred device while that one compiles; else when all replicas are ready.

        The path may be on this machine or on the nodes; a file that a node lacks is sent to it.
        Programs that ask for the same model in the same way share its replicas.

        Args:
            model_path: as in one process.
            device: as in one process, over the devices of all nodes; ``node/DEVICE`` pins a node.
                A device that stands for several (``CPU`` on three nodes) means all of them.
            performance_hint: as in one process.
            config: as in one process. With AUTO and MULTI, OpenVINO's ENABLE_STARTUP_FALLBACK,
                ENABLE_RUNTIME_FALLBACK, SCHEDULE_POLICY and MODEL_PRIORITY are taken as well, and
                go before the arguments of these names.
            preprocessing: as in one process; the pixels are what travels to the replicas.
            batching: whether requests that wait at a replica may run as one. It is done only where
                the model was seen to treat every row by itself, and as many at once as the device
                was seen to do most with.
            startup_fallback: whether, with AUTO, another device answers while the preferred one
                compiles, and goes on if that one refuses the model.
            runtime_fallback: whether a request that fails on one device is tried on others, and a
                device whose requests work elsewhere is set aside for a while.
            schedule_policy: which replica gets the next request of this program: ``EARLIEST`` that
                which is expected to answer first, ``DEVICE_PRIORITY`` the preferred device until it
                is full, ``ROUND_ROBIN`` each in its turn.
            model_priority: ``HIGH``, ``MEDIUM`` or ``LOW``; AUTO keeps a model off devices that
                serve models of higher priority, where others are left.
            name: what other programs and `unload` know the model by. None: the file's name, and the
                model is shared only with programs that load the same content in the same way.
            replicas: how many; ``auto`` puts one on every device that AUTO chose. If the model is
                loaded already and has fewer, more are started. A pair, ``(1, 8)``: as many as the
                load needs, at least the first and at most the second number.
            cpus_per_replica: CPUs that Ray grants each replica on a processor, and its threads.
                None shares the free CPUs of a node among the model's replicas on it.
            reserve_cpus: whether Ray keeps those CPUs from other tasks. Without, tasks that read
                and decode for the model run beside it, and the operating system shares them out.
            max_waiting: as in one process, counted in this program; requests under way at a replica
                do not wait.
            idle_s: after so many seconds without a request, the replicas end and give back their
                memory; the next request starts them again and waits meanwhile. None: never.

        Raises:
            ModelError: the file is missing, unreadable, no candidate can compile it, or another
                model has the name.
            DeviceNotAvailableError: no node has such a device.
            OptionError: the device, hint, config, preprocessing, count or limit is not acceptable.
        """
        self._check_open()
        check_max_waiting(max_waiting)
        spec = DeviceSpec.parse(device)
        auto, properties = AutoOptions.parse(
            startup_fallback=startup_fallback,
            runtime_fallback=runtime_fallback,
            schedule_policy=schedule_policy,
            model_priority=model_priority,
        ).with_properties(check_config(config), spec)
        least, most = check_replicas(replicas)
        options = CompileOptions(
            PerformanceHint.parse(performance_hint),
            properties,
            preprocessing=check_preprocessing(preprocessing),
            batching=batching,
        )
        source = self._find(model_path)
        model_name = name or PurePath(source.entry).stem
        request = ModelRequest(
            key=name or f"{model_name}@{_digest(source, self._backend, spec, options)}",
            name=model_name,
            path=source.path,
            fingerprint=source.fingerprint,
            backend=self._backend,
            device=spec,
            options=options,
            replica_count=least,
            cpus_per_replica=check_count("cpus_per_replica", cpus_per_replica),
            reserve_cpus=reserve_cpus,
            auto=auto,
            max_count=most,
            idle_s=check_idle(idle_s),
        )
        return self.open_model(
            ModelOrigin(request, source, self._namespace), max_waiting=max_waiting
        )

    def open_model(
        self, origin: ModelOrigin, *, max_waiting: int | None = DEFAULT_MAX_WAITING
    ) -> Model:
        """Load again what this or another program has loaded; blocks like `load_model`.

        Args:
            origin: `Model.origin` of the model, which may have travelled. While it is loaded, its
                replicas are shared, and this machine needs none of its files.
            max_waiting: as for `load_model`.

        Raises:
            ModelError: it is not loaded any more, and cannot be loaded here.
        """
        self._check_open()
        request = origin.request
        routes = self._load(request, origin.source)
        dispatcher = Dispatcher(
            request.name,
            routes,
            self._connector,
            post=partial(post, self._worker),
            post_answer=partial(post, self._answers),
            auto=request.auto,
            on_lost=self._report_lost,
            on_failed=self._report_failed,
            on_close=partial(self._release, request.key, routes.generation),
            slack_s=self._slack_s,
            max_waiting=check_max_waiting(max_waiting),
            on_wanted=partial(self._wake, request.key),
        )
        with self._routes_lock:
            self._dispatchers[request.key].append(dispatcher)
            self._apply(dispatcher)  # it may have been unloaded meanwhile
        model = Model(request.name, dispatcher, origin)
        self._models.add(model)
        return model

    def tensor_from_numpy(
        self,
        array: npt.ArrayLike,
        layout: str | None = DEFAULT_LAYOUT,
        shape_override: Sequence[int] | None = None,
    ) -> Tensor:
        """Wrap an array as a tensor without copying it; see `atriva_inference.Tensor.from_numpy`.

        When it is run, the tensor is fitted to the model as in one process, and copied once more
        on its way to the replica.
        """
        self._check_open()
        return Tensor.from_numpy(array, layout, shape_override)

    def unload(self, name: str) -> None:
        """Take a model away from every program that uses it.

        Requests that already run are answered; using the model afterwards raises
        `ModelNotLoadedError`.

        Raises:
            ModelNotLoadedError: no model of this name is loaded.
        """
        self._check_open()
        self._ask("unload", name, name)

    def close(self) -> None:
        """Release every model that this runtime loaded; safe to call again.

        An embedded cluster ends when the last runtime of this process closes.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            for model in list(self._models):
                model.close()
            if ray.is_initialized():
                self._ask("leave", self._client_id, self._client_id)
        finally:
            self._loop.close()
            for threads in (self._worker, self._answers):
                with suppress(RuntimeError):  # a callback that closes cannot await its own thread
                    threads.shutdown(wait=True)
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<InferenceRuntime backend={self._backend!r} on Ray cluster {self.cluster!r}>"

    # -- talking to the router -----------------------------------------------------------------

    def _find(self, model_path: str | os.PathLike[str]) -> ModelSource:
        try:
            return ModelSource.of(ModelFiles.find(model_path))
        except ModelNotFoundError:
            path = os.fspath(model_path)
            if self._connection.is_embedded or not PurePath(path).is_absolute():
                raise
            source: ModelSource = self._ask("find_model", path, path)
            return source

    def _load(self, request: ModelRequest, source: ModelSource) -> ModelRoutes:
        load = partial(self._ask, "load", request.name, self._client_id, request, source)
        try:
            table: RouteTable = load()
        except ModelFilesMissingError:
            files = ModelFiles.find(source.path)
            archive = ray.put(pack(files))
            self._ask("upload", request.name, source, [archive])
            table = load()
        with self._routes_lock:
            return self._known.complete(table)

    def _release(self, key: str, generation: int) -> None:
        with self._routes_lock:
            self._dispatchers[key] = [each for each in self._dispatchers[key] if each.is_open]
        if ray.is_initialized():
            self._ask("release", key, self._client_id, key, generation)

    def _pause_s(self) -> float:
        """How long answers may be left lying without any replica running out of requests."""
        with self._routes_lock:
            dispatchers = [each for some in self._dispatchers.values() for each in some]
        lasting = [lasts_s for each in dispatchers if (lasts_s := each.lasts_s) is not None]
        return min(self._slack_s, min(lasting, default=0.0) / 2)

    def _report_lost(self, replica_id: str) -> None:
        self._router.report_lost.remote(replica_id)

    def _report_failed(
        self, key: str, replica_id: str, reason: str, *, is_proven: bool
    ) -> int | None:
        report = self._router.report_failed.remote(key, replica_id, reason, is_proven=is_proven)
        try:
            version: int | None = ray.get(report)
        except ray.exceptions.RayError as error:
            raise ClusterError(self.cluster, f"its router does not answer: {error}") from error
        return version

    def _wake(self, key: str) -> None:
        if ray.is_initialized():
            self._router.wake.remote(key)

    def _outstanding(self) -> dict[str, int]:
        """Return how many requests have no answer yet, by key of their model."""
        with self._routes_lock:
            counts = {
                key: sum(each.waiting for each in dispatchers)
                for key, dispatchers in self._dispatchers.items()
            }
        return {key: count for key, count in counts.items() if count}

    def _watch(self, version: int) -> None:
        """Ask for the next change of the routes; the answer comes back through `post`."""
        reply: Future[Any] = self._router.watch.remote(
            self._client_id, version, _WATCH_TIMEOUT_S, self._outstanding()
        ).future()
        reply.add_done_callback(
            lambda done: post(self._worker, partial(self._take_routes, version, done))
        )

    def _take_routes(self, version: int, reply: Future[Any]) -> None:
        if self._is_closed or not ray.is_initialized():
            return
        error = reply.exception()
        if error is None:
            newest, tables = reply.result()
            is_complete = newest == version or self._take_tables(newest, tables)
            self._watch(newest if is_complete else 0)
        elif isinstance(error, ray.exceptions.ActorDiedError):
            self._start_over(error)
        else:
            _logger.warning("the router does not answer: %s", error)
            self._later(partial(self._watch, 0))

    def _take_tables(self, newest: int, tables: Mapping[str, RouteTable]) -> bool:
        """Tell all dispatchers; False where the router has to tell everything again."""
        with self._routes_lock:
            try:
                models = {key: self._known.complete(table) for key, table in tables.items()}
            except KeyError:
                return False
            self._known.keep(models.values())
            self._newest = (newest, models)
            for dispatchers in self._dispatchers.values():
                for dispatcher in dispatchers:
                    self._apply(dispatcher)
        return True

    def _apply(self, dispatcher: Dispatcher) -> None:
        """Tell a dispatcher the newest routes, unless it knows newer ones."""
        newest, models = self._newest
        if newest < dispatcher.version:
            return
        routes = models.get(dispatcher.key)
        is_same = routes is not None and routes.generation == dispatcher.generation
        dispatcher.set_routes(routes if is_same else None)

    def _start_over(self, error: BaseException) -> None:
        """Go on with a new router: replicas end with the old one, so every model is gone."""
        if self._is_closed or not ray.is_initialized():
            return
        with self._routes_lock:
            self._newest = (0, {})
            dispatchers = [each for some in self._dispatchers.values() for each in some]
        _logger.error("the router is gone: %s", error)
        for dispatcher in dispatchers:
            dispatcher.set_routes(None)
        try:
            self._router = get_router(self._namespace)
            self._watch(0)
        except (ray.exceptions.RayError, RuntimeError, ValueError) as failure:
            self._later(partial(self._start_over, failure))

    def _later(self, work: Callable[[], None]) -> None:
        timer = threading.Timer(_RETRY_S, partial(post, self._worker, work))
        timer.daemon = True
        timer.start()

    def _ask(self, method: str, what: str, *arguments: Any) -> Any:
        """Call the router, a new one if the old one died.

        Raises:
            ClusterError: the new one died as well.
            InferenceRuntimeError: what the router raised.
        """
        for is_last in (False, True):
            if not ray.is_initialized():
                raise ClusterError(self.cluster, "Ray was shut down; make a new runtime")
            try:
                return ray.get(getattr(self._router, method).remote(*arguments))
            except LOST as error:
                if is_last:
                    raise ClusterError(self.cluster, f"its router died: {error}") from error
                self._router = get_router(self._namespace)
            except ray.exceptions.RayError as error:
                raise translated(error, what) from None
        raise AssertionError("unreachable")

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("this runtime")


def _digest(source: ModelSource, backend: str, spec: DeviceSpec, options: CompileOptions) -> str:
    config = sorted((key, str(value)) for key, value in options.config.items())
    how = (str(options.hint), config, options.preprocessing, options.batching)
    text = repr((source.fingerprint, backend, spec.text.upper(), how))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
