"""The router is killed, and every model with it, while a server is asked all the time."""

from __future__ import annotations

import math
import os
import signal
import time

import psutil
import pytest

from tests.cluster.tools import wait_until
from tests.serve.serving_tools import ended
from tests.serve.steady import REQUESTS, Steady

_BACK_S = 60
_CONNECTIONS = 20
"""The kernel spreads so many over both ingresses."""


@pytest.mark.parametrize("others", [[], ["Catalog"]], ids=["alone", "with the catalog"])
def test_the_router_is_killed_during_requests(server, nodes, cluster, others, record_property):
    before = ready(server)
    assert {"conv", "digits", "flat", "net", "step"} <= {name for name, _ in before}
    requests = {each: zeros_for(server, *each) for each in before}
    replicas = nodes.replicas()
    router = router_of(cluster)
    victims = [router.pid, *(pid for kind in others for pid in nodes.serving(kind))]
    with Steady(server, "step") as steady:
        steady.go_on(150)
        steady.begin("lost")
        killed_s = time.monotonic()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: ended([*victims, *replicas]))  # replicas end with the router
        wait_until(
            lambda: not lacking(server, requests),
            timeout_s=_BACK_S,
            every_s=0.5,
            what=lambda: f"{lacking(server, requests)} lack; {steady.said()}",
        )
        back_s = time.monotonic() - killed_s
        steady.go_round(1)  # what was asked before
        steady.begin("back")
        steady.go_on(150)
        steady.fill_up()
    record_property("requests", f"{steady.said()}; all back after {back_s:.1f} s")
    assert back_s < _BACK_S
    for failure in steady.failures:
        assert failure.phase == "lost", failure
        assert failure.reason.startswith(("HTTP 503", "StatusCode.UNAVAILABLE")), failure
    assert steady.wrong == []
    assert steady.count >= REQUESTS
    assert len(nodes.replicas()) == len(replicas)
    assert not set(nodes.replicas()) & set(replicas)


def ready(server):
    """Return the versions that are ready, by the index; none while there is no catalog."""
    status, states = server.ask("POST", "/v2/repository/index", {"ready": True})
    return {(each["name"], each["version"]) for each in states} if status == 200 else set()


def lacking(server, requests):
    """Return which of some versions are not ready, or do not answer on every connection."""
    there = ready(server)
    return [each for each in requests if each not in there or not answers(server, each, requests)]


def answers(server, version, requests):
    path = path_of(*version)
    return all(
        server.ask("POST", f"{path}/infer", requests[version])[0] == 200
        and server.ask("GET", f"{path}/ready")[0] == 200
        for _ in range(_CONNECTIONS)
    )


def zeros_for(server, name, version):
    """Return a request that a model answers."""
    status, metadata = server.ask("GET", path_of(name, version))
    assert status == 200
    inputs = []
    for port in metadata["inputs"]:
        shape = [max(size, 1) for size in port["shape"]]
        inputs.append({**port, "shape": shape, "data": [0] * math.prod(shape)})
    return {"inputs": inputs}


def path_of(name, version):
    return f"/v2/models/{name}/versions/{version}"


def router_of(cluster):
    (router,) = [
        process
        for node in cluster.nodes
        for process in psutil.Process(node.pid).children(recursive=True)
        if process.name().startswith("ray::Router")
    ]
    return router
