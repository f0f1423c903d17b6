"""Work ahead of the consumer: in order, bounded, and given up with it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.batch.sources.ahead import ahead, each_at_once


@settings(deadline=None)
@given(st.integers(0, 30), st.integers(0, 40), st.integers(1, 4))
def test_results_come_in_order_and_no_more_is_begun_than_allowed(count, limit, threads):
    begun = []
    with ThreadPoolExecutor(threads) as pool:
        work = ahead(lambda task: begun.append(task) or task * 2, range(count), pool, limit)
        for number, result in enumerate(work):
            assert result == number * 2
            assert len(begun) <= number + 1 + limit
    assert len(begun) == count


def test_what_was_not_begun_is_given_up_with_the_consumer():
    gate = threading.Event()
    begun = []

    def wait(task):
        begun.append(task)
        return task == 0 or gate.wait()

    with ThreadPoolExecutor(1) as pool:
        work = ahead(wait, range(100), pool, 50)
        next(work)
        work.close()
        gate.set()
    assert begun in ([0], [0, 1])


def test_an_error_comes_where_its_result_would():
    with ThreadPoolExecutor(2) as pool:
        work = ahead(lambda task: 1 // task, [1, 1, 0, 1], pool, 10)
        assert [next(work), next(work)] == [1, 1]
        with pytest.raises(ZeroDivisionError):
            next(work)


@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_each_at_once(count):
    assert each_at_once(str, range(count)) == [str(number) for number in range(count)]
