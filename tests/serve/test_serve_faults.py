"""The catalog is killed while the server is asked all the time."""

from __future__ import annotations

import os
import signal

from tests.cluster.tools import wait_until
from tests.serve.serving_tools import ended
from tests.serve.steady import Steady


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
    assert steady.failures == []
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
