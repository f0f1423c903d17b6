"""Sessions: what a model remembers, and for whom."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from tests import stateful_models

ONE = {"x": np.ones((1, 3), np.float32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stateful")


@pytest.fixture(scope="module")
def stateful(only_with, runtime, folder, exact_config):
    """Loads a stateful model once; the tests leave it as it is."""
    only_with("openvino", "only OpenVINO has models with state")
    loaded = {}

    def load_model(make, **options):
        key = (make, *options.items())
        if key not in loaded:
            path = make(folder / f"{make.__name__}{len(loaded)}.xml", **options)
            loaded[key] = runtime.load_model(path, config=exact_config)
        return loaded[key]

    yield load_model
    for model in loaded.values():
        model.close()


@pytest.fixture
def accumulator(stateful):
    """`x` float32 1×3 → `sum`, which begins with 7."""
    return stateful(stateful_models.save_accumulator, first=7.0)


@pytest.fixture
def history(stateful):
    """`x` float32 1×1 → `seen` float32 1×?: all inputs so far."""
    return stateful(stateful_models.save_history)


@pytest.fixture
def picky(stateful):
    """Adds up `x`, and fails where `shape` does not fit it."""
    return stateful(stateful_models.save_picky)


GOOD = {"x": np.arange(6, dtype=np.float32), "shape": np.array([2, 3])}
BAD = {"x": np.arange(6, dtype=np.float32), "shape": np.array([5, 5])}


def add(target, value=1.0):
    answer = target.run({"x": np.full((1, 3), value, np.float32)})
    (first, *others) = answer["sum"].to_numpy().ravel()
    assert others == [first, first]
    return float(first)


def see(target, value):
    return target.run({"x": np.full((1, 1), value, np.float32)})["seen"].to_numpy().ravel().tolist()


# -- what is remembered --------------------------------------------------------------------------


def test_a_model_says_what_it_remembers(accumulator, history):
    (total,) = accumulator.variables
    assert (total.name, total.dtype, total.shape) == ("total", np.float32, (1, 3))
    assert history.variables[0].shape == (1, -1)


def test_requests_of_a_session_build_on_each_other(accumulator):
    with accumulator.create_session() as session:
        assert [add(session, value) for value in (1, 2, 3)] == [8, 10, 13]


def test_what_is_remembered_may_grow(history):
    with history.create_session() as session:
        assert [see(session, value) for value in range(3)] == [[0], [0, 1], [0, 1, 2]]


def test_sessions_have_nothing_to_do_with_each_other(accumulator):
    with accumulator.create_session() as one, accumulator.create_session() as other:
        assert one.number != other.number
        add(one, 100)
        assert add(other) == 8
        assert add(one) == 108


def test_sessions_that_run_at_once_do_not_mix(history):
    seen = {}

    def run(number):
        with history.create_session() as session:
            seen[number] = [see(session, 1000 * number + value) for value in range(50)][-1]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {number: [1000 * number + value for value in range(50)] for number in range(4)}


def test_requests_without_a_session_stand_alone(accumulator):
    with accumulator.create_session() as session:
        add(session, 5)
        assert [add(accumulator) for _ in range(10)] == [8] * 10
        requests = [accumulator.create_async_request() for _ in range(20)]
        for request in requests:
            request.start(ONE)
        sums = [float(request.wait(60)["sum"].to_numpy()[0, 0]) for request in requests]
        assert sums == [8] * 20
        with accumulator.create_stream() as stream:
            answers = list(stream.map([ONE] * 10))
        assert [float(answer["sum"].to_numpy()[0, 0]) for answer in answers] == [8] * 10
        assert add(session) == 13


def test_a_model_whose_rows_are_open_is_not_tried_at_the_cost_of_its_state(stateful, runtime):
    model = stateful(stateful_models.save_accumulator, rows=-1, first=2.0)
    assert [add(model) for _ in range(5)] == [3] * 5
    with model.create_session() as session:
        assert add(session) == 3
    row = np.ones((1, 3), np.float32)
    special = runtime.tensor_from_numpy(row, None, shape_override=(1, 3))
    sums = [model.run({"x": special})["sum"].to_numpy()[0, 0] for _ in range(3)]
    assert sums == [3] * 3


# -- in order ------------------------------------------------------------------------------------


def test_submitted_requests_run_in_the_order_of_submission(history):
    with history.create_session() as session:
        futures = [session.submit({"x": np.full((1, 1), value, np.float32)}) for value in range(40)]
        assert session.state["history"].ravel().tolist() == list(range(40))
        lengths = [future.result(60)["seen"].shape[1] for future in futures]
    assert lengths == list(range(1, 41))


def test_async_requests_run_in_the_order_of_the_calls(history):
    async def main():
        with history.create_session() as session:
            return await asyncio.gather(
                *(session.run_async({"x": np.full((1, 1), n, np.float32)}) for n in range(10))
            )

    seen = [answer["seen"].to_numpy().ravel().tolist() for answer in asyncio.run(main())]
    assert seen == [list(range(n + 1)) for n in range(10)]


def test_a_callback_may_run_requests_of_the_session(history):
    seen = []
    is_done = threading.Event()
    with history.create_session() as session:

        def go_on(_future):
            seen.append(see(session, 1))
            is_done.set()

        session.submit({"x": np.zeros((1, 1), np.float32)}).add_done_callback(go_on)
        assert is_done.wait(60)
    assert seen == [[0, 1]]


def test_a_cancelled_request_is_left_out(history):
    with history.create_session() as session:
        futures = [session.submit({"x": np.full((1, 1), n, np.float32)}) for n in range(200)]
        cancelled = {n for n, future in enumerate(futures) if n % 2 and future.cancel()}
        expected = [n for n in range(200) if n not in cancelled]
        assert session.state["history"].ravel().tolist() == expected


# -- the state -----------------------------------------------------------------------------------


def test_a_new_session_has_the_state_that_the_model_begins_with(accumulator):
    with accumulator.create_session() as session:
        assert session.state == {}


def test_the_state_can_be_taken_to_another_session(accumulator, history):
    with accumulator.create_session() as one, accumulator.create_session() as other:
        add(one, 10)
        saved = one.state
        add(one, 100)
        other.set_state(saved)
        assert add(other) == 18
        one.reset()
        one.set_state(saved)
        assert add(one) == 18
    with history.create_session() as one, history.create_session() as other:
        see(one, 4)
        see(one, 5)
        other.set_state(one.state)
        assert see(other, 6) == [4, 5, 6]
        assert see(one, 7) == [4, 5, 7]


def test_what_is_of_no_size_can_be_remembered(history):
    with history.create_session() as session:
        session.set_state({"history": np.zeros((1, 0), np.float32)})
        assert session.state["history"].shape == (1, 0)
        assert see(session, 3) == [3]


def test_the_state_is_a_copy(accumulator):
    with accumulator.create_session() as session:
        add(session)
        state = session.state
        state["total"][:] = 1000
        given = np.full((1, 3), 20, np.float32)
        assert add(session) == 9
        session.set_state({"total": given})
        given[:] = 1000
        assert add(session) == 21


def test_other_element_types_can_be_remembered(stateful):
    model = stateful(stateful_models.save_accumulator, dtype=np.float16)
    with model.create_session() as session:
        add(session, 0.5)
        assert session.state["total"].dtype == np.float16
        session.set_state({"total": np.full((1, 3), 1.5, np.float16)})
        assert add(session) == 2.5


def test_a_large_state_travels(stateful):
    model = stateful(stateful_models.save_accumulator, rows=100_000)
    values = np.arange(300_000, dtype=np.float32).reshape(-1, 3)
    with model.create_session() as session:
        session.set_state({"total": values})
        answer = session.run({"x": np.ones_like(values)})["sum"].to_numpy()
        np.testing.assert_array_equal(answer, values + 1)
        np.testing.assert_array_equal(session.state["total"], values + 1)


def test_reset_begins_anew(accumulator):
    with accumulator.create_session() as session:
        add(session, 100)
        session.reset()
        assert session.state == {}
        assert add(session) == 8


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"totl": np.zeros((1, 3), np.float32)}, "'totl' is no variable.*its variables: 'total'"),
        ({"total": np.zeros((1, 4), np.float32)}, "shape 1×4; expected total: float32 1×3"),
        ({"total": np.zeros((1, 3))}, "dtype float64; expected total: float32 1×3"),
        ({"total": [[1.0], [1.0, 2.0]]}, "'total' is no array"),
        ([1, 2], "is a list; expected a dict"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    package, accumulator, state, message
):
    with accumulator.create_session() as session:
        add(session)
        with pytest.raises(package.StateError, match=message):
            session.set_state(state)
        assert add(session) == 9


# -- when something goes wrong -------------------------------------------------------------------


def test_inputs_that_do_not_fit_leave_the_state_alone(package, accumulator, runtime):
    with accumulator.create_session() as session:
        add(session)
        with pytest.raises(package.InputShapeError):
            session.run({"x": np.ones((1, 4), np.float32)})
        special = runtime.tensor_from_numpy(np.ones((3,), np.float32), None, shape_override=(1, 3))
        assert add(session) == 9
        session.run({"x": special})  # the model leaves no dimension open, so nothing is special


def test_a_session_has_the_model_as_it_was_loaded(package, stateful, runtime):
    model = stateful(stateful_models.save_accumulator, rows=-1, first=2.0)
    special = runtime.tensor_from_numpy(np.ones((1, 3), np.float32), None, shape_override=(1, 3))
    with model.create_session() as session:
        with pytest.raises(package.OptionError, match="shape_override"):
            session.run({"x": special})
        assert add(session) == 3


def test_after_a_failure_a_session_does_not_go_on_as_if_it_remembered(package, picky):
    with picky.create_session() as session, picky.create_session() as other:
        assert session.run(GOOD)["sum"].to_numpy().tolist() == [15]
        assert other.run(GOOD)["sum"].to_numpy().tolist() == [15]
        saved = session.state
        with pytest.raises(package.InferenceFailedError):
            session.run(BAD)
        with pytest.raises(package.SessionLostError, match=r"reset\(\) it"):
            session.run(GOOD)
        with pytest.raises(package.SessionLostError, match="half of its state"):
            session.state  # noqa: B018 - it raises
        with pytest.raises(package.SessionLostError):
            session.set_state(saved)
        assert other.run(GOOD)["sum"].to_numpy().tolist() == [30]
        assert picky.run(GOOD)["sum"].to_numpy().tolist() == [15]
        session.reset()
        session.set_state(saved)
        assert session.run(GOOD)["sum"].to_numpy().tolist() == [30]


def test_a_failure_of_others_leaves_a_session_its_state(package, picky):
    with picky.create_session() as session:
        for number in range(1, 6):
            assert session.run(GOOD)["sum"].to_numpy().tolist() == [15 * number]
            with pytest.raises(package.InferenceFailedError):
                picky.run(BAD)


# -- closing -------------------------------------------------------------------------------------


def test_a_closed_session_says_so(package, accumulator):
    session = accumulator.create_session()
    session.close()
    session.close()
    for use in (
        lambda: session.run(ONE),
        lambda: session.submit(ONE),
        lambda: session.state,
        lambda: session.set_state({}),
        session.reset,
    ):
        with pytest.raises(package.ClosedError, match="session"):
            use()
    assert "closed" in repr(session)


def test_closing_the_model_closes_its_sessions(package, only_with, load, folder):
    only_with("openvino", "only OpenVINO has models with state")
    path = stateful_models.save_accumulator(folder / "closing.xml")
    model = load(path)
    session = model.create_session()
    futures = [session.submit(ONE) for _ in range(20)]
    model.close()
    for future in futures:
        error = future.exception(60)
        assert error is None or isinstance(error, package.ClosedError)
    with pytest.raises(package.ClosedError):
        session.run(ONE)
    with pytest.raises(package.ClosedError):
        model.create_session()
    session.close()


def test_there_may_be_so_many_sessions_and_no_more(package, only_with, load, folder):
    only_with("openvino", "one backend is enough")
    path = stateful_models.save_accumulator(folder / "many.xml")
    model = load(path)
    sessions = [model.create_session() for _ in range(256 * len(getattr(model, "replicas", "1")))]
    with pytest.raises(package.TooManySessionsError, match=r"256 sessions.*ATRIVA_MAX_SESSIONS"):
        model.create_session()
    add(sessions[-1])
    sessions[0].close()
    with model.create_session() as session:
        assert add(session) == 1
    assert add(sessions[-1]) == 2


# -- models that remember nothing ----------------------------------------------------------------


def test_models_without_state_have_sessions_with_nothing_in_them(package, multi):
    inputs = {"a": np.ones((2, 4), np.float32), "b": np.ones((2, 4), np.int64)}
    assert multi.variables == ()
    with multi.create_session() as session:
        for _ in range(3):
            answer = session.run(inputs)
            np.testing.assert_array_equal(answer["sum"].to_numpy(), 2 * np.ones((2, 4)))
        assert session.submit(inputs).result(60)["count"].to_numpy().tolist() == [4, 4]
        assert session.state == {}
        session.set_state({})
        session.reset()
        with pytest.raises(package.StateError, match="its variables: none"):
            session.set_state({"total": np.zeros(1)})


def test_a_failure_of_a_model_without_state_loses_nothing(package, data_dependent):
    good = {"data": np.arange(6, dtype=np.float32), "shape": np.array([2, 3])}
    bad = {"data": np.arange(6, dtype=np.float32), "shape": np.array([5, 5])}
    with data_dependent.create_session() as session:
        with pytest.raises(package.InferenceFailedError):
            session.run(bad)
        assert session.run(good)["output"].shape == (2, 3)


def test_adaptive_models_remember_too(only_with, load, folder):
    only_with("openvino", "only OpenVINO has models with state")
    path = stateful_models.save_accumulator(folder / "adaptive.xml", first=1.0)
    model = load(path, performance_hint="ADAPTIVE")
    with model.create_session() as session:
        assert [add(session) for _ in range(3)] == [2, 3, 4]
        assert [add(model) for _ in range(3)] == [2, 2, 2]
        assert add(session) == 5
