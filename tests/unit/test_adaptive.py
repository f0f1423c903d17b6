"""A model in two configurations: which one a request runs on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from atriva_inference.adaptive import AdaptiveModel, compile_adaptive
from atriva_inference.errors import CompileError
from atriva_inference.executor import LocalExecutor
from atriva_inference.model import Model
from atriva_inference.options import CompileOptions, PerformanceHint

from .fakes import FakeBackend, FakeCompiledModel

PATIENCE_S = 30
X = {"x": np.ones(1, np.float32)}
LONE, MANY = np.float32(10), np.float32(100)


def lone(array):
    return array * LONE


@pytest.fixture
def make_adaptive():
    """Models whose answers tell which configuration ran."""
    made = []

    def make(many, slot_count=2, lone=lone):
        adaptive = AdaptiveModel(
            FakeCompiledModel(slot_count=1, infer=lone),
            FakeCompiledModel(slot_count=slot_count, infer=many),
        )
        made.append(Model("adaptive", LocalExecutor("adaptive", adaptive)))
        return made[-1]

    yield make
    for model in made:
        model.close()


def ran(answer):
    return float(answer["y"].to_numpy()[0])


def test_one_request_after_the_other_runs_as_for_latency(make_adaptive):
    model = make_adaptive(many=lambda array: array * MANY)

    assert [ran(model.run(X)) for _ in range(5)] == [LONE] * 5


def test_what_comes_while_another_runs_shares_the_device(make_adaptive):
    entered, leave = threading.Event(), threading.Event()

    def hold(array):
        entered.set()
        assert leave.wait(PATIENCE_S)
        return array * LONE

    model = make_adaptive(many=lambda array: array * MANY, lone=hold)
    first = model.submit(X)
    assert entered.wait(PATIENCE_S)

    assert [ran(model.run(X)) for _ in range(3)] == [MANY] * 3
    leave.set()
    assert ran(first.result(PATIENCE_S)) == LONE


def test_a_failure_leaves_the_device_free(make_adaptive):
    def fail(_array):
        raise RuntimeError("no")

    model = make_adaptive(many=lambda array: array * MANY, lone=fail)

    for _ in range(3):  # each has the device for itself again
        with pytest.raises(RuntimeError, match="no"):
            model.run(X)


def test_the_configuration_for_one_is_never_used_twice_at_once(make_adaptive):
    inside = threading.Semaphore(1)
    overlaps = []

    def one_only(array):
        if not inside.acquire(blocking=False):
            overlaps.append(array)
            return array
        try:
            return array * LONE
        finally:
            inside.release()

    model = make_adaptive(many=lambda array: array * MANY, slot_count=4, lone=one_only)
    with ThreadPoolExecutor(8) as threads:
        answers = {ran(answer) for answer in threads.map(lambda _: model.run(X), range(2000))}

    assert overlaps == []
    assert answers <= {LONE, MANY}


def test_both_configurations_are_specialised():
    single, many = FakeCompiledModel(slot_count=1), FakeCompiledModel()

    special = AdaptiveModel(single, many).specialise("signature")

    assert isinstance(special, AdaptiveModel)
    assert single.specialised == many.specialised == ["signature"]


class Recording(FakeBackend):
    """Notes the hints that it is asked for."""

    def __init__(self, slot_count, refused=None):
        super().__init__()
        self.slot_count = slot_count
        self.refused = refused
        self.hints = []

    def compile(self, _files, device, options):
        self.hints.append(options.hint)
        if options.hint == self.refused:
            raise CompileError("model", device, {device: "no memory"})
        return FakeCompiledModel(device, self.slot_count)


def compiled(backend):
    options = CompileOptions(PerformanceHint.ADAPTIVE)
    return compile_adaptive(backend, None, "CPU", options)


def test_the_backend_is_asked_for_hints_that_it_knows():
    backend = Recording(slot_count=4)

    assert compiled(backend).slot_count == 4
    assert sorted(backend.hints) == ["LATENCY", "THROUGHPUT"]


def test_a_device_that_runs_one_at_a_time_is_compiled_for_once():
    backend = Recording(slot_count=1)

    assert not isinstance(compiled(backend), AdaptiveModel)
    assert backend.hints == ["THROUGHPUT"]


@pytest.mark.parametrize("refused", [PerformanceHint.LATENCY, PerformanceHint.THROUGHPUT])
def test_a_device_that_refuses_one_refuses_both(refused):
    with pytest.raises(CompileError, match="no memory"):
        compiled(Recording(slot_count=2, refused=refused))
