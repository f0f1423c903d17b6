"""Requests that run together: only where it changes nothing but the speed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from atriva_inference.binding import BoundInputs
from atriva_inference.errors import InferenceFailedError
from atriva_inference.ports import Port
from atriva_ray.lanes.fair_queue import FairQueue
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


# -- which ---------------------------------------------------------------------------------------


def queue_of(*lanes):
    """A queue where each lane has sent some jobs."""
    queue = FairQueue()
    for number, jobs in enumerate(lanes):
        for each in jobs:
            queue.put(number, each)
    return queue


def learned(cost_s=lambda _rows: 0.005, width=4, **others):
    """Return one that has run requests of this width on a device, until nothing was new."""
    together = Together([X], [Y], **others)
    for _ in range(60):
        queue = queue_of([job(np.ones((1, width))) for _ in range(64)])
        while len(queue) > 32:
            jobs = together.take(queue)
            together.ran(jobs, cost_s(len(jobs)))
    return together


def rows_of(jobs):
    return [each.layout.tensors[0].shape[0] for each in jobs]


@pytest.mark.parametrize("waiting", range(1, 70))
def test_where_rows_cost_nothing_the_largest_power_of_two_that_waits_is_taken(waiting):
    together = learned()
    jobs = together.take(queue_of([job(np.ones((1, 4))) for _ in range(waiting)]))
    assert len(jobs) == min(32, 1 << (waiting.bit_length() - 1))


def test_where_every_row_takes_as_long_as_alone_each_is_taken_alone():
    together = learned(lambda rows: 0.005 * rows)
    assert together.wanted == 1
    for waiting in (2, 10, 64):
        assert len(together.take(queue_of([job(np.ones((1, 4))) for _ in range(waiting)]))) == 1


def test_only_what_is_alike_is_taken_together_and_the_odd_one_in_its_turn():
    together = learned()
    together_5 = learned(width=5)
    together_5._groups |= together._groups
    odd = job(np.ones((1, 5)))
    plain = [job(np.ones((1, 4)), number) for number in range(8)]
    special = job(np.ones((1, 4)), signature=(("x", (1, 4)),))
    queue = queue_of([odd, *plain[:5]], [special, *plain[5:]])
    assert together_5.take(queue) == [odd]
    assert together_5.take(queue) == [special]
    assert together_5.take(queue) == [plain[n] for n in (0, 5, 1, 6, 2, 7, 3, 4)]


def test_an_odd_one_behind_others_waits_no_longer_than_they():
    together = learned()
    odd = job(np.ones((1, 5)))
    queue = queue_of([job(np.ones((1, 4))) for _ in range(4)], [job(np.ones((1, 4))), odd])
    while odd not in (jobs := together.take(queue)):
        for number in range(len(jobs)):
            queue.put(2 + number, job(np.ones((1, 4))))
        assert len(queue) < 20
    assert jobs == [odd]


def test_requests_of_several_rows_fill_a_batch():
    together = learned()
    shapes = (3, 3, 1, 2, 9, 40)
    jobs = together.take(queue_of([job(np.ones((rows, 4))) for rows in shapes]))
    assert rows_of(jobs) == [3, 3, 1, 2]  # as 9 more were too many
    assert rows_of(together.take(queue_of([job(np.ones((40, 4)))] * 4))) == [40]


def test_large_requests_are_taken_together_too_unless_the_batch_were_huge():
    together = Together([X], [Y])
    width = INLINE_BYTES
    together = learned(width=width)
    assert len(together.take(queue_of([job(np.ones((1, width))) for _ in range(8)]))) == 8
    huge = [job(np.ones((1, 2**19), np.float32)) for _ in range(3)]
    for each in huge:
        each.layout = Layout([(FLOAT, (1, 2**24), False)])
    assert len(together.take(queue_of(huge))) == 1


def test_no_larger_batch_is_made_than_is_over_in_time():
    together = learned(lambda rows: 0.04 + 0.001 * rows)
    jobs = [job(np.ones((1, 4))) for _ in range(32)]
    jobs[0].deadline_s = time.monotonic() + 0.05
    assert 1 < len(together.take(queue_of(jobs))) <= 8
    jobs[0].deadline_s = time.monotonic() + 10
    assert len(together.take(queue_of(jobs))) == 32


def test_nobody_waits_beyond_a_deadline():
    together = learned(lambda _rows: 0.02)
    queue = queue_of([job(np.ones((1, 4)))])
    wait = together.plan_wait(queue)
    assert wait is not None  # to see whether others come
    assert 0 < together.left_s(wait, queue) < 0.02
    late = job(np.ones((1, 4)))
    late.deadline_s = time.monotonic() + 0.021
    queue.put(1, late)
    assert together.left_s(wait, queue) < 0.0015
    tight = learned(lambda _rows: 0.02)
    late.deadline_s = time.monotonic() + 0.01
    assert tight.plan_wait(queue_of([late])) is None


def test_a_wait_ends_when_those_that_waited_are_gone():
    together = learned(lambda _rows: 0.02)
    queue = queue_of([job(np.ones((1, 4))), job(np.ones((1, 4)))])
    wait = together.plan_wait(queue)
    queue.take()
    assert together.left_s(wait, queue) == 0


def test_what_was_learned_is_told():
    report = learned(lambda _rows: 0.005).report()
    (shape,) = report.shapes
    assert shape.row_shapes == ((4,),)
    assert shape.best_rows == 32
    assert [size.rows for size in shape.sizes] == [1, 2, 4, 8, 16, 32]
    assert [size.service_time_s for size in shape.sizes] == [pytest.approx(0.005)] * 6
    assert shape.sizes[-1].rows_per_s == pytest.approx(6400)
    assert not report.is_mixing


def test_requests_of_sessions_go_alone():
    together = learned(lambda _rows: 0.005)
    of_session = job(np.ones((1, 4)))
    of_session.session = 1
    call = Job(None, 1, Layout([]), BoundInputs({}), session=1)
    queue = queue_of([job(np.ones((1, 4))), of_session, call, job(np.ones((1, 4)))])
    assert len(together.take(queue)) == 2
    assert together.take(queue) == [of_session]
    assert together.take(queue) == [call]


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


def test_requests_of_several_rows_get_theirs():
    jobs = [job(np.full((rows, 4), rows), rows) for rows in (1, 3, 2)]
    results = Together([X], [Y]).run(Runner(lambda x: x * 2), jobs)
    for rows, result in zip((1, 3, 2), results, strict=True):
        assert result.outputs["y"].tolist() == [[2.0 * rows] * 4] * rows


def test_large_batches_use_their_memory_again_and_leave_earlier_answers_alone():
    together = Together([X], [Y])
    given = []

    def note(x):
        given.append(x)
        return x * 2

    first, second = (
        together.run(Runner(note), [job(np.full((1, 10_000), base + n)) for n in range(4)])
        for base in (0, 10)
    )
    assert np.shares_memory(*given)
    for base, results in ((0, first), (10, second)):
        for number, result in enumerate(results):
            assert (result.outputs["y"] == 2 * (base + number)).all()


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


def test_a_number_of_rows_that_fails_by_itself_is_not_tried_again():
    def narrow(x):
        if len(x) > 1:
            raise MemoryError
        return x + 1

    together = Together([X], [Y])
    runs = []
    for _ in range(200):
        jobs = together.take(queue_of([job(np.ones((1, 4))) for _ in range(8)]))
        runs.append(len(jobs))
        if len(jobs) > 1:
            together.run(Runner(narrow), jobs)
        together.ran(jobs, 0.005 * len(jobs))
    assert 0 < sum(count > 1 for count in runs[:100]) < 20
    assert set(runs[100:]) == {1}


# -- shapes that are known later -----------------------------------------------------------------


def untried(function):
    together = find_together(Runner(function), [port("x", (-1, -1))], [port("y", (-1, -1))], 1)
    for _ in range(20):
        queue = queue_of([job(np.ones((1, 4))) for _ in range(8)])
        jobs = together.take(queue)
        runner = Runner(function)
        if len(jobs) > 1:
            for result in together.run(runner, jobs):
                assert np.array_equal(result.outputs["y"], function(np.ones((1, 4), FLOAT)))
        together.ran(jobs, 0.005)
    return together, len(jobs)


def test_a_model_of_any_width_is_tried_with_the_first_requests_that_could_run_together():
    together, count = untried(lambda x: x * 2)
    assert count > 1
    assert not together.report().is_mixing


def test_a_model_of_any_width_that_mixes_rows_is_found_out_then():
    together, count = untried(lambda x: x - x.mean(axis=0) + len(x))
    assert count == 1
    assert together.report().is_mixing


def test_while_one_tries_the_model_others_run_row_by_row():
    fresh = find_together(Runner(lambda x: x), [port("x", (-1, -1))], [port("y", (-1, -1))], 1)
    fresh._groups |= learned()._groups
    queue = queue_of([job(np.ones((1, 4))) for _ in range(64)])
    first = fresh.take(queue)
    assert len(first) > 1
    assert len(fresh.take(queue)) == 1
    fresh.run(Runner(lambda x: x), first)
    assert len(fresh.take(queue)) > 1


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
        time.sleep(0.06)
        return x

    assert not found(slow)


def test_a_model_that_remembers_is_run_row_by_row():
    seen = []

    def remembering(x):
        seen.append(x)
        return x + len(seen) * 10

    assert not found(remembering)


def test_a_model_that_comes_to_answer_differently_is_run_row_by_row():
    seen = []

    def changing(x):
        seen.append(x)
        return x + 10 * (len(seen) > 8)  # after each row alone, and all in company

    assert not found(changing)


def test_pixels_are_numbers_too():
    pixels = port("x", (-1, 4), np.dtype(np.uint8))
    assert found(lambda x: x.astype(FLOAT) * 2, inputs=(pixels,))
    assert not found(lambda x: x - x.mean(axis=0).astype(FLOAT), inputs=(pixels,))


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
