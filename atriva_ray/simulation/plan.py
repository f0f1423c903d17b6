"""How many nodes a load needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from atriva_inference.errors import OptionError
from atriva_ray.simulation.scenario import Scenario
from atriva_ray.simulation.simulate import simulate
from atriva_ray.simulation.workload import make_workload

__all__ = ["Try", "fewest", "plan"]

_MOST_NODES = 10_000


@dataclass(frozen=True, slots=True)
class Try:
    """A number of nodes, and how they did.

    Attributes:
        nodes: how many.
        p99_s: what 99 of 100 requests did not take longer than.
        is_enough: whether that is what was asked for.
    """

    nodes: int
    p99_s: float
    is_enough: bool


def plan(node: Scenario, p99_s: float, policy: str) -> Iterator[Try]:
    """Look for the least number of nodes with which 99 of 100 requests take no longer than that.

    Twice as many at each try until they are enough, then halves of what is between; so a number is
    found with which it is enough, while it is not with one less. Each try is a simulation.

    Args:
        node: one node, and the requests per second of all clients together.
        p99_s: the goal.
        policy: who chooses.

    Yields:
        Each try; of those that were enough, the one with the fewest nodes is the plan.

    Raises:
        OptionError: no number of nodes can be enough, or the scenario has a load, which would grow
            with the nodes.
    """
    if node.load is not None:
        expected = "rate_per_s in its place: a load grows with the nodes"
        raise OptionError("load", str(node.load), expected)
    fastest_s = min(group.service_time_s for group in node.replicas) + 2 * node.network_s
    fastest_s += node.request_transfer_s + node.answer_transfer_s
    if not p99_s > fastest_s:
        raise OptionError("plan", f"{p99_s:g} s", f"more than {fastest_s:g} s, which one takes")
    too_few = max(0, math.ceil(node.asked_per_s / node.capacity_per_s) - 1)
    nodes, enough = too_few + 1, None
    while enough is None or enough - too_few > 1:
        if nodes > _MOST_NODES:
            raise OptionError("plan", f"{p99_s:g} s", f"what {_MOST_NODES:,} nodes can do")
        tried = _try(node, nodes, p99_s, policy)
        yield tried
        if tried.is_enough:
            enough = nodes
        else:
            too_few = nodes
        nodes = 2 * nodes if enough is None else (too_few + enough) // 2


def fewest(tries: Iterable[Try]) -> Try:
    """Return the one that was enough with the fewest nodes; there has to be one."""
    return min((each for each in tries if each.is_enough), key=lambda each: each.nodes)


def _try(node: Scenario, nodes: int, p99_s: float, policy: str) -> Try:
    groups = tuple(replace(group, count=group.count * nodes) for group in node.replicas)
    scenario = replace(node, replicas=groups)
    found_s = simulate(scenario, make_workload(scenario), policy).quantile_s(0.99)
    return Try(nodes, found_s, not found_s > p99_s)
