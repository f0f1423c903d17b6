"""What comes of simulations, beside what queueing theory says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atriva_inference.errors import OptionError
from atriva_ray.simulation.arrivals import Arrivals
from atriva_ray.simulation.choosers import POLICIES, find_policies
from atriva_ray.simulation.scenario import ReplicaGroup, Scenario
from atriva_ray.simulation.simulate import simulate
from atriva_ray.simulation.workload import make_workload

MIXED = Scenario(
    replicas=(
        ReplicaGroup(name="fast", count=4, service_time_s=0.001, sigma=0.3),
        ReplicaGroup(name="slow", count=12, service_time_s=0.01, sigma=0.3, slots=2),
    ),
    clients=5,
    load=0.6,
    duration_s=2,
    warm_up_s=0.5,
)


def outcome(scenario, policy):
    return simulate(scenario, make_workload(scenario), policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_is_answered_once_and_takes_its_time(policy):
    found = outcome(MIXED, policy)
    workload = make_workload(MIXED)
    assert len(found.latencies_s) == np.count_nonzero(workload.times_s >= MIXED.warm_up_s)
    assert np.isfinite(found.latencies_s).all()
    shortest = 2 * MIXED.network_s + 0.001 * np.exp(0.3 * workload.sizes.min() - 0.045)
    assert found.latencies_s.min() >= shortest
    assert sum(group.share for group in found.groups) == pytest.approx(1)
    assert all(0 <= group.busy <= 1 for group in found.groups)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_simulation_can_be_repeated(policy):
    first, second = outcome(MIXED, policy), outcome(MIXED, policy)
    np.testing.assert_array_equal(first.latencies_s, second.latencies_s)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_one_replica_makes_requests_wait_as_long_as_theory_says(policy, sigma):
    """Pollaczek and Khinchine: the mean wait is ``rate * mean square service / (2 * (1 - load))``.

    The mean square of a lognormal distribution is its squared mean times ``exp(sigma²)``.
    """
    replica = ReplicaGroup(name="one", count=1, service_time_s=0.01, sigma=sigma)
    scenario = Scenario(replicas=(replica,), load=0.7, duration_s=1_500, warm_up_s=10, network_s=0)
    wait_s = 70 * 0.01**2 * np.exp(sigma**2) / (2 * (1 - 0.7))
    assert outcome(scenario, policy).latencies_s.mean() == pytest.approx(0.01 + wait_s, rel=0.06)


def test_slots_are_as_good_as_replicas_to_who_sees_all_queues():
    alike = {"name": "one", "service_time_s": 0.01, "sigma": 0.3}
    scenario = replace(MIXED, replicas=(ReplicaGroup(count=6, **alike),))
    with_slots = replace(MIXED, replicas=(ReplicaGroup(count=2, slots=3, **alike),))
    first, second = (outcome(each, "all-queues") for each in (scenario, with_slots))
    np.testing.assert_allclose(first.latencies_s, second.latencies_s)


def test_who_knows_more_does_better():
    found = {policy: outcome(MIXED, policy).latencies_s.mean() for policy in POLICIES}
    assert found["oracle"] < found["all-queues"] < found["two-choices"] < found["random"]
    assert found["ours"] < found["two-choices"]


def test_ours_prefers_the_faster_and_leaves_them_no_time_to_rest():
    fast, slow = outcome(MIXED, "ours").groups
    assert fast.busy > 0.85
    assert fast.share > slow.share


def test_what_comes_too_late_is_not_in_time():
    overloaded = replace(MIXED, load=1.5, warm_up_s=0)
    found = outcome(overloaded, "oracle")
    assert found.in_time_per_s == pytest.approx(overloaded.capacity_per_s, rel=0.1)
    assert found.ended_s > overloaded.duration_s


def test_no_requests_are_no_error():
    quiet = replace(MIXED, load=None, rate_per_s=1e-9)
    found = outcome(quiet, "ours")
    assert len(found.latencies_s) == 0
    assert np.isnan(found.quantile_s(0.5))
    assert [group.busy for group in found.groups] == [0, 0]


def test_policies_by_name():
    assert find_policies(()) == tuple(POLICIES)
    assert find_policies(["oracle", "ours", "oracle"]) == ("oracle", "ours")
    with pytest.raises(OptionError, match="one of ours, round-robin"):
        find_policies(["best"])


def test_only_what_is_answered_within_the_deadline_is_of_use():
    found = outcome(MIXED, "random")
    assert found.good_per_s is None
    deadline_s = found.quantile_s(0.75)
    within = outcome(replace(MIXED, deadline_s=deadline_s), "random")
    np.testing.assert_array_equal(within.latencies_s, found.latencies_s)
    assert within.good_per_s * 1.5 == pytest.approx(0.75 * len(found.latencies_s), abs=1)


def test_a_replica_is_idle_while_requests_wait_for_another():
    """Two replicas, two requests: who has both run by the same one leaves the other idle."""
    pair = ReplicaGroup(name="pair", count=2, service_time_s=0.5)
    arrivals = Arrivals("", np.array([0.0, 0.1]))
    scenario = Scenario(replicas=(pair,), arrivals=arrivals, duration_s=1, network_s=0.01)
    found = {
        outcome(replace(scenario, seed=seed), "random").idle_while_waiting for seed in range(9)
    }
    # The second waits until the first is done, 0.4 s later.
    assert sorted(round(each, 6) for each in found) == [0, 0.8]
    assert outcome(scenario, "ours").idle_while_waiting == 0


def test_who_knows_all_queues_leaves_nobody_idle_for_long():
    found = {policy: outcome(MIXED, policy).idle_while_waiting for policy in POLICIES}
    assert found["all-queues"] < 1
    assert found["all-queues"] < found["two-choices"] < found["random"]


def test_requests_of_the_warm_up_do_not_count_as_waiting():
    pair = ReplicaGroup(name="pair", count=2, service_time_s=0.5)
    arrivals = Arrivals("", np.array([0.0, 0.0, 0.0, 5.0]))
    scenario = Scenario(replicas=(pair,), arrivals=arrivals, duration_s=6)
    for warm_up_s, most in ((0, 2), (1, 0)):
        seeds = [replace(scenario, warm_up_s=warm_up_s, seed=seed) for seed in range(20)]
        found = max(outcome(each, "random").idle_while_waiting for each in seeds)
        assert found == pytest.approx(most, abs=0.01)
