"""The client's half of balancing: keep requests here until a replica has room for them."""

from __future__ import annotations

import copy
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import ray

from atriva_inference.binding import BoundInputs
from atriva_inference.errors import ClosedError, InferenceRuntimeError
from atriva_inference.executor import Outputs
from atriva_inference.profiling import Profile
from atriva_inference.shape_cache import ShapeCacheInfo
from atriva_ray.errors import ClusterError, ModelNotLoadedError, ReplicaLostError
from atriva_ray.ray_errors import translated
from atriva_ray.replica import Answer, ReplicaInfo
from atriva_ray.router import MAX_ATTEMPTS, ModelRoutes
from atriva_ray.routing.balance import Balancer, Route
from atriva_ray.transport import ActorCarrier, Carrier, own

__all__ = ["Dispatcher", "ReplicaUse"]

_logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_PATIENCE_S = 1.0
"""How often a close that waits looks whether Ray is still there."""

Post = Callable[[Callable[[], None]], None]
"""Runs a function soon, on a thread on which it may call Ray."""


@dataclass(slots=True, eq=False)
class _Request:
    bound: BoundInputs
    has_callbacks: bool
    answer: Future[Outputs] = field(default_factory=Future)
    attempts: int = 0


@dataclass(slots=True)
class ReplicaUse:
    """What this client did with one replica.

    Attributes:
        route: its id, ``node/device``, slots and rank.
        info: what it says of itself: threads, process, node.
        answered: requests of this client that it has answered.
    """

    route: Route
    info: ReplicaInfo
    answered: int = 0


class Dispatcher:
    """Runs one model's requests on its replicas; the cluster's `Executor`. Thread-safe.

    A request stays here until a replica has room, and then goes to the one that is expected to
    answer first. One whose replica dies is sent to another, at most `MAX_ATTEMPTS` times in all.
    """

    def __init__(
        self,
        model_name: str,
        routes: ModelRoutes,
        post: Post,
        post_answer: Post,
        on_lost: Callable[[str], None],
        on_close: Callable[[], None],
        make_carrier: Callable[[Any], Carrier] = ActorCarrier,
    ) -> None:
        self.key = routes.key
        self.generation = routes.generation
        self.version = routes.version
        self._model_name = model_name
        self._post = post
        self._post_answer = post_answer
        self._on_lost = on_lost
        self._on_close = on_close
        self._make_carrier = make_carrier
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._balancer = Balancer()
        self._carriers: dict[str, Carrier] = {}
        self._uses: dict[str, ReplicaUse] = {}
        self._refusal: ClosedError | ModelNotLoadedError | None = None
        self._sent: set[_Request] = set()
        self._take_over(routes)
        first = routes.replicas[0][1]
        self.inputs = first.inputs
        self.outputs = first.outputs

    # -- what is known of the model ------------------------------------------------------------

    @property
    def device(self) -> str:
        """The device of the replica whose device AUTO prefers most."""
        with self._changed:
            best = min(self._uses.values(), key=lambda use: use.route.rank)
            return best.info.device

    @property
    def execution_devices(self) -> tuple[str, ...]:
        """The devices that really execute, on any replica."""
        with self._changed:
            infos = [use.info for use in self._uses.values()]
        return tuple(dict.fromkeys(name for info in infos for name in info.execution_devices))

    @property
    def parallelism(self) -> int:
        """How many requests run at once on all replicas together."""
        with self._changed:
            return max(1, self._balancer.parallelism)

    @property
    def replicas(self) -> tuple[ReplicaUse, ...]:
        """The replicas in use, with the requests of this client that each has answered."""
        with self._changed:
            return tuple(replace(use) for use in self._uses.values())

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return self._refusal is None

    # -- requests ------------------------------------------------------------------------------

    def run(self, bound: BoundInputs) -> Outputs:
        """Run one request and block for its answer."""
        return self._queue(_Request(bound, has_callbacks=False)).result()

    def submit(self, bound: BoundInputs) -> Future[Outputs]:
        """Queue one request and send what can be sent.

        The future's callbacks run on threads of their own, so they may run requests themselves.
        """
        return self._queue(_Request(bound, has_callbacks=True))

    def _queue(self, request: _Request) -> Future[Outputs]:
        with self._changed:
            self._check_open()
            self._waiting.append(request)
        self._pump()
        return request.answer

    def profile(self, bound: BoundInputs | None, runs: int) -> Profile:
        """Profile the model on the replica whose device AUTO prefers most."""
        with self._changed:
            self._check_open()
            best = min(self._uses.values(), key=lambda use: use.route.rank)
            carrier = self._carriers[best.route.replica_id]
        return self._result(carrier.profile(bound, runs))

    def shape_cache_info(self) -> ShapeCacheInfo:
        """Return the state of all replicas' shape caches together."""
        with self._changed:
            self._check_open()
            carriers = list(self._carriers.values())
        infos = [self._result(carrier.shape_cache_info()) for carrier in carriers]
        return sum(infos[1:], start=infos[0])

    def close(self) -> None:
        """Refuse what waits, finish what was sent, release the model."""
        with self._changed:
            if isinstance(self._refusal, ClosedError):
                return
            self._refusal = ClosedError(f"model {self._model_name!r}")
            waiting = list(self._waiting)
            self._waiting.clear()
            refusal = self._refusal
        for request in waiting:
            self._finish(request, partial(_settle, request.answer, refusal))
        with self._changed:
            while self._sent and not self._changed.wait_for(lambda: not self._sent, _PATIENCE_S):
                if not ray.is_initialized():  # nobody is left who could answer
                    break
            lost = list(self._sent)
            self._sent.clear()
            self._carriers.clear()
        for request in lost:
            gone = ClusterError(self._model_name, "Ray was shut down before it answered")
            self._finish(request, partial(_settle, request.answer, gone))
        self._on_close()

    # -- events --------------------------------------------------------------------------------

    def set_routes(self, routes: ModelRoutes | None) -> None:
        """Take over the router's newest answer; None: the model was unloaded."""
        if routes is not None:
            with self._changed:
                self._take_over(routes)
            self._pump()
            return
        with self._changed:
            if self._refusal is not None:
                return
            self._refusal = gone = ModelNotLoadedError(self._model_name, ())
            waiting = list(self._waiting)
            self._waiting.clear()
        for request in waiting:
            self._finish(request, partial(_settle, request.answer, gone))

    def _pump(self) -> None:
        """Send requests while there are some and a replica has room."""
        while True:
            with self._changed:
                if not self._waiting:
                    return
                replica_id = self._balancer.choose()
                if replica_id is None:
                    return
                request = self._waiting.popleft()
                if request.attempts == 0 and not request.answer.set_running_or_notify_cancel():
                    continue
                self._balancer.started(replica_id)
                self._sent.add(request)
                request.attempts += 1
                carrier = self._carriers[replica_id]
            try:
                reply = carrier.send(request.bound)
            except Exception as error:  # noqa: BLE001 - the request fails, the dispatcher goes on
                reply = Future()
                reply.set_exception(error)
            reply.add_done_callback(partial(self._on_reply, request, replica_id))

    def _on_reply(self, request: _Request, replica_id: str, reply: Future[Answer]) -> None:
        self._post(partial(self._take_reply, request, replica_id, reply))

    def _take_reply(self, request: _Request, replica_id: str, reply: Future[Answer]) -> None:
        with self._changed:
            if request not in self._sent:  # given up when Ray was shut down
                return
            self._sent.discard(request)
        error = reply.exception()
        if error is None:
            answer = reply.result()
            with self._changed:
                self._balancer.finished(replica_id, answer.service_time_s, answer.queue_len)
                if replica_id in self._uses:
                    self._uses[replica_id].answered += 1
            self._finish(request, partial(_answer, request.answer, answer.outputs))
        else:
            self._take_failure(request, replica_id, translated(error, self._model_name))
        with self._changed:
            self._changed.notify_all()
        self._pump()

    def _take_failure(self, request: _Request, replica_id: str, error: BaseException) -> None:
        if not isinstance(error, ReplicaLostError):
            with self._changed:
                self._balancer.finished(replica_id)
            self._finish(request, partial(_settle, request.answer, error))
            return
        self._on_lost(replica_id)
        with self._changed:
            self._balancer.forget(replica_id)
            if request.attempts < MAX_ATTEMPTS and self._refusal is None:
                self._waiting.appendleft(request)
                return
        refusal = self._refusal
        lost: Exception = ReplicaLostError(self._model_name, request.attempts, error.reason)
        if refusal is not None:
            lost = refusal
        self._finish(request, partial(_settle, request.answer, lost))

    def _finish(self, request: _Request, settle: Callable[[], None]) -> None:
        """Settle a request where its callbacks cannot hold up other answers."""
        if request.has_callbacks:
            self._post_answer(settle)
        else:
            settle()

    def _take_over(self, routes: ModelRoutes) -> None:
        gone = self._balancer.set_routes(route for route, _, _ in routes.replicas)
        for route, info, actor in routes.replicas:
            if route.replica_id not in self._carriers:
                self._carriers[route.replica_id] = self._make_carrier(actor)
                self._uses[route.replica_id] = ReplicaUse(route, info)
        if routes.replicas:  # while all of them restart, the last ones go on describing the model
            current = {route.replica_id for route, _, _ in routes.replicas}
            for replica_id in set(self._uses) - current:
                del self._carriers[replica_id], self._uses[replica_id]
        if gone:
            _logger.info("model %s lost replicas %s", self._model_name, sorted(gone))

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise _copy(self._refusal)
        if not ray.is_initialized():
            raise ClusterError(self._model_name, "Ray was shut down; make a new runtime")

    def _result(self, reply: Future[Value]) -> Value:
        try:
            return reply.result()
        except Exception as error:  # noqa: BLE001 - the table knows which ones are Ray's
            raise translated(error, self._model_name) from None


def _answer(answer: Future[Outputs], outputs: Mapping[str, Any]) -> None:
    try:
        owned = own(outputs)
    except MemoryError as error:
        answer.set_exception(error)
    else:
        answer.set_result(owned)


def _settle(answer: Future[Outputs], error: BaseException) -> None:
    """Fail a request, unless its caller has cancelled it."""
    if answer.running() or answer.set_running_or_notify_cancel():
        answer.set_exception(_copy(error) if isinstance(error, InferenceRuntimeError) else error)


def _copy(error: InferenceRuntimeError) -> InferenceRuntimeError:
    """Return an equal error without a traceback, which would keep every caller's frames alive."""
    copied: InferenceRuntimeError = copy.copy(error)
    return copied.with_traceback(None)
