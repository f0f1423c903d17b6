"""Processes of a server are killed while it is asked all the time."""

from __future__ import annotations

import os
import signal

from tests.cluster.tools import wait_until
from tests.serve.serving_tools import ended
from tests.serve.steady import REQUESTS, Steady


def test_a_replica_is_killed_during_requests(server, nodes, record_property):
    (victim,) = nodes.replicas("step")
    with Steady(server, "step") as steady:
        steady.go_on(150)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: nodes.replicas("step") not in ([], [victim]))
        steady.go_on(150)
        steady.fill_up()
    record_property("requests", steady.said())
    assert steady.failures == {}
    assert steady.wrong == []
    assert steady.count >= REQUESTS


def test_the_catalog_is_killed_during_requests(server, repository, nodes, record_property):
    repository.add_plus("kept", 5)
    assert server.load("kept") == (200, None)
    assert server.unload("flat") == (200, None)
    (victim,) = nodes.serving("Catalog")
    before = nodes.replicas("kept")
    with Steady(server, "step") as steady:
        steady.go_on(150)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: ended([victim]))
        wait_until(lambda: server.load("kept") == (200, None), timeout_s=60, every_s=0.5)
        steady.go_on(150)
        steady.fill_up()
    record_property("requests", steady.said())
    assert steady.failures == {}
    assert steady.wrong == []
    assert server.plus("kept") == (200, "5", [5, 5])
    assert nodes.replicas("kept") == before
    assert server.index()["flat", "1"][0] == "UNAVAILABLE"
    repository.add_plus("kept", 6)
    assert server.load("kept") == (200, None)
    assert server.plus("kept") == (200, "6", [6, 6])
    assert server.unload("kept") == (200, None)
    wait_until(lambda: nodes.replicas("kept") == [])
    assert server.load("flat") == (200, None)


def test_an_ingress_is_killed_during_requests(server, nodes, record_property):
    ingresses = nodes.serving("Ingress")
    victim = ingresses[0]
    assert len(ingresses) == 2
    with Steady(server, "step") as steady:
        steady.go_on(150)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: ended([victim]))
        wait_until(lambda: len(nodes.serving("Ingress")) == 2, every_s=0.5)
        wait_until(lambda: _is_answering(server, 20), every_s=0.5)
        steady.go_on(300)
        steady.fill_up()
    record_property("requests", steady.said())
    # Its clients lose what was under way, and those of gRPC perhaps one more.
    assert steady.failures.total() <= 20, steady.said()
    for failure in steady.failures:
        assert failure.startswith(("connection: ", "HTTP 503", "StatusCode.UNAVAILABLE")), failure
    assert steady.wrong == []
    assert steady.count >= REQUESTS
    assert ingresses[1] in nodes.serving("Ingress")


def _is_answering(server, times):
    """Whether both ingresses answer: the kernel spreads connections over them."""
    return all(server.plus("step") == (200, "1", [1, 1]) for _ in range(times))
