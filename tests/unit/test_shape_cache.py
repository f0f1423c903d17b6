"""The shape cache: each shape is compiled once, the least used goes, failures are forgotten."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.shape_cache import ShapeCache, ShapeCacheInfo

PATIENCE_S = 30


def signature(size):
    return (("x", (size,)),)


def test_a_shape_is_compiled_at_its_first_use():
    compiled = []
    cache = ShapeCache(lambda wanted: compiled.append(wanted) or f"model {len(compiled)}")

    assert cache.get(signature(1)) == "model 1"
    assert cache.get(signature(2)) == "model 2"
    assert cache.get(signature(1)) == "model 1"
    assert compiled == [signature(1), signature(2)]
    assert cache.info() == ShapeCacheInfo(hits=1, misses=2, size=2, capacity=16)


def test_threads_that_ask_at_once_share_one_compilation():
    thread_count = 8
    started, finish = threading.Event(), threading.Event()
    compiled = []

    def compile_(wanted):
        compiled.append(wanted)
        started.set()
        assert finish.wait(PATIENCE_S)
        return object()

    cache = ShapeCache(compile_)
    with ThreadPoolExecutor(thread_count) as threads:
        models = [threads.submit(cache.get, signature(1))]
        assert started.wait(PATIENCE_S)
        models += [threads.submit(cache.get, signature(1)) for _ in range(thread_count - 1)]
        finish.set()
        assert len({id(model.result(PATIENCE_S)) for model in models}) == 1

    assert len(compiled) == 1
    assert cache.info().misses == 1
    assert cache.info().hits == thread_count - 1


def test_shapes_are_compiled_beside_each_other():
    both_compile = threading.Barrier(2)
    cache = ShapeCache(lambda _wanted: both_compile.wait(PATIENCE_S))

    with ThreadPoolExecutor(2) as threads:
        for model in [threads.submit(cache.get, signature(size)) for size in (1, 2)]:
            model.result(PATIENCE_S)


def test_the_least_recently_used_shape_goes():
    compiled = []
    cache = ShapeCache(compiled.append, capacity=2)
    for size in (1, 2, 1, 3, 1, 2):
        cache.get(signature(size))

    assert compiled == [signature(size) for size in (1, 2, 3, 2)]
    assert cache.info() == ShapeCacheInfo(hits=2, misses=4, size=2, capacity=2)


@given(st.integers(1, 4), st.lists(st.integers(0, 6)))
def test_it_behaves_like_a_list_with_the_latest_last(capacity, sizes):
    held = []
    hits = 0
    cache = ShapeCache(lambda wanted: wanted, capacity)
    for size in sizes:
        if size in held:
            hits += 1
            held.remove(size)
        held.append(size)
        del held[:-capacity]
        assert cache.get(signature(size)) == signature(size)

    assert cache.info() == ShapeCacheInfo(hits, len(sizes) - hits, len(held), capacity)


def test_a_shape_that_goes_while_it_is_compiled_still_arrives():
    started, finish = threading.Event(), threading.Event()

    def compile_(wanted):
        if wanted == signature(1):
            started.set()
            assert finish.wait(PATIENCE_S)
        return wanted

    cache = ShapeCache(compile_, capacity=1)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(cache.get, signature(1))
        assert started.wait(PATIENCE_S)
        cache.get(signature(2))
        finish.set()
        assert first.result(PATIENCE_S) == signature(1)
    assert cache.info().size == 1


def test_a_failure_is_forgotten():
    outcomes = iter([ValueError("no memory"), "model"])

    def compile_(_wanted):
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    cache = ShapeCache(compile_)
    with pytest.raises(ValueError, match="no memory"):
        cache.get(signature(1))
    assert cache.info().size == 0
    assert cache.get(signature(1)) == "model"
    assert cache.info() == ShapeCacheInfo(hits=0, misses=2, size=1, capacity=16)


def test_a_failure_reaches_every_thread_that_waits():
    started, finish = threading.Event(), threading.Event()

    def compile_(_wanted):
        started.set()
        assert finish.wait(PATIENCE_S)
        raise ValueError("no memory")

    cache = ShapeCache(compile_)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(cache.get, signature(1))]
        assert started.wait(PATIENCE_S)
        hits = threading.Barrier(4)

        def get():
            hits.wait(PATIENCE_S)
            return cache.get(signature(1))

        waiting += [threads.submit(get) for _ in range(3)]
        hits.wait(PATIENCE_S)
        finish.set()
        assert all(isinstance(each.exception(PATIENCE_S), ValueError) for each in waiting)


def test_clearing_forgets_the_shapes_and_keeps_the_counts():
    cache = ShapeCache(lambda wanted: wanted)
    cache.get(signature(1))
    cache.clear()
    assert cache.info() == ShapeCacheInfo(hits=0, misses=1, size=0, capacity=16)


def test_the_states_of_several_caches_add_up():
    total = ShapeCacheInfo(1, 2, 3, 16) + ShapeCacheInfo(10, 20, 5, 16)
    assert total == ShapeCacheInfo(11, 22, 8, 32)
