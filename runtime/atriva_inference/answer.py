"""`AnswerFuture`: the future of one request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

__all__ = ["AnswerFuture", "awaited"]

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


async def awaited(future: AnswerFuture[Value]) -> Value:
    """Wait for a future without blocking the event loop; cancelled itself, it cancels it."""
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()

    def wake(_future: Future[Value]) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(is_done.set)

    future.add_prompt_callback(wake)
    try:
        await is_done.wait()
    except asyncio.CancelledError:
        future.cancel()
        raise
    return future.result()
