"""The requests of a scenario."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atriva_ray.simulation.scenario import Burst, ReplicaGroup, Scenario
from atriva_ray.simulation.workload import make_workload

ONE = ReplicaGroup(name="one", count=1, service_time_s=0.001)
STEADY = Scenario(replicas=(ONE,), clients=4, rate_per_s=500, duration_s=100)
BURSTS = replace(STEADY, bursts=Burst(on_s=0.2, off_s=0.6))


@pytest.mark.parametrize("scenario", [STEADY, BURSTS])
def test_the_same_seed_makes_the_same_requests(scenario):
    first, second = make_workload(scenario), make_workload(scenario)
    other = make_workload(replace(scenario, seed=2))
    for name in ("times_s", "clients", "sizes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert len(first) != len(other) or (first.times_s != other.times_s).any()


@pytest.mark.parametrize(("scenario", "tolerance"), [(STEADY, 0.02), (BURSTS, 0.3)])
def test_requests_come_as_often_as_is_asked_for(scenario, tolerance):
    workload = make_workload(scenario)
    assert len(workload) == pytest.approx(50_000, rel=tolerance)
    assert (np.diff(workload.times_s) >= 0).all()
    assert 0 <= workload.times_s[0] < workload.times_s[-1] < 100
    assert (np.bincount(workload.clients, minlength=4) > 10_000).all()
    assert workload.sizes.mean() == pytest.approx(0, abs=0.02)
    assert workload.sizes.std() == pytest.approx(1, abs=0.02)


def test_in_bursts_requests_come_closer_together():
    """Counts in windows of 50 ms vary as in a Poisson process, or much more."""
    spread = []
    for scenario in (STEADY, BURSTS):
        counts, _ = np.histogram(make_workload(scenario).times_s, bins=2_000)
        spread.append(counts.var() / counts.mean())
    assert spread[0] == pytest.approx(1, abs=0.15)
    assert spread[1] > 10
