"""Running requests on slots: how many at once, in which order, and what closing does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import pytest

from atriva_inference.errors import ClosedError, DeadlineExceededError, InferenceFailedError
from atriva_inference.executor import LocalExecutor
from atriva_inference.model import Model
from atriva_inference.tensor import Tensor
from atriva_inference.waiting_queue import WaitingQueue

from .fakes import FakeCompiledModel

PATIENCE_S = 30


class Gate:
    """An `infer` that shows who is inside, and lets each one out when told to."""

    def __init__(self):
        self._changed = threading.Condition()
        self._open = 0
        self.entered = []
        self.inside = 0
        self.most_inside = 0

    def __call__(self, array):
        with self._changed:
            self.entered.append(int(array[0]))
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._open > 0, PATIENCE_S)
            self._open -= 1
            self.inside -= 1
            self._changed.notify_all()
        return array * 2

    def let_out(self, count):
        with self._changed:
            self._open += count
            self._changed.notify_all()

    def wait_until_entered(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.entered) >= count, PATIENCE_S)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def make_model():
    models = []

    def make(infer=None, slot_count=2):
        compiled = FakeCompiledModel(slot_count=slot_count, infer=infer)
        model = Model("doubler", LocalExecutor("doubler", compiled))
        models.append(model)
        model.compiled = compiled
        return model

    yield make
    for model in models:
        model.close()
    assert not [thread for thread in threading.enumerate() if "doubler" in thread.name]


def answer(result):
    return int(result["y"].to_numpy()[0])


def test_slots_are_opened_as_they_are_needed(make_model):
    model = make_model(slot_count=4)
    assert len(model.compiled.slots) == 0
    for _ in range(5):
        model.run({"x": [1]})
    assert len(model.compiled.slots) == 1


@pytest.mark.parametrize("slot_count", [1, 2, 3])
def test_as_many_requests_run_at_once_as_there_are_slots(make_model, gate, slot_count):
    model = make_model(gate, slot_count)
    assert model.parallelism == slot_count
    futures = [model.submit({"x": [value]}) for value in range(7)]
    gate.wait_until_entered(slot_count)
    assert not any(future.done() for future in futures)

    gate.let_out(7)
    assert [answer(future.result(PATIENCE_S)) for future in futures] == [0, 2, 4, 6, 8, 10, 12]
    assert gate.most_inside == slot_count
    assert len(model.compiled.slots) <= slot_count


def test_run_and_submit_share_the_slots(make_model, gate):
    model = make_model(gate, 2)
    with ThreadPoolExecutor(4) as threads:
        running = [threads.submit(model.run, {"x": [value]}) for value in range(4)]
        running += [model.submit({"x": [value]}) for value in range(4)]
        gate.wait_until_entered(2)
        gate.let_out(8)
        assert sorted(answer(future.result(PATIENCE_S)) for future in running) == [
            *(0, 0, 2, 2, 4, 4, 6, 6)
        ]
    assert gate.most_inside == 2


def test_threads_get_their_turn_in_the_order_they_came(make_model, gate):
    """A thread that runs one request after the other must not keep the others out."""
    model = make_model(gate, 1)
    line = model._executor._pool._waiting = Line()
    with ThreadPoolExecutor(5) as threads:
        futures = []
        for value in range(5):
            futures.append(threads.submit(model.run, {"x": [value]}))
            if value == 0:
                gate.wait_until_entered(1)
            else:
                assert line.joined.acquire(timeout=PATIENCE_S)
        gate.let_out(5)
        assert [answer(future.result(PATIENCE_S)) for future in futures] == [0, 2, 4, 6, 8]
    assert gate.entered == [0, 1, 2, 3, 4]


class Line(WaitingQueue):
    """A queue that tells when somebody has joined it."""

    def __init__(self):
        super().__init__()
        self.joined = threading.Semaphore(0)

    def put(self, item, terms):
        super().put(item, terms)
        self.joined.release()


def test_a_slot_that_cannot_be_opened_can_be_tried_again(make_model):
    model = make_model(slot_count=1)
    open_slot, attempts = model.compiled.open_slot, []

    def open_at_the_second_attempt():
        attempts.append(1)
        if len(attempts) == 1:
            raise InferenceFailedError("doubler", "CPU", "out of memory")
        return open_slot()

    model.compiled.open_slot = open_at_the_second_attempt
    with pytest.raises(InferenceFailedError, match="out of memory"):
        model.run({"x": [1]})
    assert answer(model.run({"x": [2]})) == 4


def test_an_interrupted_wait_does_not_lose_the_slot(make_model, gate, monkeypatch):
    model = make_model(gate, 1)
    pool = model._executor._pool
    first = model.submit({"x": [1]})
    gate.wait_until_entered(1)

    class Interrupted:
        def __init__(self):
            self.given = []

        def set_result(self, slot):
            self.given.append(slot)

        def result(self):
            if not self.given:
                raise KeyboardInterrupt
            return self.given[0]

    with monkeypatch.context() as patch:
        patch.setattr("atriva_inference.slot_pool.Future", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.run({"x": [2]})

    assert not pool._waiting
    gate.let_out(2)
    assert answer(first.result(PATIENCE_S)) == 2
    assert answer(model.run({"x": [3]})) == 6


def test_a_failure_gives_the_slot_back_and_carries_the_models_name(make_model):
    def fail(array):
        if array[0] < 0:
            raise InferenceFailedError("file-name", "CPU", "negative")
        return array * 2

    model = make_model(fail, 1)
    for _ in range(3):
        with pytest.raises(InferenceFailedError, match="'doubler' failed on CPU: negative"):
            model.run({"x": [-1]})
    assert answer(model.run({"x": [1]})) == 2


def test_profiles_carry_the_models_name(make_model):
    assert make_model().get_profiling().model == "doubler"


# -- closing ---------------------------------------------------------------------------------


def test_closing_finishes_what_runs_and_refuses_what_waits(make_model, gate):
    model = make_model(gate, 1)
    futures = [model.submit({"x": [value]}) for value in range(3)]
    gate.wait_until_entered(1)
    closing = threading.Thread(target=model.close)
    closing.start()

    for future in futures[1:]:
        assert isinstance(future.exception(PATIENCE_S), ClosedError)
    assert closing.is_alive()
    gate.let_out(1)
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert answer(futures[0].result()) == 0
    assert gate.entered == [0]


def test_closing_waits_for_threads_that_run(make_model, gate):
    model = make_model(gate, 1)
    with ThreadPoolExecutor(2) as threads:
        running = threads.submit(model.run, {"x": [4]})
        gate.wait_until_entered(1)
        closing = threads.submit(model.close)
        gate.let_out(1)
        assert answer(running.result(PATIENCE_S)) == 8
        closing.result(PATIENCE_S)


@pytest.mark.parametrize("use", ["run", "submit", "get_profiling"])
def test_the_executor_itself_refuses_after_close(make_model, use):
    model = make_model()
    model.close()
    model._is_closed = False  # as for a thread that had looked just before
    with pytest.raises(ClosedError, match="model 'doubler' is closed"):
        getattr(model, use)({"x": [1]})


def test_a_cancelled_request_is_not_run(make_model, gate):
    model = make_model(gate, 1)
    first, second, third = [model.submit({"x": [value]}) for value in range(3)]
    gate.wait_until_entered(1)
    assert second.cancel()
    gate.let_out(2)

    assert answer(third.result(PATIENCE_S)) == 4
    assert answer(first.result(PATIENCE_S)) == 0
    assert second.cancelled()
    assert gate.entered == [0, 2]


def test_whoever_waits_for_several_futures_learns_of_one_that_is_cancelled(make_model, gate):
    model = make_model(gate, 1)
    futures = [model.submit({"x": [value]}) for value in range(2)]
    gate.wait_until_entered(1)
    assert all(future.cancel() for future in futures)
    assert all(future.cancel() for future in futures)
    assert not wait(futures, PATIENCE_S).not_done
    gate.let_out(1)


def test_a_callback_may_run_requests_with_a_deadline(make_model):
    """It is on the only thread, and must not wait for another one."""
    model = make_model(slot_count=1)
    seen = []
    finished = threading.Event()

    def callback(_request):
        seen.append(answer(model.run({"x": [5]}, timeout_s=PATIENCE_S)))
        with pytest.raises(DeadlineExceededError):
            model.run({"x": [6]}, timeout_s=0)
        finished.set()

    model.create_async_request(callback).start({"x": [1]})
    assert finished.wait(PATIENCE_S)
    assert seen == [10]


def test_the_urgent_have_the_next_slot_whether_they_run_or_were_submitted(make_model, gate):
    model = make_model(gate, 1)
    first = model.submit({"x": [0]})
    gate.wait_until_entered(1)
    line = model._executor._pool._waiting = Line()
    futures = [first]
    with ThreadPoolExecutor(3) as threads:
        for value, priority in ((3, "low"), (2, "medium"), (1, "high")):
            futures.append(threads.submit(model.run, {"x": [value]}, priority=priority))
            assert line.joined.acquire(timeout=PATIENCE_S)
        gate.let_out(4)
        for future in futures:
            future.result(PATIENCE_S)
    futures = [model.submit({"x": [4]})]
    gate.wait_until_entered(5)
    futures += [model.submit({"x": [5 + n]}, priority=p) for n, p in enumerate(("low", "high"))]
    gate.let_out(3)
    for future in futures:
        future.result(PATIENCE_S)
    assert gate.entered == [0, 1, 2, 3, 4, 6, 5]


def test_one_given_up_while_it_waits_is_not_run_and_while_it_runs_is_not_heard(make_model, gate):
    model = make_model(gate, 1)
    runs = model.submit({"x": [0]})
    gate.wait_until_entered(1)
    late = model.submit({"x": [1]}, timeout_s=0.01)
    waits = model.submit({"x": [2]})
    with pytest.raises(DeadlineExceededError, match="while it waited"):
        late.result(PATIENCE_S)
    assert runs.cancel()
    assert runs.cancelled()
    gate.let_out(2)
    assert answer(waits.result(PATIENCE_S)) == 4
    assert gate.entered == [0, 2]
    with pytest.raises(DeadlineExceededError, match="while it ran"):
        model.run({"x": [3]}, timeout_s=0.05)
    gate.let_out(2)
    assert answer(model.run({"x": [4]})) == 8


# -- shapes ----------------------------------------------------------------------------------


def test_a_signature_runs_on_a_model_compiled_for_it(make_model):
    model = make_model()
    tensor = model_tensor([1, 2, 3])
    assert np.array_equal(model.run({"x": tensor})["y"].to_numpy(), [2, 4, 6])
    model.run({"x": tensor})
    assert model.compiled.specialised == [(("x", (3,)),)]
    assert model.compiled.slots == []
    assert (model.shape_cache.hits, model.shape_cache.misses) == (1, 1)


def model_tensor(values):
    return Tensor.from_numpy(values, shape_override=(len(values),))
