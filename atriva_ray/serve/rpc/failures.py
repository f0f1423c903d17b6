"""What a client is told when a call fails."""

# Types of gRPC may not be there.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from typing import Any, NoReturn

import grpc

from atriva_ray.serve.statuses import INTERNAL, Status, status_of

__all__ = ["explain", "is_being_cancelled", "refuse"]

_logger = logging.getLogger(__name__)

_CODES = {code.value[0]: code for code in grpc.StatusCode}

# gRPC sends this in a header; encoded, it may grow threefold, and headers end at 8 KiB.
_MAX_DETAILS_BYTES = 2048


def explain(error: BaseException, method: str) -> tuple[Status, str]:
    """Return the status of an error and what to say about it.

    Nothing of an error that nobody expected is told, as it may say what is not for clients; it is
    logged, under a reference that the client gets.
    """
    status = status_of(error)
    if status is INTERNAL:
        reference = secrets.token_hex(6)
        _logger.error("%s failed unexpectedly, reference %s", method, reference, exc_info=error)
        return status, f"something unexpected went wrong; the server's log says what: {reference}"
    details = str(error).encode(errors="replace")
    if len(details) > _MAX_DETAILS_BYTES:
        return status, details[:_MAX_DETAILS_BYTES].decode(errors="ignore") + "…"
    return status, details.decode()


async def refuse(
    context: grpc.aio.ServicerContext[Any, Any], error: BaseException, method: str
) -> NoReturn:
    """End a call with an error.

    Raises:
        grpc.aio.AbortError: it is how gRPC ends a call.
        asyncio.CancelledError: the call has ended already, as the client is gone.
    """
    status, details = explain(error, method)
    trailers: tuple[tuple[str, str], ...] = ()
    if status.retry_after_s is not None:
        trailers = (
            ("retry-after", str(math.ceil(status.retry_after_s))),
            # Clients with a retry policy heed this one by themselves.
            ("grpc-retry-pushback-ms", str(math.ceil(1000 * status.retry_after_s))),
        )
    try:
        await context.abort(_CODES[status.code.value], details, trailers)
    except grpc.aio.InternalError:
        raise asyncio.CancelledError from None
    raise AssertionError("unreachable: abort raises")


def is_being_cancelled() -> bool:
    """Whether the current task is to end, rather than something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
