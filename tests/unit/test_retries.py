"""Requests that failed on one device: who tries them next, who is told, and when they are lost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from atriva_inference.errors import InferenceFailedError, InputError, ModelError
from atriva_ray.retries import Retries

LOST = InferenceFailedError("resnet", "GPU", "the device is lost")


@dataclass(eq=False)
class Request:
    attempts: int = 1
    failures: dict[str, InferenceFailedError] | None = None


@dataclass
class Client:
    """Whoever sends requests: posts are kept until they are let run."""

    version: int | None = None
    posted: list = field(default_factory=list)
    reports: list = field(default_factory=list)
    lost: list = field(default_factory=list)

    def __post_init__(self):
        self.retries = Retries(
            3, threading.Condition(), self.posted.append, self.report, self.give_up
        )

    def report(self, replica_id, reason, *, is_proven):
        self.reports.append((replica_id, reason, is_proven))
        if isinstance(self.version, Exception):
            raise self.version
        return self.version

    def give_up(self, request, error):
        self.lost.append((request, error))

    def run_posts(self):
        while self.posted:
            self.posted.pop(0)()


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def retries(client):
    return client.retries


def test_what_failed_goes_to_a_replica_that_has_not_tried_it(client, retries):
    request = Request()
    assert retries.take(request, "gpu", LOST)
    assert len(retries) == 1
    assert retries.sends({"gpu": 0, "cpu": 5}) == [("cpu", request)]
    client.run_posts()
    assert (client.reports, len(retries)) == ([], 0)  # nobody has to be asked


def test_an_answer_proves_who_was_at_fault(client, retries):
    request = Request()
    retries.take(request, "gpu", LOST)
    retries.sends({"cpu": 0})
    client.run_posts()
    retries.worked(request)
    client.run_posts()
    assert client.reports == [("gpu", "the device is lost", True)]


@pytest.mark.parametrize("error", [None, InputError("bad"), ValueError("bad")])
def test_only_a_device_that_fails_is_a_reason_to_try_again(retries, error):
    assert not retries.take(Request(), "gpu", error)


def test_a_request_is_not_tried_for_ever(retries):
    assert not retries.take(Request(attempts=3), "gpu", LOST)


def test_without_another_replica_the_last_error_is_raised(client, retries):
    request = Request()
    retries.take(request, "gpu", LOST)
    assert retries.sends({"gpu": 0}) == []
    client.run_posts()
    assert client.reports == [("gpu", "the device is lost", False)]
    assert client.lost == [(request, LOST)]
    assert len(retries) == 0


def test_a_router_that_cannot_be_asked_is_no_hope(client, retries):
    client.version = ModelError("gone")
    retries.take(Request(), "gpu", LOST)
    client.run_posts()
    assert len(client.lost) == 1


def test_one_waits_for_the_replica_that_the_router_promises(client, retries):
    client.version = 7
    request = Request()
    retries.take(request, "gpu", LOST)
    client.run_posts()
    retries.routes_came(6, expects_more=False)  # from before it was asked
    retries.routes_came(7, expects_more=True)
    assert client.lost == []
    assert retries.sends({"gpu": 0, "npu": 0}) == [("npu", request)]


def test_when_the_promised_replica_does_not_come_the_error_is_raised(client, retries):
    client.version = 7
    request = Request()
    retries.take(request, "gpu", LOST)
    client.run_posts()
    retries.routes_came(7, expects_more=True)
    retries.routes_came(8, expects_more=False)
    assert client.lost == [(request, LOST)]


def test_routes_that_came_before_the_answer_count(client, retries):
    client.version = 7
    retries.take(Request(), "gpu", LOST)
    retries.routes_came(7, expects_more=False)
    assert client.lost == []
    client.run_posts()
    assert len(client.lost) == 1


def test_closing_lets_go_of_everything(client, retries):
    request = Request()
    retries.take(request, "gpu", LOST)
    assert retries.clear() == [request]
    client.run_posts()
    assert (client.reports, client.lost) == ([], [])
