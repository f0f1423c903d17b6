"""Requests that run together: only where it changes nothing but the speed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from atriva_inference.binding import BoundInputs
from atriva_inference.errors import InferenceFailedError
from atriva_inference.ports import Port
from atriva_ray.lanes.layout import Layout
from atriva_ray.lanes.server_lane import INLINE_BYTES, Job
from atriva_ray.lanes.together import Together, find_together

FLOAT = np.dtype(np.float32)


def port(name, shape, dtype=FLOAT):
    return Port(name, (name,), dtype, shape)


X = port("x", (-1, 4))
Y = port("y", (-1, 4))


class Runner:
    """Runs a function on `x`, and remembers how many rows came."""

    def __init__(self, function):
        self._function = function
        self.rows = []

    def run(self, bound, _memory=None):
        self.rows.append(len(bound.arrays["x"]))
        return {"y": self._function(bound.arrays["x"])}


def job(array, number=0, signature=None, **others):
    arrays = {"x": np.asarray(array, FLOAT), **others}
    return Job(None, number, Layout.of(list(arrays.values())), BoundInputs(arrays, signature), None)


def found(function, inputs=(X,), outputs=(Y,)):
    return find_together(Runner(function), inputs, outputs) is not None


# -- how many ------------------------------------------------------------------------------------


@pytest.mark.parametrize("waiting", range(1, 200))
def test_as_many_are_taken_as_the_largest_power_of_two_that_waits(waiting):
    limit = Together([X], [Y]).limit(waiting)
    assert limit <= waiting
    assert limit & (limit - 1) == 0
    assert limit == 32 or waiting < 2 * limit


def test_small_requests_of_one_row_go_together():
    together = Together([X], [Y])
    first = job(np.ones((1, 4)))
    assert together.is_alike(first, job(np.zeros((1, 4))))
    same_layout = job(np.zeros((1, 4)))
    same_layout.layout = first.layout
    assert together.is_alike(first, same_layout)


def test_requests_of_more_rows_large_ones_and_specialised_ones_go_alone():
    together = Together([X], [Y])
    one = job(np.ones((1, 4)))
    two = job(np.ones((2, 4)))
    large = job(np.ones((1, INLINE_BYTES // 4 + 1)))
    special = job(np.ones((1, 4)), signature=(("x", (1, 4)),))
    assert together.is_alike(one, one)
    for other in (two, special):
        assert not together.is_alike(one, other)
        assert not together.is_alike(other, one)
    assert not together.is_alike(large, large)


def test_requests_of_sessions_go_alone():
    together = Together([X], [Y])
    one, of_session = job(np.ones((1, 4))), job(np.ones((1, 4)))
    of_session.session = 1
    call = Job(None, 1, Layout([]), BoundInputs({}), session=1)
    for other in (of_session, call):
        assert not together.is_alike(one, other)
        assert not together.is_alike(other, one)
        assert not together.is_alike(other, other)


# -- running -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 8, 32])
def test_answers_are_those_of_each_alone(count):
    runner = Runner(lambda x: x * 2 + x.sum(axis=1, keepdims=True))
    rows = np.random.default_rng(count).random((count, 1, 4), np.float32)
    jobs = [job(row, number) for number, row in enumerate(rows)]
    results = Together([X], [Y]).run(runner, jobs)
    assert runner.rows == [count]
    assert [result.job for result in results] == jobs
    for row, result in zip(rows, results, strict=True):
        assert result.error is None
        assert np.array_equal(
            result.outputs["y"], Runner(lambda x: x * 2 + x.sum()).run(BoundInputs({"x": row}))["y"]
        )
        assert result.outputs["y"].shape == (1, 4)


def test_all_inputs_and_outputs_keep_to_their_rows():
    class Crossed:
        def run(self, bound, _memory=None):
            return {"y": bound.arrays["z"] * 2, "n": bound.arrays["x"].sum(axis=1).astype(int)}

    jobs = [job(np.full((1, 4), n), n, z=np.full((1, 2), -n, FLOAT)) for n in range(8)]
    together = Together([X, port("z", (-1, 2))], [Y, port("n", (-1,))])
    for number, result in enumerate(together.run(Crossed(), jobs)):
        assert result.outputs["y"].tolist() == [[-2.0 * number] * 2]
        assert result.outputs["n"].tolist() == [4 * number]


def test_each_gets_its_share_of_the_time():
    def slow(x):
        time.sleep(0.05)
        return x

    results = Together([X], [Y]).run(Runner(slow), [job(np.ones((1, 4)))] * 4)
    assert [result.service_time_s for result in results] == [pytest.approx(0.0125, rel=0.5)] * 4


def test_one_that_fails_in_company_fails_alone():
    def picky(x):
        if (x < 0).any():
            raise InferenceFailedError("m", "CPU", "negative")
        return x * 2

    runner = Runner(picky)
    jobs = [job(np.full((1, 4), -1 if n == 2 else n), n) for n in range(4)]
    results = Together([X], [Y]).run(runner, jobs)
    assert runner.rows == [4, 1, 1, 1, 1]
    assert [result.job for result in results] == jobs
    assert [type(result.error) for result in results] == [
        type(None),
        type(None),
        InferenceFailedError,
        type(None),
    ]
    for number in (0, 1, 3):
        assert results[number].outputs["y"].tolist() == [[2.0 * number] * 4]
    assert results[2].outputs is None


def test_company_that_fails_though_each_alone_does_not_is_answered():
    def narrow(x):
        if len(x) > 1:
            raise MemoryError
        return x + 1

    results = Together([X], [Y]).run(Runner(narrow), [job(np.full((1, 4), n)) for n in range(4)])
    assert [result.outputs["y"][0, 0] for result in results] == [1, 2, 3, 4]


# -- which models --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2,
        lambda x: np.exp(x) / np.exp(x).sum(axis=1, keepdims=True),
        lambda x: np.sort(x, axis=1),
        lambda x: x * 0,
        lambda x: x * (1 + 1e-3 * len(x) / 5),  # what rounding may do
    ],
)
def test_a_model_that_treats_every_row_by_itself_is_found(function):
    assert found(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - x.mean(axis=0),
        lambda x: x / x.max(),
        lambda x: np.cumsum(x, axis=0),
        lambda x: np.sort(x, axis=0),
        lambda x: x[::-1],
        lambda x: np.roll(x, 1, axis=0),
        lambda x: np.exp(x) / np.exp(x).sum(axis=0, keepdims=True),
        lambda x: x + len(x),
        lambda x: x * (1 + 0.1 * (len(x) > 1)),
        lambda x: np.where(np.arange(len(x))[:, None] == len(x) - 1, x, x * 0),
        lambda x: x[:1],
        lambda x: x.repeat(2, axis=0),
        lambda x: np.full_like(x, np.nan) if len(x) > 1 else x,
    ],
)
def test_a_model_that_mixes_rows_is_found_out(function):
    assert not found(function)


def test_a_model_whose_whole_numbers_depend_on_company_is_found_out():
    counts = port("y", (-1,), np.dtype(np.int64))
    assert not found(lambda x: np.full(len(x), len(x)), outputs=(counts,))
    assert found(lambda x: x.argmax(axis=1), outputs=(port("y", (-1, 1), np.dtype(np.int64)),))


def test_a_model_that_is_never_the_same_is_found_out():
    random = np.random.default_rng(1)
    assert not found(lambda x: x + random.random(x.shape, np.float32))


def test_a_model_that_takes_long_is_run_row_by_row():
    def slow(x):
        time.sleep(0.001)
        return x

    assert not found(slow)


def test_a_model_that_fails_on_such_inputs_is_run_row_by_row():
    def failing(x):
        if len(x) > 1:
            raise InferenceFailedError("m", "CPU", "one row only")
        return x

    assert not found(failing)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([port("x", (1, 4))], [Y]),
        ([X], [port("y", (1, 4))]),
        ([port("x", (-1, -1))], [Y]),
        ([port("x", (-1,))], [Y]),
        ([port("x", None)], [Y]),
        ([X], [port("y", None)]),
        ([X, port("z", (3, 4))], [Y]),
        ([port("x", (-1, 4), np.dtype(np.int64))], [Y]),
        ([port("x", (-1, 4), np.dtype(object))], [Y]),
    ],
)
def test_a_model_without_rows_of_numbers_throughout_is_not_even_tried(inputs, outputs):
    runner = Runner(lambda x: x)
    assert find_together(runner, inputs, outputs) is None
    assert runner.rows == []
