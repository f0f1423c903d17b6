"""Streams: many inputs in order, through memory that is used again."""

from __future__ import annotations

import itertools

import numpy as np
import pytest


def half_input(value, dtype=np.float16):
    return {"input": np.full((2, 4), value, dtype)}


def is_answer(result, value):
    return np.array_equal(result["output"].to_numpy(), np.full((2, 4), 2 * value + 1))


def test_run_answers_one_after_the_other(half):
    with half.create_stream() as stream:
        assert all(is_answer(stream.run(half_input(value)), value) for value in range(20))


def test_map_keeps_the_order(half):
    with half.create_stream() as stream:
        results = stream.map(half_input(value) for value in range(50))
        assert all(is_answer(result, value) for value, result in enumerate(results))


@pytest.mark.parametrize("in_flight", [1, 2, 7, 100])
def test_map_answers_every_item(half, in_flight):
    with half.create_stream() as stream:
        results = list(stream.map((half_input(value) for value in range(20)), in_flight))
    assert len(results) == 20
    assert all(is_answer(result, value) for value, result in enumerate(results))


def test_map_of_nothing_is_nothing(half):
    with half.create_stream() as stream:
        assert list(stream.map([])) == []


@pytest.mark.parametrize("in_flight", [1, 2, 5, None])
def test_map_does_not_run_far_ahead(half, in_flight):
    limit = in_flight or 2 * half.parallelism
    taken = 0

    def items():
        nonlocal taken
        for value in itertools.count():
            taken += 1
            yield half_input(value)

    with half.create_stream() as stream:
        results = stream.map(items(), in_flight)
        assert taken == 0
        for consumed, result in enumerate(itertools.islice(results, 20)):
            assert is_answer(result, consumed)
            assert taken - consumed <= limit
        results.close()


def test_map_can_be_left_early_and_used_again(half):
    with half.create_stream() as stream:
        for _ in range(3):
            first, second = itertools.islice(
                stream.map(half_input(value) for value in itertools.count()), 2
            )
            assert is_answer(first, 0)
            assert is_answer(second, 1)
        assert is_answer(stream.run(half_input(9)), 9)


@pytest.mark.parametrize("in_flight", [1, 2, 20])
def test_an_item_that_is_refused_raises_at_its_turn(package, half, in_flight):
    items = [half_input(0), half_input(1), {"input": np.ones((2, 5))}, half_input(3)]
    results = []

    with half.create_stream() as stream:
        with pytest.raises(package.InputShapeError):
            results.extend(stream.map(items, in_flight))
        assert is_answer(stream.run(half_input(4)), 4)

    assert [is_answer(result, value) for value, result in enumerate(results)] == [True, True]


@pytest.mark.parametrize("in_flight", [1, 2, 20])
def test_an_item_that_fails_raises_at_its_turn(package, data_dependent, in_flight):
    good, bad = [{"data": np.arange(4.0), "shape": shape} for shape in ([2, 2], [3, 3])]
    results = []

    with data_dependent.create_stream() as stream:
        with pytest.raises(package.InferenceFailedError):
            results.extend(stream.map([good, good, good, bad, good], in_flight))
        assert len(results) == 3
        results.append(stream.run(good))

    for result in results:
        assert np.array_equal(result["output"].to_numpy(), [[0, 1], [2, 3]])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8, np.int64])
def test_buffers_that_are_used_again_do_not_mix_results(half, dtype):
    with half.create_stream() as stream:
        mapped = list(stream.map(half_input(value, dtype) for value in range(100)))
        run = [stream.run(half_input(value, dtype)) for value in range(100)]

    for results in (mapped, run):
        assert [is_answer(result, value) for value, result in enumerate(results)] == [True] * 100


def test_a_stream_takes_every_item_as_it_comes(runtime, dynamic):
    """Shapes, element types and layouts change from item to item, so the buffers must too."""
    rng = np.random.default_rng(0)
    pictures = []
    for size, dtype in itertools.product((4, 9, 6), (np.uint8, np.float64, np.float32)):
        picture = (rng.random((1, size, size + 1, 3)) * 200).astype(dtype)
        pictures += [runtime.tensor_from_numpy(picture, layout="NHWC")] * 2
    wanted = [dynamic.run({"input": picture})["output"].to_numpy() for picture in pictures]

    with dynamic.create_stream() as stream:
        for results in (
            [stream.run({"input": picture}) for picture in pictures],
            list(stream.map({"input": picture} for picture in pictures)),
        ):
            for result, output in zip(results, wanted, strict=True):
                assert result["output"].to_numpy() == pytest.approx(output, abs=1e-6)


def test_a_closed_stream_is_of_no_more_use(package, half):
    stream = half.create_stream()
    stream.close()
    stream.close()

    for use in (lambda: stream.run(half_input(0)), lambda: stream.map([half_input(0)])):
        with pytest.raises(package.ClosedError, match="this stream of model 'half' is closed"):
            use()
    assert is_answer(half.run(half_input(1)), 1)


def test_several_streams_of_one_model(half):
    with half.create_stream() as first, half.create_stream() as second:
        pairs = zip(
            first.map(half_input(value, np.float64) for value in range(20)),
            second.map(half_input(value + 50, np.float64) for value in range(20)),
            strict=True,
        )
        for value, (one, other) in enumerate(pairs):
            assert is_answer(one, value)
            assert is_answer(other, value + 50)
