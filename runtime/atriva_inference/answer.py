"""`AnswerFuture`: the future of one request."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

__all__ = ["AnswerFuture"]

Value = TypeVar("Value")


class AnswerFuture(Future[Value]):
    """A future whose callbacks may block, whatever thread settles it."""

    def __init__(self, post: Callable[[Callable[[], object]], object] | None = None) -> None:
        """Make a future.

        Args:
            post: runs a function soon, on a thread that may block; None: callbacks are called by
                the thread that settles the future.
        """
        super().__init__()
        self._post = post

    def add_done_callback(self, fn: Callable[[Future[Value]], Any]) -> None:
        """Call a function with this future when it is done; at once if it is."""
        post = self._post
        if post is None or self.done():
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda done: post(partial(fn, done)))

    def add_prompt_callback(self, fn: Callable[[Future[Value]], Any]) -> None:
        """Like `add_done_callback`, but on the thread that settles it, so it must never block."""
        super().add_done_callback(fn)
