import pickle

import pytest

from atriva_inference.errors import InputShapeError, OptionError
from atriva_ray import errors
from atriva_ray.serve.statuses import INTERNAL, Code, status_of

CASES = [
    (errors.BadRequestError("no"), 400, Code.INVALID_ARGUMENT),
    (InputShapeError("x", (1,), (2,), "send 2"), 400, Code.INVALID_ARGUMENT),
    (OptionError("a", "b", "c"), 400, Code.INVALID_ARGUMENT),
    (errors.RepositoryError("m", "broken"), 400, Code.INVALID_ARGUMENT),
    (errors.UnauthorizedError(), 401, Code.UNAUTHENTICATED),
    (errors.UnknownModelError("m", "", []), 404, Code.NOT_FOUND),
    (errors.RequestTooLargeError(9, 8), 413, Code.RESOURCE_EXHAUSTED),
    (errors.NotSupportedError("tea"), 501, Code.UNIMPLEMENTED),
    (errors.ModelUnavailableError("m", "1", "loading"), 503, Code.UNAVAILABLE),
    (errors.ReplicaLostError("m", 3, "gone"), 503, Code.UNAVAILABLE),
    (errors.OverloadedError(5, 4, 2.0), 503, Code.RESOURCE_EXHAUSTED),
    (errors.DeadlineExceededError("m", 0.1), 504, Code.DEADLINE_EXCEEDED),
]


@pytest.mark.parametrize(("error", "http", "code"), CASES, ids=lambda each: type(each).__name__)
def test_each_error_has_its_status_also_after_a_journey(error, http, code):
    for each in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        status = status_of(each)
        assert (status.http, status.code) == (http, code)
        assert str(each) == str(error)


def test_an_overload_says_when_to_come_again():
    assert status_of(errors.OverloadedError(5, 4, 2.5)).retry_after_s == 2.5


def test_nothing_is_told_of_what_nobody_expected():
    assert status_of(ZeroDivisionError("secret")) is INTERNAL
