"""`AsyncRequest`: one request that can be started, awaited and started again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from typing import TYPE_CHECKING

from atriva_inference.errors import (
    ClosedError,
    InferenceTimeoutError,
    RequestBusyError,
    RequestNotStartedError,
)
from atriva_inference.tensor import Tensor
from atriva_inference.terms import Priority

if TYPE_CHECKING:
    from atriva_inference.binding import Inputs
    from atriva_inference.model import Model

__all__ = ["AsyncRequest", "await_outputs"]

Callback = Callable[["AsyncRequest"], None]


def await_outputs(
    future: Future[dict[str, Tensor]], model_name: str, timeout_s: float | None
) -> dict[str, Tensor]:
    """Block for a submitted request's answer.

    Raises:
        InferenceTimeoutError: not within `timeout_s`; the request goes on.
        ClosedError: the model was closed before the request began to run.
    """
    if timeout_s is not None and not wait([future], timeout_s).done:
        raise InferenceTimeoutError(model_name, timeout_s)
    try:
        return future.result()
    except CancelledError:
        raise ClosedError(f"model {model_name!r}") from None


class AsyncRequest:
    """One request to a model; for the next inputs it can be started again once it is done.

    Several requests run at once, as many as `Model.parallelism` says; further ones wait their turn
    without blocking `start`. Thread-safe.
    """

    def __init__(self, model: Model, callback: Callback | None = None) -> None:
        self._model = model
        self._callback = callback
        self._lock = threading.Lock()
        self._future: Future[dict[str, Tensor]] | None = None

    def start(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        priority: Priority | str = Priority.MEDIUM,
    ) -> None:
        """Queue the inputs and return at once; do not change their arrays until it is done.

        Args:
            inputs: as for `Model.run`.
            timeout_s: how long the request may take, in seconds from now; then it is given up, and
                `wait` raises `DeadlineExceededError`.
            priority: as for `Model.run`.

        Raises:
            RequestBusyError: the request still runs.
            InputError: the inputs do not fit; the request can be started again.
            DeadlineExceededError, OverloadedError: as for `Model.submit`; likewise.
            ClosedError: the model is closed.
        """
        with self._lock:
            if self._future is not None and not self._future.done():
                raise RequestBusyError(self._model.name)
            future = self._future = self._model.submit(
                inputs, timeout_s=timeout_s, priority=priority
            )
        if self._callback is not None:
            future.add_done_callback(self._call_back)

    def wait(self, timeout_s: float | None = None) -> dict[str, Tensor]:
        """Block until the answer is there and return it; may be called again for the same answer.

        Args:
            timeout_s: how long to wait, in seconds; None waits as long as it takes.

        Raises:
            RequestNotStartedError: `start` was never called.
            InferenceTimeoutError: no answer in time; the request still runs.
            DeadlineExceededError: the time that `start` gave it is over.
            InferenceFailedError: the backend failed on these inputs.
            ClosedError: the model was closed before the request began to run.
        """
        future = self._future
        if future is None:
            raise RequestNotStartedError(self._model.name)
        return await_outputs(future, self._model.name, timeout_s)

    def done(self) -> bool:
        """Whether `wait` would return or raise without blocking; False before `start`."""
        future = self._future
        return future is not None and future.done()

    def _call_back(self, _future: Future[dict[str, Tensor]]) -> None:
        if self._callback is not None:
            self._callback(self)
