"""Requests run together only where the one who loads the model lets them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from atriva_inference.executor import LocalExecutor
from atriva_inference.ports import Port
from atriva_ray import replica
from atriva_ray.lanes.server import LaneServer
from tests.unit.fakes import FakeCompiledModel


@dataclass
class Stateful(FakeCompiledModel):
    """A doubler that says it remembers something."""

    variables: tuple[Port, ...] = (Port("total", ("total",), np.dtype("float32"), (1,)),)

    def open_session_slot(self):
        return self.open_slot()


@pytest.mark.parametrize(
    ("model", "has_batching", "is_tried"),
    [
        (FakeCompiledModel, True, True),
        (FakeCompiledModel, False, False),
        (Stateful, True, False),
    ],
)
def test_rows_are_not_even_tried_in_company_without_batching_or_with_state(
    monkeypatch, model, has_batching, is_tried
):
    given = []

    def start(*arguments):
        given.append(arguments[-1])
        return LaneServer(*arguments)

    monkeypatch.setattr(replica, "LaneServer", start)
    rows = Port("x", ("x",), np.dtype("float32"), (-1, 4))
    compiled = model(inputs=(rows,), outputs=(replace(rows, name="y", names=("y",)),))
    tried = []
    compiled.infer = lambda array: tried.append(len(array)) or array * 2
    executor = LocalExecutor("doubler", compiled)

    replica.open_lanes("doubler", executor, has_batching=has_batching).close()

    executor.close()
    assert (given[0] is not None) == is_tried
    assert bool(tried) == is_tried
