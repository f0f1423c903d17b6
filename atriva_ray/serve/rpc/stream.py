"""Many requests on one stream: run at the same time, answered in their order."""

# Types of gRPC may not be there.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

__all__ = ["answer_stream"]


async def answer_stream(
    requests: AsyncIterator[bytes],
    context: grpc.aio.ServicerContext[Any, Any],
    answer: Callable[[bytes], Awaitable[bytes]],
    limit: int,
) -> None:
    """Answer every request of a stream; when this is cancelled, so is whatever runs for it.

    No more is read while `limit` requests have not been answered, so a client that sends faster
    than it reads is held back by gRPC's flow control.

    Args:
        requests: in the order in which they are to be answered.
        context: where answers go.
        answer: answers one request; whatever is wrong with it, that is its answer.
        limit: how many may be under way, or wait to be sent.
    """
    free = asyncio.Semaphore(limit)
    begun: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue()

    async with asyncio.TaskGroup() as tasks:

        async def run(request: bytes) -> bytes:
            return await answer(request)

        async def read() -> None:
            # The place comes first: what is read but cannot run yet would be held in memory.
            await free.acquire()
            async for request in requests:
                begun.put_nowait(tasks.create_task(run(request)))
                await free.acquire()
            begun.put_nowait(None)

        tasks.create_task(read())
        while (task := await begun.get()) is not None:
            answered = await task
            try:
                await context.write(answered)
            except grpc.aio.InternalError:
                # The client is gone, and gRPC only comes to cancel this.
                raise asyncio.CancelledError from None
            free.release()
