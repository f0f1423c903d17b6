"""Replicas that something goes wrong with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_inference.errors import OptionError
from atriva_ray.simulation.arrivals import Arrivals
from atriva_ray.simulation.choosers import POLICIES
from atriva_ray.simulation.faults import Fault
from atriva_ray.simulation.scenario import ReplicaGroup, Scenario
from atriva_ray.simulation.simulate import simulate
from atriva_ray.simulation.workload import make_workload

MIXED = Scenario(
    replicas=(
        ReplicaGroup(name="fast", count=4, service_time_s=0.001, sigma=0.3),
        ReplicaGroup(name="slow", count=12, service_time_s=0.01, sigma=0.3, slots=2),
    ),
    clients=5,
    load=0.4,
    duration_s=1,
)


def one_replica(fault, *times_s):
    """A second each, with nothing else that takes time."""
    group = ReplicaGroup(name="one", count=1, service_time_s=1)
    arrivals = Arrivals("", np.array(times_s, float))
    return Scenario(
        replicas=(group,), arrivals=arrivals, duration_s=100, network_s=0, faults=(fault,)
    )


def outcome(scenario, policy="ours"):
    return simulate(scenario, make_workload(scenario), policy)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("what", "latencies_s"),
    [
        # Half is done at 0.5 s, a fifth in the two seconds that follow, 0.3 s are left then.
        ({"slowdown": 10}, [2.8, 3.8, 1]),
        ({"slowdown": 0.5}, [0.75, 1.25, 1]),
        ({"stops": True}, [3, 4, 1]),
        # All begins anew at 2.5 s.
        ({"dies": True, "detection_s": 0.1}, [3.5, 4.5, 1]),
        # Nobody learns of it before 3.5 s, when it is back for long.
        ({"dies": True, "detection_s": 3}, [4.5, 5.5, 1]),
    ],
)
def test_what_runs_meanwhile_takes_longer(policy, what, latencies_s):
    found = outcome(one_replica(Fault(at_s=0.5, for_s=2, count=1, **what), 0, 0, 10), policy)
    # Who comes again after a death is not asked in the order of before.
    np.testing.assert_allclose(sorted(found.latencies_s), sorted(latencies_s))
    assert found.unanswered == 0
    assert found.groups[0].share == 1


def test_a_hung_replica_has_no_time_for_what_comes():
    found = outcome(one_replica(Fault(at_s=2, for_s=5, count=1, stops=True), 3))
    np.testing.assert_allclose(found.latencies_s, [5])
    assert found.groups[0].busy == pytest.approx(1 / 8)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_dead_replica_had_is_answered_by_another(policy):
    """Of two requests it had one, or both: they go to the other replica, 0.1 s after the death."""
    groups = tuple(ReplicaGroup(name=name, count=1, service_time_s=1) for name in "ab")
    fault = Fault(at_s=0.5, group="b", count=1, dies=True, detection_s=0.1)
    arrivals = Arrivals("", np.zeros(2))
    scenario = Scenario(
        replicas=groups, arrivals=arrivals, duration_s=9, network_s=0, faults=(fault,)
    )
    for seed in range(20):
        found = outcome(replace(scenario, seed=seed), policy)
        had_both = found.latencies_s.min() > 1.5
        np.testing.assert_allclose(np.sort(found.latencies_s), [1.6, 2.6] if had_both else [1, 2])
        assert not (had_both and policy in ("ours", "all-queues", "oracle", "least-loaded"))
        assert [group.share for group in found.groups] == [1, 0]


@pytest.mark.parametrize("policy", POLICIES)
def test_nobody_asks_who_is_known_to_be_dead(policy):
    """It is known from 2 s on, so of what comes then nothing is lost; that would take a second."""
    fault = Fault(at_s=1, share=0.5, group="slow", dies=True, detection_s=1)
    arrivals = Arrivals("", np.linspace(0, 10, 2_000))
    scenario = replace(
        MIXED, load=None, arrivals=arrivals, duration_s=11, warm_up_s=2.1, faults=(fault,)
    )
    found = outcome(scenario, policy)
    assert found.latencies_s.max() < 0.5


def test_who_dies_and_comes_back_is_asked_again():
    fault = Fault(at_s=1, for_s=1, share=1, group="fast", dies=True)
    scenario = replace(MIXED, duration_s=4, load=0.2, faults=(fault,))
    for policy in POLICIES:
        fast, _ = outcome(scenario, policy).groups
        never = replace(scenario, faults=(replace(fault, for_s=None),))
        assert fast.busy > 1.5 * outcome(never, policy).groups[0].busy, policy


@pytest.mark.parametrize("policy", ["all-queues", "oracle"])
def test_replicas_that_are_slow_from_the_start_are_like_another_group(policy):
    alike = {"service_time_s": 0.01, "sigma": 0.3}
    one = (ReplicaGroup(name="all", count=20, **alike),)
    two = (
        ReplicaGroup(name="good", count=19, **alike),
        ReplicaGroup(name="slowed", count=1, service_time_s=0.1, sigma=0.3),
    )
    fault = Fault(at_s=0, share=0.05, slowdown=10)
    slowed = replace(MIXED, replicas=one, load=None, rate_per_s=1_500, faults=(fault,))
    first, second = (
        outcome(slowed, policy),
        outcome(replace(slowed, replicas=two, faults=()), policy),
    )
    np.testing.assert_allclose(first.latencies_s, second.latencies_s)
    assert first.idle_while_waiting == pytest.approx(second.idle_while_waiting)


@pytest.mark.parametrize("what", [{"slowdown": 10}, {"stops": True}, {"dies": True}])
def test_who_knows_what_is_wrong_does_better(what):
    fault = Fault(at_s=0.3, for_s=0.3, share=0.25, **what)
    scenario = replace(MIXED, clients=3, faults=(fault,))
    found = {policy: outcome(scenario, policy).latencies_s.mean() for policy in POLICIES}
    assert min(found, key=found.__getitem__) in ("all-queues", "oracle")
    healthy = outcome(replace(scenario, faults=()), "all-queues").latencies_s.mean()
    assert found["all-queues"] >= healthy


def test_a_request_of_a_replica_that_hangs_for_good_is_not_answered():
    found = outcome(replace(MIXED, faults=(Fault(at_s=0.5, count=3, stops=True),)))
    assert 0 < found.unanswered < len(found.latencies_s) / 10
    assert found.quantile_s(0.5) < 1
    assert found.quantile_s(1) == np.inf
    assert 0.9 < found.ended_s < 2
    # Requests wait with it to the end, while others could have answered them.
    assert found.idle_while_waiting > 0.3 / 0.01


def pair_and_fault(a_s, b_s, fault, *times_s):
    groups = tuple(
        ReplicaGroup(name=name, count=1, service_time_s=each)
        for name, each in (("a", a_s), ("b", b_s))
    )
    return Scenario(
        replicas=groups,
        arrivals=Arrivals("", np.array(times_s, float)),
        duration_s=10,
        network_s=0,
        faults=(fault,),
    )


def test_what_a_hung_replica_runs_waits():
    """For two seconds, beside one that would take ten for it."""
    fault = Fault(at_s=0.5, for_s=2, group="a", count=1, stops=True)
    found = outcome(pair_and_fault(1, 10, fault, 0), "all-queues")
    np.testing.assert_allclose(found.latencies_s, [3])
    assert found.idle_while_waiting == pytest.approx(0.2)


def test_who_knows_all_queues_knows_how_fast_they_get_shorter():
    """Two of four seconds are left when all takes a quarter: so the next one goes there too."""
    fault = Fault(at_s=2, group="a", count=1, slowdown=0.25)
    found = outcome(pair_and_fault(4, 5, fault, 0, 2.1), "all-queues")
    np.testing.assert_allclose(found.latencies_s, [2.5, 1.4])


def test_all_replicas_may_die_for_good():
    fault = Fault(at_s=0.5, share=1, dies=True)
    for policy in POLICIES:
        found = outcome(replace(MIXED, faults=(fault,)), policy)
        assert found.unanswered == pytest.approx(len(found.latencies_s) / 2, rel=0.1)


FAULTS = st.lists(
    st.builds(
        lambda kind, **told: Fault(**told, **kind),
        kind=st.sampled_from([{"slowdown": 4}, {"slowdown": 0.5}, {"stops": True}, {"dies": True}]),
        at_s=st.floats(0, 1.5),
        for_s=st.floats(1e-6, 0.5),
        detection_s=st.sampled_from([0.0, 0.001, 0.2]),
        group=st.sampled_from([None, "fast", "slow"]),
        share=st.floats(0.01, 1),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(FAULTS, st.sampled_from(list(POLICIES)), st.floats(0, 1))
def test_what_goes_wrong_for_a_time_costs_no_answer(faults, policy, load):
    scenario = replace(MIXED, load=0.01 + load, duration_s=0.6, faults=tuple(faults))
    found = outcome(scenario, policy)
    assert np.isfinite(found.latencies_s).all()
    assert sum(group.share for group in found.groups) == pytest.approx(1)
    assert all(0 <= group.busy <= 1 + 1e-9 for group in found.groups)
    np.testing.assert_array_equal(found.latencies_s, outcome(scenario, policy).latencies_s)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "share or count"),
        ({"share": 0.1, "count": 1, "stops": True}, "share or count"),
        ({"count": 1}, "one of slowdown"),
        ({"count": 1, "stops": True, "dies": True}, "2 at once"),
        ({"count": 1, "stops": "yes"}, "stops='yes'"),
        ({"count": 0, "stops": True}, "count='0'"),
        ({"share": 1.5, "stops": True}, "share='1.5'"),
        ({"share": 0, "stops": True}, "share='0'"),
        ({"count": 1, "slowdown": 0}, "slowdown='0'"),
        ({"count": 1, "dies": True, "detection_s": -1}, "detection_s='-1'"),
        ({"count": 1, "dies": True, "for_s": 0}, "for_s='0'"),
        ({"count": 1, "dies": True, "group": 3}, "group='3'"),
    ],
)
def test_what_a_fault_cannot_be_is_told(told, message):
    with pytest.raises(OptionError, match=message):
        Fault(at_s=0, **told)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"count": 17}, "no more than there are: 16"),
        ({"count": 5, "group": "fast"}, "no more than there are: 4"),
        ({"count": 5, "group": "quick"}, "one of fast, slow"),
    ],
)
def test_faults_hit_replicas_that_there_are(told, message):
    with pytest.raises(OptionError, match=message):
        replace(MIXED, faults=(Fault(at_s=0, stops=True, **told),))


@pytest.mark.parametrize(("share", "count"), [(1e-9, 1), (0.25, 4), (1.0, 16)])
def test_a_share_is_at_least_one(share, count):
    assert Fault(at_s=0, share=share, stops=True).hit_count(16) == count
