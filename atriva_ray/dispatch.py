"""The client's half of balancing: keep requests here until a replica has room for them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, TypeVar

import ray

from atriva_inference.admission import DEFAULT_MAX_WAITING
from atriva_inference.answer import AnswerFuture
from atriva_inference.binding import BoundInputs
from atriva_inference.errors import ClosedError, InferenceRuntimeError
from atriva_inference.executor import Outputs
from atriva_inference.profiling import Profile
from atriva_inference.shape_cache import ShapeCacheInfo
from atriva_inference.terms import USUAL, Terms
from atriva_ray.cluster_session import ClusterSession, lost_session, open_session
from atriva_ray.errors import ClusterError, ModelNotLoadedError, ReplicaLostError
from atriva_ray.lanes.client_lane import Reply
from atriva_ray.lanes.session_frames import SessionCall
from atriva_ray.line import Line
from atriva_ray.ray_errors import translated, without_traceback
from atriva_ray.replica import ReplicaInfo
from atriva_ray.replica_use import ReplicaUse
from atriva_ray.retries import Retries
from atriva_ray.route_table import ModelRoutes
from atriva_ray.router import MAX_ATTEMPTS
from atriva_ray.routing.auto import AutoOptions
from atriva_ray.routing.balance import Route
from atriva_ray.routing.schedules import make_schedule
from atriva_ray.transport import Connector, Post
from atriva_ray.waiting import Request, Waiting, refuse

__all__ = ["Dispatcher", "ReplicaUse"]

_logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_WAITED = "while it waited for a replica"
_SENT = "after it was sent to a replica"

_Request = Request[Line]
_WAKE_TIMEOUT_S = 60.0
"""How long what is no request waits for a replica, where there is none."""

_PATIENCE_S = 1.0
"""How often a close that waits looks whether Ray is still there."""


class Dispatcher:
    """Runs one model's requests on its replicas; the cluster's `Executor`. Thread-safe.

    A request stays here until a replica has room, and then goes to the one that is expected to
    answer first. One whose replica dies, or whose device fails, is sent to another, at most
    `MAX_ATTEMPTS` times in all.
    """

    def __init__(
        self,
        model_name: str,
        routes: ModelRoutes,
        connector: Connector,
        *,
        post: Post,
        post_answer: Post,
        auto: AutoOptions,
        on_lost: Callable[[str], None],
        on_failed: Callable[..., int | None],
        on_close: Callable[[], None],
        slack_s: float = 0.0,
        on_wanted: Callable[[], None] = lambda: None,
        max_waiting: int | None = DEFAULT_MAX_WAITING,
    ) -> None:
        self.key = routes.key
        self.generation = routes.generation
        self.version = routes.version
        self._model_name = model_name
        self._connector = connector
        self._post = post
        self._post_answer = post_answer
        self._on_lost = on_lost
        self._on_close = on_close
        self._on_wanted = on_wanted
        self._has_called = False
        self._changed = threading.Condition()
        self._connecting = threading.Lock()
        self._balancer = make_schedule(auto.schedule_policy, slack_s)
        self._waiting: Waiting[Line] = Waiting(
            model_name, max_waiting, self._balancer.wait_s, self._expire
        )
        self._retries: Retries[_Request] = Retries(
            MAX_ATTEMPTS if auto.runtime_fallback else 1,
            self._changed,
            post,
            partial(on_failed, routes.key),
            lambda request, error: refuse([request], error),
        )
        self._refusals: Mapping[str, str] = {}
        self._service_time_s = 0.0
        self._lines: dict[str, Line] = {}
        self._refusal: ClosedError | ModelNotLoadedError | None = None
        self._sent: set[_Request] = set()
        self._retired: set[Line] = set()
        self._session_numbers = count(1)
        first_route, self._described, _ = routes.replicas[0]
        self._last_uses = [ReplicaUse(first_route, self._described, "none")]
        self._take_over(routes)
        self.inputs = self._described.inputs
        self.outputs = self._described.outputs
        self.variables = self._described.variables

    # -- what is known of the model ------------------------------------------------------------

    @property
    def device(self) -> str:
        """The device of the replica whose device AUTO prefers most."""
        return min(self.replicas, key=lambda use: use.route.rank).info.device

    @property
    def execution_devices(self) -> tuple[str, ...]:
        """The devices that really execute, on any replica."""
        return tuple(
            dict.fromkeys(name for use in self.replicas for name in use.info.execution_devices)
        )

    @property
    def parallelism(self) -> int:
        """How many requests run at once on all replicas together."""
        with self._changed:
            return max(1, self._balancer.parallelism)

    @property
    def replicas(self) -> tuple[ReplicaUse, ...]:
        """The replicas in use, with the requests of this client that each has answered.

        While all of them restart, the last ones go on describing the model.
        """
        with self._changed:
            if self._lines:
                self._last_uses = [line.use for line in self._lines.values()]
            return tuple(replace(use) for use in self._last_uses)

    @property
    def waiting(self) -> int:
        """Requests that have no answer yet."""
        with self._changed:
            return len(self._waiting) + len(self._retries) + len(self._sent)

    @property
    def lasts_s(self) -> float | None:
        """How long every replica that has requests of this client stays busy; None if none has."""
        with self._changed:
            return self._balancer.lasts_s

    @property
    def service_time_s(self) -> float:
        """How long devices have run requests of this client, all in all."""
        return self._service_time_s

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return self._refusal is None

    # -- requests ------------------------------------------------------------------------------

    def run(self, bound: BoundInputs, *, terms: Terms = USUAL) -> Outputs:
        """Run one request and block for its answer, or until its deadline has passed."""
        answer: AnswerFuture[Outputs] = AnswerFuture(self._post_answer)
        request: _Request = Request(bound, _as_they_are, answer, terms)
        try:
            sends = self._queue(request)
            if sends and sends[-1][1][-1] is request:
                line, requests = sends.pop()
                self._send(sends)
                # One that failed goes on elsewhere, and its answer comes on another line.
                line.carrier.exchange(
                    requests,
                    lambda: answer.done() or request.line is not line,
                    terms.deadline_s,
                )
            else:
                self._send(sends)
        except KeyboardInterrupt:  # anywhere, between any two steps
            self._start_over(request)
            raise
        return answer.result()

    def submit(
        self, bound: BoundInputs, wrap: Callable[[Outputs], Value], *, terms: Terms = USUAL
    ) -> AnswerFuture[Value]:
        """Queue one request and send what can be sent.

        The future's callbacks run on threads of their own, so they may run requests themselves.
        """
        answer: AnswerFuture[Value] = AnswerFuture(self._post_answer)
        request: _Request = Request(bound, wrap, answer, terms)
        answer.on_cancel = partial(self._give_up, request)
        self._send(self._queue(request))
        return answer

    def _queue(self, request: _Request) -> list[tuple[Line, list[_Request]]]:
        with self._changed:
            self._check_open()
            self._waiting.put(request)
            sends = self._next_sends()
            self._call_if_stuck()
            if self._waiting and not sends:
                self._waiting.check_room(request)
            return sends

    def _call_if_stuck(self, *, is_news: bool = False) -> None:
        """Tell the router that requests wait and no replica is there: once, however many wait."""
        if self._waiting and not self._lines and (is_news or not self._has_called):
            self._has_called = True
            self._post(self._on_wanted)

    def _give_up(self, request: _Request) -> bool:
        """Take back a request that nobody waits for any more; returns whether it was sent."""
        with self._changed:
            self._waiting.remove(request)
            line = request.line if request in self._sent else None
            self._changed.notify_all()
        if request.ticket is not None:
            request.ticket.forget()
        if line is None:
            return False
        line.carrier.cancel(request)
        return True

    def _expire(self, requests: list[_Request]) -> None:
        for request in requests:
            stage = _SENT if request in self._sent else _WAITED
            request.fail(request.too_late(self._model_name, stage))
            self._give_up(request)

    # -- sessions ------------------------------------------------------------------------------

    def open_session(self) -> ClusterSession[Line]:
        """Open a session where it is answered soonest; blocks while no replica is ready."""
        with self._changed:
            self._check_open()
            while not self._lines:
                self._post(self._on_wanted)  # it may have none because nobody asked for long
                self._changed.wait(_PATIENCE_S)
                self._check_open()
            lines = self._usable()
            service_times_s = self._balancer.service_times_s
        number = next(self._session_numbers)
        return open_session(self, self._model_name, number, lines, service_times_s)

    def make_answer(self) -> AnswerFuture[Any]:
        """Return a future whose callbacks may block."""
        return AnswerFuture(self._post_answer)

    def ask(
        self,
        line: Line,
        session: int,
        work: BoundInputs | SessionCall,
        answer: AnswerFuture[Any],
        wrap: Callable[[Outputs], Any] | None = None,
        *,
        is_waited_for: bool = False,
    ) -> bool:
        """Send what a session asks for to its replica, and to no other; see `Desk.ask`."""
        call, bound = (work, _NO_INPUTS) if isinstance(work, SessionCall) else (None, work)
        request: _Request = Request(
            bound, wrap or _as_they_are, answer, session=session, call=call, line=line
        )
        with self._changed:
            self._check_open()
            if line.is_lost or line.is_over:
                raise self._lost_session(request)
            if answer.done():
                return False
            request.sent_s = time.monotonic()
            if not line.is_retired:
                self._balancer.started(line.route.replica_id, request.sent_s)
            line.under_way += 1
            line.newest = None  # the last one sent there is not to be taken back now
            self._sent.add(request)
        if not is_waited_for:
            line.carrier.send([request])
            return True
        try:
            line.carrier.exchange([request], answer.done)
        except KeyboardInterrupt:  # as in `run`
            self._start_over(request)
            raise
        return True

    def hold(self, line: Line, count: int) -> None:
        """Keep a line for one session more (1) or less (-1), also if others do not use it now."""
        with self._changed:
            line.sessions += count
            is_over = line.is_over
            if is_over:
                self._retired.discard(line)
        if is_over:
            self._post(line.carrier.close)

    def _lost_session(self, request: _Request) -> InferenceRuntimeError:
        line = request.line
        if not ray.is_initialized() or line is None:
            return self._why_lost(0, "")
        return lost_session(self._model_name, request.session, line.route, line.end)

    def profile(self, bound: BoundInputs | None, runs: int) -> Profile:
        """Profile the model on the replica whose device AUTO prefers most."""
        with self._changed:
            self._check_open()
            line = min(self._usable(), key=lambda line: line.route.rank)
        arrays = None if bound is None else bound.arrays
        profile: Future[Profile] = line.actor.profile.remote(arrays, runs).future()
        return self._result(profile)

    def shape_cache_info(self) -> ShapeCacheInfo:
        """Return the state of all replicas' shape caches together."""
        with self._changed:
            self._check_open()
            lines = self._usable()
        asked: list[Future[ShapeCacheInfo]] = [
            line.actor.shape_cache_info.remote().future() for line in lines
        ]
        first, *others = [self._result(each) for each in asked]
        return sum(others, start=first)

    def _usable(self) -> list[Line]:
        if not self._lines:
            self._post(self._on_wanted)
            self._changed.wait_for(lambda: self._lines or self._refusal, _WAKE_TIMEOUT_S)
            self._check_open()
        if not self._lines:
            raise ReplicaLostError(self._model_name, 1, "no replica is ready now")
        return list(self._lines.values())

    def close(self) -> None:
        """Refuse what waits, finish what was sent, release the model."""
        with self._changed:
            if isinstance(self._refusal, ClosedError):
                return
            self._refusal = ClosedError(f"model {self._model_name!r}")
            waiting = self._take_waiting()
            refusal = self._refusal
        refuse(waiting, refusal)
        with self._changed:
            while not self._changed.wait_for(self._has_answered, _PATIENCE_S):
                if not ray.is_initialized():  # nobody is left who could answer
                    break
            lost = list(self._sent)
            self._sent.clear()
        self._waiting.close()
        refuse(lost, ClusterError(self._model_name, "Ray was shut down before it answered"))
        with self._connecting, self._changed:
            lines, self._lines = self._lines, {}
            self._last_uses = [line.use for line in lines.values()] or self._last_uses
            retired, self._retired = self._retired, set()
        for line in (*lines.values(), *retired):
            line.carrier.close()
        self._on_close()

    def _has_answered(self) -> bool:
        return not any(request.is_wanted() for request in list(self._sent))

    # -- events --------------------------------------------------------------------------------

    def set_routes(self, routes: ModelRoutes | None) -> None:
        """Take over the router's newest answer; None: the model was unloaded."""
        if routes is not None:
            self._take_over(routes)
            return
        with self._changed:
            if self._refusal is not None:
                return
            self._refusal = gone = ModelNotLoadedError(self._model_name, ())
            waiting = self._take_waiting()
        refuse(waiting, gone)

    def _take_waiting(self) -> list[_Request]:
        return [*self._waiting.clear(), *self._retries.clear()]

    def _next_sends(self) -> list[tuple[Line, list[_Request]]]:
        """Bind waiting requests to replicas that have room; call it under the lock.

        The replica that got the last request comes last.
        """
        sends: dict[str, list[_Request]] = {}
        waiting = self._waiting
        now_s = time.monotonic()
        if self._retries:
            for other, request in self._retries.sends(self._balancer.in_flight):
                if request.is_wanted():
                    self._bind(request, other, now_s, sends)
        while waiting and (replica_id := self._balancer.choose(now_s)) is not None:
            request = waiting.take()
            if request.is_wanted():
                self._bind(request, replica_id, now_s, sends)
        if not waiting:
            self._move(sends, now_s)
        return [(self._lines[replica_id], requests) for replica_id, requests in sends.items()]

    def _bind(
        self,
        request: _Request,
        replica_id: str,
        now_s: float,
        sends: dict[str, list[_Request]],
    ) -> None:
        self._balancer.started(replica_id, now_s)
        self._sent.add(request)
        request.attempts += 1
        self._put_on(request, replica_id, now_s, sends)

    def _put_on(
        self, request: _Request, replica_id: str, now_s: float, sends: dict[str, list[_Request]]
    ) -> None:
        line = request.line = self._lines[replica_id]
        line.under_way += 1
        line.newest = request
        request.sent_s = now_s
        requests = sends.pop(replica_id, [])
        requests.append(request)
        sends[replica_id] = requests

    def _move(self, sends: dict[str, list[_Request]], now_s: float) -> None:
        """Send what waits at one replica to another that has fallen idle."""
        while (move := self._balancer.steal(now_s)) is not None:
            line, new_id = self._lines[move[0]], move[1]
            request = line.newest
            if request is None or request.line is not line or not line.has_lane:
                return
            if request.failures:  # it may be on its way from there
                return
            if request not in self._sent or not request.is_wanted():
                return
            self._balancer.moved(*move, now_s)
            line.under_way -= 1
            line.newest = None
            request.left = line
            self._put_on(request, new_id, now_s, sends)

    def _send(self, sends: Iterable[tuple[Line, list[_Request]]]) -> None:
        for line, requests in sends:
            line.carrier.send(requests)
            for request in requests:
                if request.left is not None:
                    left, request.left = request.left, None
                    left.carrier.cancel(request)

    def _take_replies(self, line: Line, replies: list[Reply[_Request]]) -> None:
        """Settle requests, and send the next ones before, so that the replica has no pause."""
        with self._changed:
            # One that was sent again elsewhere, or given up, has another line or is no more sent.
            replies = [
                reply
                for reply in replies
                if reply.request.line is line and reply.request in self._sent
            ]
            now_s = time.monotonic()
            for reply in () if line.is_retired else replies:
                time_s = None if reply.error is not None else reply.service_time_s
                self._balancer.finished(
                    line.route.replica_id,
                    now_s,
                    time_s,
                    reply.queue_len,
                    reply.others,
                    None if reply.request.call else now_s - reply.request.sent_s,
                    reply.wanted,
                )
            self._service_time_s += sum(
                reply.service_time_s or 0.0 for reply in replies if reply.error is None
            )
            line.use.answered += sum(reply.request.call is None for reply in replies)
            line.under_way -= len(replies)
            is_over = line.is_over
            if is_over:
                self._retired.discard(line)
            replies = [reply for reply in replies if not self._goes_on(line, reply)]
            sends = self._next_sends()
        self._send(sends)
        for reply in replies:
            reply.request.settle(self._model_name, reply.outputs, reply.error)
            self._sent.discard(reply.request)
        if is_over:
            self._post(line.carrier.close)
        if self._refusal is not None:
            with self._changed:
                self._changed.notify_all()

    def _goes_on(self, line: Line, reply: Reply[_Request]) -> bool:
        """Whether a request that failed is kept for another replica."""
        request = reply.request
        if reply.error is None:
            if request.failures:
                self._retries.worked(request)
            return False
        replica_id = line.route.replica_id
        if request.session or self._refusal is not None or not request.is_wanted():
            return False
        if not self._retries.take(request, replica_id, reply.error):
            return False
        request.line = None
        self._sent.discard(request)
        return True

    def _take_lost(self, line: Line, requests: list[_Request], reason: str) -> None:
        """Send the requests of a carrier that broke elsewhere, and see what became of its end."""
        failed = []
        replica_id = line.route.replica_id
        is_connected = ray.is_initialized()
        with self._changed:
            is_first, line.is_lost = not line.is_lost, True
            if is_first:
                line.end = f"its connection ended ({reason})"
                self._retired.discard(line)
            if self._lines.get(replica_id) is line:
                del self._lines[replica_id]
                self._balancer.forget(replica_id)
            for request in reversed(requests):
                if request.line is not line or request not in self._sent:
                    continue
                self._sent.discard(request)
                may_go_on = not request.session and request.attempts < MAX_ATTEMPTS and is_connected
                if not request.is_wanted():
                    continue
                if may_go_on and self._refusal is None:
                    self._waiting.put_back(request)
                else:
                    failed.append(request)
            sends = self._next_sends()
            self._changed.notify_all()
        self._send(sends)
        for request in failed:
            if request.session:
                why = self._lost_session(request)
            else:
                why = self._why_lost(request.attempts, reason)
            refuse([request], self._refusal or why)
        if is_first:
            _logger.info("model %s lost replica %s: %s", self._model_name, replica_id, reason)
            self._post(partial(self._look_after, line))

    def _why_lost(self, attempts: int, reason: str) -> InferenceRuntimeError:
        if not ray.is_initialized():
            return ClusterError(self._model_name, "Ray was shut down before it answered")
        return ReplicaLostError(self._model_name, attempts, reason)

    def _look_after(self, line: Line) -> None:
        """Tell the router, and go on with a replica of which only the connection was lost."""
        with self._connecting:  # it may have broken before it was all there
            line.carrier.close()
        if ray.is_initialized():
            self._on_lost(line.route.replica_id)
            if not line.is_retired:
                self._connect([(line.route, line.info, line.actor)])
            return
        with self._changed:  # nobody will come back
            waiting = self._take_waiting()
        refuse(waiting, self._why_lost(0, ""))

    def _start_over(self, interrupted: _Request) -> None:
        """Open every line anew after an interrupt, which may have come between any two steps.

        What was under way is sent again, apart from the request whose caller has gone.
        """
        with self._changed:
            lines = [*self._lines.values(), *self._retired]
            self._lines.clear()
            self._retired.clear()
            in_sessions = [request for request in self._sent if request.session]
            self._sent.difference_update(in_sessions)
            for line in lines:
                line.is_lost = True
                line.end = "the program was interrupted, and its connections were made anew"
                if not line.is_retired:
                    self._balancer.forget(line.route.replica_id)
            for request in list(self._sent):
                if request.is_wanted() and request is not interrupted:
                    request.attempts -= 1
                    self._waiting.put_back(request)
            self._sent.clear()
            self._waiting.remove(interrupted)
            for request in self._retries.clear():
                if request is not interrupted:
                    self._waiting.put_back(request)
            self._changed.notify_all()
        for line in lines:
            line.carrier.close()
        for request in in_sessions:
            request.fail(self._lost_session(request))
        again = [(each.route, each.info, each.actor) for each in lines if not each.is_retired]
        self._post(partial(self._connect, again))

    def _take_over(self, routes: ModelRoutes) -> None:
        wanted = {route.replica_id for route, _, _ in routes.replicas}
        with self._changed:
            gone = [self._lines.pop(each) for each in set(self._lines) - wanted]
            if gone and not self._lines:
                self._last_uses = [line.use for line in gone]
            for line in gone:
                self._balancer.forget(line.route.replica_id)
                line.is_retired = True
            for route, _, _ in routes.replicas:
                self._balancer.update(route)
            if not wanted:
                self._call_if_stuck(is_news=True)
            idle = [line for line in gone if line.is_over]
            self._retired.update(line for line in gone if not line.is_over)
        for line in idle:  # the others when nothing will come on them, and no session needs them
            self._post(line.carrier.close)
        self._connect(routes.replicas)
        self._note(routes)

    def _note(self, routes: ModelRoutes) -> None:
        """Say which devices do not run the model, and fail what none will run."""
        for label, reason in routes.refusals.items():
            if self._refusals.get(label) != reason:
                _logger.warning("%s does not run %s: %s", label, self._model_name, reason)
        self._refusals = routes.refusals
        self._retries.routes_came(routes.version, expects_more=routes.expects_more)

    def _connect(self, replicas: Iterable[tuple[Route, ReplicaInfo, Any]]) -> None:
        """Open carriers to replicas that have none; blocks while they connect."""
        with self._connecting:
            for route, info, actor in replicas:
                replica_id = route.replica_id
                if replica_id in self._lines or self._refusal is not None:
                    continue
                line = Line(route, info, actor)
                try:
                    line.carrier = self._connector.connect(
                        self._model_name,
                        info,
                        actor,
                        partial(self._take_replies, line),
                        partial(self._take_lost, line),
                    )
                except ReplicaLostError as error:
                    _logger.info("replica %s is gone: %s", replica_id, error.reason)
                    continue
                line.use = ReplicaUse(route, info, line.carrier.kind)
                with self._changed:
                    if line.is_lost:  # it broke at once
                        continue
                    self._lines[replica_id] = line
                    self._has_called = False
                    self._changed.notify_all()
                    self._balancer.add(route)
                    sends = self._next_sends()
                    self._changed.notify_all()
                self._send(sends)

    def _check_open(self) -> None:
        if self._refusal is not None:
            raise without_traceback(self._refusal)
        if not ray.is_initialized():
            raise ClusterError(self._model_name, "Ray was shut down; make a new runtime")

    def _result(self, reply: Future[Value]) -> Value:
        try:
            return reply.result()
        except Exception as error:  # noqa: BLE001 - the table knows which ones are Ray's
            raise translated(error, self._model_name) from None


_NO_INPUTS = BoundInputs({})


def _as_they_are(outputs: Outputs) -> Outputs:
    return outputs
