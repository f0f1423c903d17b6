"""Turns: in the order of asking, one at a time, and never lost."""

from __future__ import annotations

import threading

import pytest

from atriva_inference.in_order import InOrder


def test_turns_come_in_the_order_of_asking():
    order, begun = InOrder(), []

    def ask(number):
        order.enter(lambda: begun.append(number) is None)

    for number in range(5):
        ask(number)
    assert begun == [0]
    for count in range(2, 6):
        order.leave()
        assert begun == list(range(count))
    order.leave()
    ask(5)
    assert begun == list(range(6))


def test_whoever_needs_no_turn_any_more_gives_it_to_the_next():
    order, begun = InOrder(), []
    order.enter(lambda: True)
    for number in range(5_000):  # far more than may be nested
        order.enter(lambda number=number: bool(begun.append(number)))
    order.enter(lambda: begun.append("last") is None)
    order.leave()
    assert begun == [*range(5_000), "last"]


def test_threads_have_turns_one_at_a_time():
    order = InOrder()
    inside = most = 0

    def work():
        nonlocal inside, most
        for _ in range(200):
            with order.turn():
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)


def test_a_turn_ends_with_an_error_too():
    order = InOrder()
    with pytest.raises(ZeroDivisionError), order.turn():
        raise ZeroDivisionError
    with order.turn():
        pass


class InterruptedEvent:
    """An event whose waiting is interrupted, after something else was done."""

    first = staticmethod(lambda: None)

    def set(self):
        pass

    def wait(self):
        self.first()
        raise KeyboardInterrupt


@pytest.mark.parametrize("has_come", [False, True])
def test_an_interrupted_wait_keeps_no_turn(monkeypatch, has_come):
    order, begun = InOrder(), []
    order.enter(lambda: True)
    waiting = InterruptedEvent()
    if has_come:
        waiting.first = order.leave
    monkeypatch.setattr(threading, "Event", lambda: waiting)
    with pytest.raises(KeyboardInterrupt), order.turn():
        pass
    monkeypatch.undo()
    order.enter(lambda: begun.append(1) is None)
    if not has_come:
        assert begun == []
        order.leave()
    assert begun == [1]
