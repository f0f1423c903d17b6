"""Work done by other threads before its result is asked for, in order and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead", "each_at_once"]

Task = TypeVar("Task")
Result = TypeVar("Result")

_PLANNING_THREADS = 16


def ahead(
    work: Callable[[Task], Result], tasks: Iterable[Task], pool: Executor, limit: int
) -> Iterator[Result]:
    """Yield results in the order of their tasks; at most `limit` are begun before asked for."""
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def each_at_once(work: Callable[[Task], Result], tasks: Sequence[Task]) -> list[Result]:
    """Return results in the order of their tasks; for looking at many files, maybe far away."""
    if len(tasks) <= 1:
        return [work(task) for task in tasks]
    threads = min(_PLANNING_THREADS, len(tasks))
    with ThreadPoolExecutor(threads, thread_name_prefix="atriva-plan") as pool:
        return list(pool.map(work, tasks))
