"""How requests reach a replica and its replies come back: over a lane, else as Ray actor calls."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import ray

from atriva_inference.errors import OptionError
from atriva_inference.executor import Outputs
from atriva_ray.errors import LaneError, ReplicaLostError
from atriva_ray.lanes import urgency
from atriva_ray.lanes.client_lane import ClientLane, LaneClosedError, Reply, Request
from atriva_ray.lanes.connect import CONNECT_TIMEOUT_S, connect_tcp, connect_unix
from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.loop import LaneLoop
from atriva_ray.lanes.server_lane import Ports
from atriva_ray.lanes.wire import Wire
from atriva_ray.ray_errors import translated
from atriva_ray.replica import Answer, ReplicaInfo

__all__ = ["ActorCarrier", "Carrier", "Connector", "LaneCarrier", "Post"]

_logger = logging.getLogger(__name__)

LANES_VARIABLE = "ATRIVA_LANES"
"""Environment variable of a program: ``auto``, ``tcp`` (also on the same host), or ``off``."""

_MODES = ("auto", "tcp", "off")

Post = Callable[[Callable[[], object]], object]
"""Runs a function soon, on a thread on which it may call Ray."""

AnyRequest = TypeVar("AnyRequest", bound=Request)
Request_contra = TypeVar("Request_contra", bound=Request, contravariant=True)
OnReplies = Callable[[list[Reply[AnyRequest]]], None]
OnLost = Callable[[list[AnyRequest], str], None]


class Carrier(Protocol[Request_contra]):
    """A connection from this process to one replica.

    Every request that is sent comes back once: with a reply, or among the lost.
    """

    @property
    def kind(self) -> str:
        """``unix lane``, ``tcp lane`` or ``actor calls``."""
        ...

    def send(self, requests: Sequence[Request_contra]) -> None:
        """Send requests without blocking; never raises."""
        ...

    def exchange(
        self,
        requests: Sequence[Request_contra],
        is_done: Callable[[], bool],
        deadline_s: float | None = None,
    ) -> None:
        """Send requests and maybe take in replies on this thread, until `is_done` at the most."""
        ...

    def cancel(self, request: Request_contra) -> None:
        """Ask the replica not to run a request that nobody waits for; it comes back all the same.

        Never blocks, never raises, and may do nothing.
        """
        ...

    def close(self) -> None:
        """Let go of the connection; nobody waits for replies any more."""
        ...


class LaneCarrier(Generic[AnyRequest]):
    """Carries requests over a lane."""

    def __init__(
        self,
        loop: LaneLoop,
        wire: Wire,
        ports: Ports,
        on_replies: OnReplies[AnyRequest],
        on_lost: OnLost[AnyRequest],
    ) -> None:
        self.kind = "unix lane" if wire.is_unix else "tcp lane"
        self._loop = loop
        self._on_lost = on_lost
        self._lane = ClientLane(wire, ports, on_replies, on_lost)
        loop.add(self._lane)

    def send(self, requests: Sequence[AnyRequest]) -> None:
        """Send requests; those of one call travel together."""
        try:
            self._loop.send(self._lane, requests)
        except LaneClosedError:
            self._on_lost(list(requests), "the lane is closed")

    def exchange(
        self,
        requests: Sequence[AnyRequest],
        is_done: Callable[[], bool],
        deadline_s: float | None = None,
    ) -> None:
        """Send requests and read the lane here, unless another thread does."""
        try:
            self._loop.exchange(self._lane, requests, is_done, deadline_s)
        except LaneClosedError:
            self._on_lost(list(requests), "the lane is closed")

    def cancel(self, request: AnyRequest) -> None:
        """Tell the replica; what does not run yet will not be run."""
        self._loop.cancel(self._lane, request)

    def close(self) -> None:
        """Close the lane."""
        self._loop.remove(self._lane)


class ActorCarrier(Generic[AnyRequest]):
    """Carries requests as Ray actor calls: works from everywhere Ray works.

    Arrays above 100 kB go through the object store: copied once into it here, mapped by the
    replica, and never through the router.
    """

    kind = "actor calls"

    def __init__(
        self,
        actor: Any,
        model_name: str,
        post: Post,
        on_replies: OnReplies[AnyRequest],
        on_lost: OnLost[AnyRequest],
    ) -> None:
        self._actor = actor
        self._model_name = model_name
        self._post = post
        self._on_replies = on_replies
        self._on_lost = on_lost

    def send(self, requests: Sequence[AnyRequest]) -> None:
        """Send each request as one call."""
        if not ray.is_initialized():  # a call would start a cluster of its own
            self._on_lost(list(requests), "Ray was shut down")
            return
        for request in requests:
            bound = request.bound
            try:
                _, left_us = urgency.packed(request.terms, time.monotonic())
                reply: Future[Answer] = self._actor.infer.remote(
                    bound.arrays, bound.signature, left_us
                ).future()
            except Exception as error:  # noqa: BLE001 - the request fails, the others go on
                reply = Future()
                reply.set_exception(error)
            reply.add_done_callback(partial(self._on_reply, request))

    def exchange(
        self,
        requests: Sequence[AnyRequest],
        is_done: Callable[[], bool],  # noqa: ARG002 - Ray brings the replies
        deadline_s: float | None = None,  # noqa: ARG002
    ) -> None:
        """Send each request as one call."""
        self.send(requests)

    def cancel(self, request: AnyRequest) -> None:
        """Do nothing: a call that was made is answered."""

    def close(self) -> None:
        """Nothing is held."""

    def _on_reply(self, request: AnyRequest, reply: Future[Answer]) -> None:
        self._post(partial(self._take_reply, request, reply))

    def _take_reply(self, request: AnyRequest, reply: Future[Answer]) -> None:
        error = reply.exception()
        if error is None:
            answer = reply.result()
            try:
                outputs = _owned(answer.outputs)
            except MemoryError as problem:
                self._on_replies([Reply(request, None, problem)])
                return
            self._on_replies(
                [Reply(request, outputs, None, answer.service_time_s, answer.queue_len)]
            )
            return
        failure = translated(error, self._model_name)
        if isinstance(failure, ReplicaLostError):
            self._on_lost([request], failure.reason)
        else:
            self._on_replies([Reply(request, None, failure)])


class Connector:
    """Finds the best carrier to each replica: a lane, unless there cannot be one."""

    def __init__(self, loop: LaneLoop, post: Post) -> None:
        """Read the settings.

        Raises:
            OptionError: ``ATRIVA_LANES`` is none of its values.
        """
        self._mode = os.environ.get(LANES_VARIABLE, "auto")
        if self._mode not in _MODES:
            raise OptionError(LANES_VARIABLE, self._mode, ", ".join(_MODES))
        if ray.util.client.ray.is_connected():  # type: ignore[no-untyped-call]
            # this process may be anywhere
            self._mode = "off"
        self._node_id = None if self._mode == "off" else ray.get_runtime_context().get_node_id()
        self._loop = loop
        self._post = post

    def connect(
        self,
        model_name: str,
        info: ReplicaInfo,
        actor: Any,
        on_replies: OnReplies[AnyRequest],
        on_lost: OnLost[AnyRequest],
    ) -> Carrier[AnyRequest]:
        """Open a carrier; blocks while it connects, a few seconds if the replica does not answer.

        Raises:
            ReplicaLostError: its process has ended.
        """
        if not ray.is_initialized():  # a call would start a cluster of its own
            raise ReplicaLostError(model_name, 1, "Ray was shut down")
        try:
            try:
                wire = self._open(info, actor)
            except (OSError, KeyError, FrameError, LaneError, ray.exceptions.GetTimeoutError) as e:
                _logger.warning(
                    "no lane to replica %s, its requests go as actor calls: %r", info.replica_id, e
                )
                wire = None
            if wire is None:
                ray.get(actor.ping.remote(), timeout=CONNECT_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            raise ReplicaLostError(model_name, 1, str(error)) from error
        if wire is None:
            return ActorCarrier(actor, model_name, self._post, on_replies, on_lost)
        ports = Ports(model_name, info.inputs, info.outputs)
        return LaneCarrier(self._loop, wire, ports, on_replies, on_lost)

    def _open(self, info: ReplicaInfo, actor: Any) -> Wire | None:
        if self._mode == "off":
            return None
        if self._mode == "auto" and info.node_id == self._node_id:
            try:
                return connect_unix(info.lane_name, info.lane_token)
            except (OSError, FrameError) as error:
                _logger.debug("replica %s has no Unix socket for us: %s", info.replica_id, error)
        host, port = ray.get(actor.listen_tcp.remote(), timeout=CONNECT_TIMEOUT_S)
        return connect_tcp(host, port, info.lane_token)


def _owned(outputs: Mapping[str, Any]) -> Outputs:
    """Copy arrays out of Ray's read-only memory, so that they are the caller's as in one process.

    Holding on to a mapped array would also keep its whole object in the store.
    """
    return {
        name: array if array.flags.writeable else np.array(array) for name, array in outputs.items()
    }
