"""What may be given to a session to remember."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from atriva_inference.errors import SessionLostError, StateError, TooManySessionsError
from atriva_inference.ports import Port
from atriva_inference.state import check_state

FLOAT = np.dtype(np.float32)
VARIABLES = (Port("total", ("total",), FLOAT, (1, 3)), Port("past", ("past",), FLOAT, (1, -1)))


def test_values_that_fit_are_taken_as_they_are():
    total = np.ones((1, 3), np.float32)
    checked = check_state(VARIABLES, {"total": total, "past": np.zeros((1, 0), np.float32)})
    assert checked["total"] is total
    assert checked["past"].shape == (1, 0)


def test_values_are_made_contiguous():
    past = np.arange(20, dtype=np.float32).reshape(1, 20)[:, ::2]
    checked = check_state(VARIABLES, {"past": past})
    assert checked["past"].flags.c_contiguous
    np.testing.assert_array_equal(checked["past"], past)


def test_scalars_stay_scalars():
    (value,) = check_state([Port("n", ("n",), FLOAT, ())], {"n": np.float32(2)}).values()
    assert value.shape == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"other": 1}, "'other' is no variable of the model; expected its variables: 'total'"),
        ({"total": np.ones((1, 3), np.int32)}, "'total' has dtype int32; expected total: float32"),
        ({"total": np.ones(3, np.float32)}, "'total' has shape 3; expected total: float32 1×3"),
        ({"past": np.ones((2, 5), np.float32)}, "'past' has shape 2×5; expected past: float32 1×?"),
        ({1: 1}, "'1' is no variable"),
        (None, "is a NoneType; expected a dict"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(StateError, match=message.replace("?", r"\?")):
        check_state(VARIABLES, given)


@pytest.mark.parametrize(
    "error",
    [
        StateError("total", "has shape 3", "float32 1×3"),
        SessionLostError("m", 4, "node/CPU", "it died", "create a new one"),
        TooManySessionsError("m", "CPU", 256),
    ],
)
def test_errors_travel(error):
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was made here
    assert (type(again), vars(again), str(again)) == (type(error), vars(error), str(error))
