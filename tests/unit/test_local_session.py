"""Sessions in one process, on a backend that does as it is told."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from atriva_inference.errors import (
    ClosedError,
    InferenceFailedError,
    OptionError,
    SessionLostError,
    TooManySessionsError,
)
from atriva_inference.executor import LocalExecutor
from atriva_inference.model import Model
from atriva_inference.ports import Port
from tests.cluster.tools import wait_until
from tests.unit.fakes import FakeCompiledModel

FLOAT = np.dtype(np.float32)


@dataclass
class Stateful(FakeCompiledModel):
    """Adds up `x`; each of its session slots is in `opened`."""

    variables: tuple[Port, ...] = (Port("total", ("total",), FLOAT, (-1,)),)
    opened: list[Adder] = field(default_factory=list)
    on_infer: object = None

    def open_session_slot(self):
        self.opened.append(Adder(self))
        return self.opened[-1]


@dataclass
class Adder:
    model: Stateful
    total: object = None

    def infer(self, arrays, _memory=None):
        if self.model.on_infer is not None:
            self.model.on_infer(arrays["x"])
        self.total = arrays["x"] + (0 if self.total is None else self.total)
        return {"y": self.total.copy()}

    def state(self):
        return {} if self.total is None else {"total": self.total.copy()}

    def set_state(self, state):
        self.total = state["total"].copy()

    def reset(self):
        self.total = None


@pytest.fixture
def compiled():
    return Stateful()


@pytest.fixture
def model(compiled):
    with Model("adder", LocalExecutor("adder", compiled)) as opened:
        yield opened


def x(value):
    return {"x": np.full(2, value, np.float32)}


def y(answer):
    return answer["y"].to_numpy()[0]


def test_each_session_has_an_infer_request_of_its_own(model, compiled):
    one, other = model.create_session(), model.create_session()
    assert [y(one.run(x(1))), y(one.run(x(1))), y(other.run(x(5)))] == [1, 2, 5]
    assert [slot.total[0] for slot in compiled.opened] == [2, 5]
    assert compiled.slots == []  # those are for requests without a session


def test_closing_lets_the_infer_request_go(model):
    executor = model._executor
    sessions = [model.create_session() for _ in range(3)]
    assert executor.session_count == 3
    for session in sessions:
        session.close()
    assert executor.session_count == 0


def test_a_request_that_fails_leaves_a_session_that_knows_nothing(model, compiled):
    def fail(_array):
        raise InferenceFailedError("adder", "CPU", "no more fingers")

    with model.create_session() as session, model.create_session() as other:
        session.run(x(1))
        compiled.on_infer = fail
        with pytest.raises(InferenceFailedError):
            session.run(x(1))
        compiled.on_infer = None
        for use in (lambda: session.run(x(1)), lambda: session.state):
            with pytest.raises(SessionLostError, match="no more fingers") as caught:
                use()
        assert (caught.value.session, caught.value.model) == (session.number, "adder")
        with pytest.raises(SessionLostError):
            session.submit(x(1)).result(10)
        assert y(other.run(x(3))) == 3
        session.reset()
        assert y(session.run(x(4))) == 4


def test_an_interrupt_while_it_runs_leaves_a_session_that_knows_nothing(model, compiled):
    def interrupt(_array):
        raise KeyboardInterrupt

    with model.create_session() as session:
        compiled.on_infer = interrupt
        with pytest.raises(KeyboardInterrupt):
            session.run(x(1))
        compiled.on_infer = None
        with pytest.raises(SessionLostError, match="KeyboardInterrupt"):
            session.run(x(1))


def test_one_request_runs_at_a_time_and_others_wait_in_order(model, compiled):
    gate, running = threading.Event(), []

    def hold(array):
        running.append(int(array[0]))
        assert gate.wait(10)

    compiled.on_infer = hold
    with model.create_session() as session:
        futures = [session.submit(x(value)) for value in (1, 2, 3)]
        gate.set()
        assert [y(future.result(10)) for future in futures] == [1, 3, 6]
        assert running == [1, 2, 3]


def test_closing_refuses_what_waits_and_finishes_what_runs(model, compiled):
    gate, begun = threading.Event(), threading.Event()

    def hold(_array):
        begun.set()
        assert gate.wait(10)

    compiled.on_infer = hold
    session = model.create_session()
    first, second = session.submit(x(1)), session.submit(x(2))
    assert begun.wait(10)
    closing = threading.Thread(target=session.close)
    closing.start()
    wait_until(lambda: session._is_closed, every_s=0.001)
    gate.set()
    closing.join(10)
    assert y(first.result(10)) == 1
    with pytest.raises(ClosedError, match="session 1 of model 'adder'"):
        second.result(10)


def test_closing_the_model_refuses_what_waits_in_its_sessions(model, compiled):
    gate, begun = threading.Event(), threading.Event()

    def hold(_array):
        begun.set()
        assert gate.wait(10)

    compiled.on_infer = hold
    session = model.create_session()
    futures = [session.submit(x(value)) for value in range(5)]
    assert begun.wait(10)
    closing = threading.Thread(target=model.close)
    closing.start()
    wait_until(lambda: model._executor._pool is None, every_s=0.001)
    gate.set()
    closing.join(10)
    assert not closing.is_alive()
    assert all(
        future.exception(10) is None or isinstance(future.exception(), ClosedError)
        for future in futures
    )
    assert isinstance(futures[-1].exception(), ClosedError)
    assert model._executor.session_count == 0


def test_a_cancelled_request_does_not_run(model, compiled):
    gate = threading.Event()
    compiled.on_infer = lambda _array: gate.wait(10)
    with model.create_session() as session:
        futures = [session.submit(x(value)) for value in (1, 10, 100)]
        assert futures[1].cancel()
        gate.set()
        assert y(futures[2].result(10)) == 101


def test_as_many_sessions_as_the_environment_says(model, monkeypatch):
    monkeypatch.setenv("ATRIVA_MAX_SESSIONS", "2")
    first = model.create_session()
    model.create_session()
    with pytest.raises(TooManySessionsError, match="2 sessions open at once on CPU"):
        model.create_session()
    first.close()
    model.create_session()
    monkeypatch.setenv("ATRIVA_MAX_SESSIONS", "some")
    with pytest.raises(OptionError, match="ATRIVA_MAX_SESSIONS"):
        model.create_session()


def test_a_slot_that_cannot_be_opened_takes_no_place(model, compiled, monkeypatch):
    monkeypatch.setenv("ATRIVA_MAX_SESSIONS", "1")

    def fail():
        raise MemoryError

    monkeypatch.setattr(compiled, "open_session_slot", fail)
    with pytest.raises(MemoryError):
        model.create_session()
    monkeypatch.undo()
    with model.create_session() as session:
        assert y(session.run(x(1))) == 1


def test_a_backend_without_state_has_sessions_that_remember_nothing():
    with Model("doubler", LocalExecutor("doubler", FakeCompiledModel())) as model:
        assert model.variables == ()
        with model.create_session() as session:
            assert [y(session.run(x(1))), y(session.run(x(2)))] == [2, 4]
            session.reset()
            session.set_state({})
            assert session.state == {}
