"""Where replicas go: AUTO over all devices of all nodes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from atriva_inference.device import Device, DeviceSpec, Selection, device_kind, device_rank
from atriva_inference.errors import DeviceNotAvailableError, OptionError
from atriva_inference.options import PerformanceHint

__all__ = ["Node", "Placement", "Seat", "assign", "find_seats", "seat_rank", "with_cpus"]


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster as AUTO sees it.

    Attributes:
        node_id: Ray's id of the node.
        name: what people call it; the part before the slash of ``node/device``.
        cpu_count: CPUs that Ray may grant on it.
        devices: what a probe on the node itself found.
    """

    node_id: str
    name: str
    cpu_count: float
    devices: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """A device of one node, or a composite like ``HETERO:GPU,CPU`` of its devices."""

    node_id: str
    node_name: str
    device: str

    @property
    def label(self) -> str:
        """The seat as people write it: ``node/device``."""
        return f"{self.node_name}/{self.device}"

    @property
    def takes_cpus(self) -> bool:
        """Whether the model computes on the node's processor."""
        return "CPU" in self.device


@dataclass(frozen=True, slots=True)
class Placement:
    """A seat for one replica.

    Attributes:
        seat: where it runs.
        cpu_count: CPUs to have Ray grant; 0 when none are free or the device brings its own.
    """

    seat: Seat
    cpu_count: int


def find_seats(nodes: Sequence[Node], spec: DeviceSpec, hint: PerformanceHint) -> list[list[Seat]]:
    """Return groups of seats, the most preferred group first.

    A model goes to the first group in which any device can compile it, and then onto that group
    alone: all GPUs of the cluster, else all NPUs, else other plug-ins' devices, else CPUs. A list
    (``AUTO:GPU,CPU``) makes one group of each entry. ``MULTI:`` and CUMULATIVE_THROUGHPUT make one
    group of everything; ``HETERO:`` and ``BATCH:`` make one of every node that has all the parts.

    Raises:
        DeviceNotAvailableError: no node has what was asked for.
    """
    in_reach = [node for node in nodes if spec.node in (None, node.name, node.node_id)]
    if not in_reach:
        raise DeviceNotAvailableError(spec.text, _labels(nodes), "on this cluster")
    if spec.selection in (Selection.HETERO, Selection.BATCH):
        return [_composite_seats(in_reach, spec)]
    owners = {
        replace(device, node=node.node_id): node for node in in_reach for device in node.devices
    }
    wanted = spec
    if spec.selection is Selection.EXACT:  # one process takes the first, a cluster takes them all
        wanted = replace(spec, selection=Selection.AUTO)
    try:
        chosen = wanted.choose(owners)
    except DeviceNotAvailableError as error:
        where = "on this cluster" if spec.node is None else f"on node {spec.node}"
        found = tuple(dict.fromkeys(error.available))
        raise DeviceNotAvailableError(error.requested, found, where) from None
    seats = [Seat(owners[device].node_id, owners[device].name, device.name) for device in chosen]
    is_together = (
        spec.selection in (Selection.MULTI, Selection.EXACT)
        or hint is PerformanceHint.CUMULATIVE_THROUGHPUT
    )
    return [seats] if is_together else _grouped(seats, spec)


def seat_rank(seat: Seat, spec: DeviceSpec) -> int:
    """Return how much a seat is preferred, lower is better: in the order of a list, else AUTO's."""
    is_list = spec.selection in (Selection.AUTO, Selection.MULTI) and spec.candidates
    if not is_list:
        return device_rank(seat.device)
    return next(
        place
        for place, name in enumerate(spec.candidates)
        if name.partition("(")[0] in (seat.device, device_kind(seat.device))
    )


def with_cpus(
    groups: Sequence[Sequence[Seat]], nodes: Sequence[Node], cpus_per_replica: int | None
) -> list[list[Seat]]:
    """Leave out seats on processors whose node has too few CPUs to grant.

    Without `cpus_per_replica`, seats of nodes without any CPU stay where there are no others: a
    replica there runs on one thread that Ray does not count.

    Raises:
        OptionError: no node is large enough for `cpus_per_replica`.
    """
    totals = {node.node_id: node.cpu_count for node in nodes}
    fitting = [
        [seat for seat in group if not seat.takes_cpus or totals[seat.node_id] >= needed]
        for needed in (cpus_per_replica or 1,)
        for group in groups
    ]
    fitting = [group for group in fitting if group]
    if not fitting and cpus_per_replica is not None:
        largest = max(totals.values(), default=0.0)
        raise OptionError(
            "cpus_per_replica", str(cpus_per_replica), f"at most {largest:g}, the largest node's"
        )
    return fitting or [list(group) for group in groups]


def assign(
    seats: Sequence[Seat],
    nodes: Sequence[Node],
    granted_cpus: Mapping[str, float],
    replica_count: int | None,
    cpus_per_replica: int | None = None,
) -> list[Placement]:
    """Spread replicas over seats in turn and share out each node's free CPUs among them.

    Args:
        seats: one group, the most preferred seat first.
        nodes: the nodes the seats are on.
        granted_cpus: CPUs that replicas hold already, by node id.
        replica_count: how many replicas; None puts one on every seat.
        cpus_per_replica: CPUs of each replica on a processor; None shares out what is free.
    """
    count = len(seats) if replica_count is None else replica_count
    taken = [seats[index % len(seats)] for index in range(count)]
    per_node = Counter(seat.node_id for seat in taken if seat.takes_cpus)
    totals = {node.node_id: node.cpu_count for node in nodes}
    placements = []
    for seat in taken:
        free = totals[seat.node_id] - granted_cpus.get(seat.node_id, 0)
        share = math.floor(free / per_node[seat.node_id]) if seat.takes_cpus else 0
        if seat.takes_cpus and cpus_per_replica is not None:
            share = cpus_per_replica
        placements.append(Placement(seat, max(0, share)))
    return placements


def _labels(nodes: Sequence[Node]) -> list[str]:
    return [f"{node.name}/{device.name}" for node in nodes for device in node.devices]


def _composite_seats(nodes: Sequence[Node], spec: DeviceSpec) -> list[Seat]:
    device = f"{spec.selection}:{','.join(spec.candidates)}"
    seats = []
    for node in nodes:
        with suppress(DeviceNotAvailableError):
            spec.choose(node.devices)
            seats.append(Seat(node.node_id, node.name, device))
    if not seats:
        raise DeviceNotAvailableError(spec.text, _labels(nodes), "on any one node")
    return seats


def _grouped(seats: Sequence[Seat], spec: DeviceSpec) -> list[list[Seat]]:
    groups: dict[object, list[Seat]] = {}
    for seat in seats:
        groups.setdefault(seat_rank(seat, spec), []).append(seat)
    return list(groups.values())
