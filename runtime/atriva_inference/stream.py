"""`Stream`: many inputs through one model, with memory that is used again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self

from atriva_inference.binding import Staging
from atriva_inference.errors import ClosedError, DeadlineExceededError, InferenceRuntimeError
from atriva_inference.request import await_outputs
from atriva_inference.tensor import Tensor
from atriva_inference.terms import Priority

if TYPE_CHECKING:
    from atriva_inference.binding import Inputs
    from atriva_inference.model import Model

__all__ = ["Stream"]


class Stream:
    """A model's inputs one after the other, for one thread.

    Arrays that have to be converted (to FP16 where the model takes it, to another axis order) are
    converted into buffers that the stream keeps, so a steady stream allocates nothing for inputs.
    Results are always fresh memory and stay valid.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._staging = Staging()
        self._is_closed = False

    def run(
        self,
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        priority: Priority | str = Priority.MEDIUM,
    ) -> dict[str, Tensor]:
        """Run one request and block for its answer; takes and raises what `Model.run` does."""
        self._check_open()
        try:
            return self._model.run_staged(
                inputs, self._staging, timeout_s=timeout_s, priority=priority
            )
        except DeadlineExceededError:  # it may run still, on the buffers
            self._staging = Staging()
            raise

    def map(
        self,
        inputs: Iterable[Inputs],
        in_flight: int | None = None,
        *,
        timeout_s: float | None = None,
        priority: Priority | str = Priority.MEDIUM,
    ) -> Iterator[dict[str, Tensor]]:
        """Run every item and yield the answers in the order of the items.

        The device is kept busy ahead of the consumer: up to `in_flight` items are taken from the
        iterable before their answers are consumed. An item that fails raises when its turn comes;
        items behind it that were already taken are finished and dropped.

        Args:
            inputs: each item as for `run`; arrays must not change until their answer is yielded.
            in_flight: requests under way at once; twice `Model.parallelism` when None.
            timeout_s: how long each may take, in seconds from when it is taken.
            priority: of each, as for `Model.run`.
        """
        self._check_open()
        limit = in_flight if in_flight is not None else 2 * self._model.parallelism
        return self._mapped(inputs, max(1, limit), timeout_s, priority)

    def close(self) -> None:
        """Give the buffers back; the model stays open."""
        self._is_closed = True
        self._staging = Staging()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.close()

    def _mapped(
        self,
        inputs: Iterable[Inputs],
        limit: int,
        timeout_s: float | None,
        priority: Priority | str,
    ) -> Iterator[dict[str, Tensor]]:
        waiting: deque[tuple[Future[dict[str, Tensor]], Staging]] = deque()
        free = [Staging() for _ in range(limit)]
        name = self._model.name

        def next_answer() -> dict[str, Tensor]:
            future, staging = waiting.popleft()
            answer = await_outputs(future, name, None)
            free.append(staging)
            return answer

        def submit(item: Inputs, staging: Staging) -> Future[dict[str, Tensor]]:
            try:
                return self._model.submit(item, staging, timeout_s=timeout_s, priority=priority)
            except InferenceRuntimeError as error:
                refused: Future[dict[str, Tensor]] = Future()
                refused.set_exception(error)
                return refused

        try:
            for item in inputs:
                staging = free.pop()
                waiting.append((submit(item, staging), staging))
                if not free:
                    yield next_answer()
            while waiting:
                yield next_answer()
        finally:
            for future, _ in waiting:
                future.cancel()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"this stream of model {self._model.name!r}")
