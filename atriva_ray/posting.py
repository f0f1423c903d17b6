"""Work that is done soon, on another thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["post"]

_logger = logging.getLogger(__name__)


def post(threads: ThreadPoolExecutor, work: Callable[[], object]) -> None:
    """Have a thread do it; what it raises is logged."""
    try:
        threads.submit(_logged, work)
    except RuntimeError:  # at the end of a program, threads stop before runtimes are closed
        _logged(work)


def _logged(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception:
        _logger.exception("an event of the cluster could not be handled")
