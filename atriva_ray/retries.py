"""Requests that failed on one device, until another one has tried them too."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Generic, Protocol, TypeVar

from atriva_inference.errors import InferenceFailedError, InferenceRuntimeError
from atriva_ray.routing.fallback import elsewhere

__all__ = ["OnFailed", "Retried", "Retries"]

_logger = logging.getLogger(__name__)


class Retried(Protocol):
    """What has to be known of a request."""

    attempts: int
    failures: dict[str, InferenceFailedError] | None


class OnFailed(Protocol):
    """Tells the router of a replica on which a request failed; see `Router.report_failed`."""

    def __call__(self, replica_id: str, reason: str, *, is_proven: bool) -> int | None:
        """Block until the router has heard, and return what it says."""
        ...


AnyRequest = TypeVar("AnyRequest", bound=Retried)


class Retries(Generic[AnyRequest]):
    """Keeps what failed: every request that is taken is let go by `sends`, or given up.

    One that failed on every replica there is waits while the router is asked whether there will be
    another one; the answer is the version of the routes that will tell. Methods are called under
    the lock, unless they say otherwise.
    """

    def __init__(
        self,
        max_attempts: int,
        lock: threading.Condition,
        post: Callable[[Callable[[], object]], object],
        on_failed: OnFailed,
        give_up: Callable[[AnyRequest, InferenceRuntimeError], None],
    ) -> None:
        """Keep nothing yet.

        Args:
            max_attempts: how many replicas may try a request; 1 keeps nothing.
            lock: of whoever sends the requests.
            post: runs a function soon, on a thread that may block.
            on_failed: tells the router.
            give_up: fails a request, with what the last replica said; called without the lock.
        """
        self._max_attempts = max_attempts
        self._lock = lock
        self._post = post
        self._on_failed = on_failed
        self._give_up = give_up
        self._awaited: dict[AnyRequest, int | None] = {}
        self._version = 0
        self._expects_more = False

    def __len__(self) -> int:
        return len(self._awaited)

    def take(self, request: AnyRequest, replica_id: str, error: BaseException | None) -> bool:
        """Keep a request that failed, if another replica may have better luck with it."""
        if not isinstance(error, InferenceFailedError) or request.attempts >= self._max_attempts:
            return False
        request.failures = {**(request.failures or {}), replica_id: error}
        self._awaited[request] = None
        self._post(partial(self._seek, request, replica_id, error.reason))
        return True

    def worked(self, request: AnyRequest) -> None:
        """Tell the router who was at fault, as the request was answered elsewhere."""
        for replica_id, failure in (request.failures or {}).items():
            self._post(partial(self._report, replica_id, failure.reason, is_proven=True))

    def sends(self, in_flight: Mapping[str, int]) -> list[tuple[str, AnyRequest]]:
        """Let go of what can be tried on one of these replicas, each with its replica.

        Args:
            in_flight: requests under way, by replica.
        """
        found = []
        for request in list(self._awaited):
            replica_id = elsewhere(in_flight, request.failures or ())
            if replica_id is not None:
                del self._awaited[request]
                found.append((replica_id, request))
        return found

    def clear(self) -> list[AnyRequest]:
        """Let go of everything."""
        requests = list(self._awaited)
        self._awaited.clear()
        return requests

    def routes_came(self, version: int, *, expects_more: bool) -> None:
        """Give up requests for which no replica came; call it after `sends`, without the lock.

        Args:
            version: of the routes in use.
            expects_more: whether a further replica starts to try what failed.
        """
        with self._lock:
            self._version, self._expects_more = version, expects_more
            hopeless = self._hopeless()
        self._give_up_each(hopeless)

    def _seek(self, request: AnyRequest, replica_id: str, reason: str) -> None:
        """Ask for another replica, unless there was one that has the request already."""
        with self._lock:
            is_waiting = request in self._awaited
        if not is_waiting:
            return
        version = self._report(replica_id, reason, is_proven=False)
        with self._lock:
            if request in self._awaited:
                self._awaited[request] = -1 if version is None else version
            hopeless = self._hopeless()
        self._give_up_each(hopeless)

    def _report(self, replica_id: str, reason: str, *, is_proven: bool) -> int | None:
        try:
            return self._on_failed(replica_id, reason, is_proven=is_proven)
        except InferenceRuntimeError as error:
            _logger.warning("the router could not be told of replica %s: %s", replica_id, error)
            return None

    def _hopeless(self) -> list[AnyRequest]:
        lost = [
            request
            for request, version in self._awaited.items()
            if version is not None
            and (version < 0 or (version <= self._version and not self._expects_more))
        ]
        for request in lost:
            del self._awaited[request]
        return lost

    def _give_up_each(self, requests: list[AnyRequest]) -> None:
        for request in requests:
            self._give_up(request, list((request.failures or {}).values())[-1])
