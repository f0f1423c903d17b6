"""Deadlines pass on time, whatever else happens, and leave nothing."""

from __future__ import annotations

import gc
import queue
import threading
import time
import weakref

import pytest

from atriva_inference import expiry as module
from atriva_inference.expiry import Expiry

PATIENCE_S = 30


class Item:
    """Something that has a deadline."""


@pytest.fixture
def expired():
    return queue.SimpleQueue()


@pytest.fixture
def watch(expired):
    opened = Expiry(expired.put, "test-deadlines")
    yield opened
    opened.close()
    assert not [each for each in threading.enumerate() if each.name == "test-deadlines"]


def now_s():
    return time.monotonic()


def test_there_is_no_thread_before_the_first_deadline(watch):
    assert "test-deadlines" not in [each.name for each in threading.enumerate()]


def test_those_whose_time_is_over_are_told_in_order_and_not_before(watch, expired):
    began_s = now_s()
    watch.add(began_s + 1000, "never")
    watch.add(began_s + 0.06, "second")
    watch.add(began_s + 0.03, "first")  # earlier than what the thread waits for
    assert expired.get(timeout=PATIENCE_S) == ["first"]
    assert now_s() >= began_s + 0.03
    assert expired.get(timeout=PATIENCE_S) == ["second"]
    assert now_s() >= began_s + 0.06
    assert expired.empty()


def test_one_that_is_forgotten_is_let_go_of_at_once(watch, expired):
    item = Item()
    gone = weakref.ref(item)
    ticket = watch.add(now_s() + 1000, item)
    del item
    assert gone() is not None
    ticket.forget()
    ticket.forget()
    gc.collect()
    assert gone() is None
    watch.add(now_s(), "due")
    assert expired.get(timeout=PATIENCE_S) == ["due"]


def test_tickets_of_those_that_are_done_do_not_pile_up(watch):
    first = watch.add(now_s() + 1000, "stays")
    for _ in range(10_000):
        watch.add(now_s() + 2000, "done").forget()
    assert len(watch._heap) < 200
    assert first in watch._heap


def test_far_deadlines_are_waited_for(watch, expired):
    watch.add(now_s() + 1e12, "never")
    watch.add(now_s(), "due")
    assert expired.get(timeout=PATIENCE_S) == ["due"]


def test_a_callback_that_blocks_keeps_no_deadline_waiting(expired):
    gate = threading.Event()

    def on_expired(items):
        watch.post(lambda: gate.wait(PATIENCE_S))
        expired.put(items)

    watch = Expiry(on_expired, "test-deadlines")
    watch.add(now_s(), 1)
    assert expired.get(timeout=PATIENCE_S) == [1]
    watch.add(now_s(), 2)
    assert expired.get(timeout=PATIENCE_S) == [2]
    gate.set()
    watch.close()


def test_elsewhere_callbacks_are_called_where_they_are_posted(watch):
    called_by = []
    watch.post(lambda: called_by.append(threading.current_thread()))
    assert called_by == [threading.current_thread()]


def test_an_error_ends_nothing(expired):
    def on_expired(items):
        expired.put(items)
        raise ValueError("broken")

    watch = Expiry(on_expired, "test-deadlines")
    for number in range(3):
        watch.add(now_s(), number)
        assert expired.get(timeout=PATIENCE_S) == [number]
    watch.close()


def test_the_thread_ends_when_nothing_has_a_deadline_and_comes_back(watch, expired, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_S", 0.01)
    for number in range(3):
        watch.add(now_s(), number)
        thread = watch._thread
        assert expired.get(timeout=PATIENCE_S) == [number]
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_closing_tells_of_nobody_any_more(expired):
    watch = Expiry(expired.put, "test-deadlines")
    watch.add(now_s() + 1000, "never")
    watch.close()
    watch.add(now_s(), "late")
    watch.close()
    assert expired.empty()
