"""While a model is asked all the time, its version changes, and its processes are killed."""

from __future__ import annotations

import os
import signal
from collections import Counter

from tests.cluster.tools import wait_until
from tests.serve.serving_tools import ended
from tests.serve.steady import HTTP_CLIENTS, REQUESTS, Steady

SOME = REQUESTS // 10
KILLED = "an ingress is killed"
LOSSES = ("connection: ", "StatusCode.UNAVAILABLE: ")


def test_requests_are_answered_whatever_happens(server, repository, nodes, record_property):
    repository.add_plus("moving", 1)
    assert server.load("moving") == (200, None)
    with Steady(server, "moving") as steady:
        steady.begin("a version goes live")
        steady.go_on(SOME)
        _go_live(2, steady, server, repository, nodes)

        steady.begin("a replica is killed")
        steady.go_on(SOME)
        (replica,) = nodes.replicas("moving")
        os.kill(replica, signal.SIGKILL)
        wait_until(lambda: nodes.replicas("moving") not in ([], [replica]))

        steady.begin("another version goes live")
        steady.go_on(SOME)
        _go_live(3, steady, server, repository, nodes)

        steady.go_on(SOME)
        victim, *others = nodes.serving("Ingress")
        assert len(others) == 1
        steady.begin(KILLED)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: ended([victim]))
        # Whose connection is gone has noticed by then: over HTTP the first time that it uses it,
        # over gRPC the second time, if it began that one before the channel knew.
        steady.go_round(3)

        steady.begin("the ingress starts again")
        wait_until(lambda: len(nodes.serving("Ingress")) == 2, every_s=0.5)
        wait_until(lambda: _is_answering(server, 20), every_s=0.5)
        steady.go_on(SOME)
        steady.fill_up()
    record_property("requests", steady.said())
    assert steady.wrong == []
    assert set(steady.answers) == {"1", "2", "3"}
    assert steady.count >= REQUESTS
    assert {each.phase for each in steady.failures} <= {KILLED}, steady.said()
    lost = Counter(each.client for each in steady.failures)
    assert all(count <= (1 if client < HTTP_CLIENTS else 2) for client, count in lost.items()), lost
    assert all(each.reason.startswith(LOSSES) for each in steady.failures), steady.said()
    assert others[0] in nodes.serving("Ingress")
    assert server.unload("moving") == (200, None)
    repository.remove("moving")


def _go_live(version, steady, server, repository, nodes):
    """Serve another version: no older one answers, or is there, afterwards."""
    old = nodes.replicas("moving")
    repository.add_plus("moving", version)
    assert server.load("moving") == (200, None)
    steady.expect(version)
    assert server.plus("moving") == (200, str(version), [version, version])
    wait_until(lambda: ended(old), timeout_s=20)


def _is_answering(server, times):
    """Whether both ingresses answer: the kernel spreads connections over them."""
    return all(server.plus("step") == (200, "1", [1, 1]) for _ in range(times))
