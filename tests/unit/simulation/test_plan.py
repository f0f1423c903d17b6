"""How many nodes a load needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atriva_inference.errors import OptionError
from atriva_ray.simulation.plan import plan
from atriva_ray.simulation.scenario import ReplicaGroup, Scenario

NODE = Scenario(
    replicas=(
        ReplicaGroup(name="fast", count=1, service_time_s=0.01, sigma=0.2),
        ReplicaGroup(name="slow", count=2, service_time_s=0.04, sigma=0.2),
    ),
    clients=8,
    rate_per_s=2_000,
    duration_s=3,
    warm_up_s=1,
)


@pytest.mark.parametrize("policy", ["all-queues", "ours", "random"])
def test_one_node_less_is_not_enough(policy):
    tries = {each.nodes: each for each in plan(NODE, 0.1, policy)}
    least = min(each.nodes for each in tries.values() if each.is_enough)
    assert tries[least].p99_s <= 0.1
    fewest = -(-2_000 // 150)
    assert least == fewest or tries[least - 1].p99_s > 0.1
    assert min(tries) == fewest  # fewer could not even answer all


def test_who_chooses_better_needs_fewer_nodes():
    needed = {}
    for policy in ("all-queues", "random"):
        needed[policy] = min(each.nodes for each in plan(NODE, 0.1, policy) if each.is_enough)
    assert needed["all-queues"] < needed["random"]


@pytest.mark.parametrize(
    ("node", "p99_s", "message"),
    [
        (replace(NODE, rate_per_s=None, load=0.5), 0.1, "rate_per_s"),
        (NODE, 0.01, "which one takes"),
        (NODE, float("nan"), "which one takes"),
        (replace(NODE, rate_per_s=50, duration_s=1, warm_up_s=0), 0.0102, "10,000 nodes"),
    ],
)
def test_what_cannot_be_planned_is_told(node, p99_s, message):
    with pytest.raises(OptionError, match=message):
        list(plan(node, p99_s, "random"))
