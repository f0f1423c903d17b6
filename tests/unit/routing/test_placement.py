"""AUTO over a cluster: which seats a device expression means, and how CPUs are shared on them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.device import Device, DeviceSpec
from atriva_inference.errors import DeviceNotAvailableError, OptionError
from atriva_inference.options import PerformanceHint
from atriva_ray.routing.placement import Node, Placement, Seat, assign, find_seats, with_cpus


def node(name, *devices, cpus=8.0):
    return Node(f"id-{name}", name, cpus, tuple(Device(device) for device in devices))


EDGE = node("edge", "CPU", "GPU.0", "NPU")
RACK = node("rack", "CPU", "GPU.0", "GPU.1")
BARE = node("bare", "FASTCPU", "CPU")
CLUSTER = [EDGE, RACK, BARE]

ALL_GPUS = ["edge/GPU.0", "rack/GPU.0", "rack/GPU.1"]
ALL_CPUS = ["edge/CPU", "rack/CPU", "bare/CPU"]


def seats_of(text, nodes=CLUSTER, hint=PerformanceHint.THROUGHPUT):
    return find_seats(nodes, DeviceSpec.parse(text), hint)


def labels_of(text, nodes=CLUSTER, hint=PerformanceHint.THROUGHPUT):
    return [[seat.label for seat in group] for group in seats_of(text, nodes, hint)]


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("AUTO", [ALL_GPUS, ["edge/NPU"], ["bare/FASTCPU"], ALL_CPUS]),
        ("AUTO:GPU,CPU", [ALL_GPUS, ALL_CPUS]),
        ("AUTO:CPU,GPU", [ALL_CPUS, ALL_GPUS]),
        ("AUTO:GPU.1,GPU", [["rack/GPU.1"], ["edge/GPU.0", "rack/GPU.0"]]),
        ("AUTO:GPU,GPU.1", [ALL_GPUS]),
        ("AUTO:GPU.7,NPU", [["edge/NPU"]]),
        ("AUTO:GPU(2),CPU(4)", [ALL_GPUS, ALL_CPUS]),
        ("AUTO:-GPU", [["edge/NPU"], ["bare/FASTCPU"], ALL_CPUS]),
        ("AUTO:-GPU.0,-CPU", [["rack/GPU.1"], ["edge/NPU"], ["bare/FASTCPU"]]),
        ("AUTO:GPU,-GPU.0,CPU", [["rack/GPU.1"], ALL_CPUS]),
        ("edge/AUTO", [["edge/GPU.0"], ["edge/NPU"], ["edge/CPU"]]),
        ("edge/AUTO:CPU,NPU", [["edge/CPU"], ["edge/NPU"]]),
    ],
)
def test_auto_groups_by_preference_over_all_nodes(text, groups):
    assert labels_of(text) == groups


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("GPU", ALL_GPUS),
        ("GPU.0", ["edge/GPU.0", "rack/GPU.0"]),
        ("GPU.1", ["rack/GPU.1"]),
        ("CPU", ALL_CPUS),
        ("fastcpu", ["bare/FASTCPU"]),
        ("rack/GPU", ["rack/GPU.0", "rack/GPU.1"]),
        ("rack/GPU.1", ["rack/GPU.1"]),
        ("id-rack/CPU", ["rack/CPU"]),
    ],
)
def test_one_device_stands_for_all_of_its_kind(text, group):
    assert labels_of(text) == [group]


def test_multi_makes_one_group_of_all_its_parts():
    assert labels_of("MULTI:NPU,CPU") == [["edge/NPU", *ALL_CPUS]]
    assert labels_of("edge/MULTI:CPU,GPU") == [["edge/CPU", "edge/GPU.0"]]


def test_cumulative_throughput_makes_one_group_of_everything():
    hint = PerformanceHint.CUMULATIVE_THROUGHPUT
    everything = [*ALL_GPUS, "edge/NPU", "bare/FASTCPU", *ALL_CPUS]
    assert labels_of("AUTO", hint=hint) == [everything]
    assert labels_of("AUTO:CPU,NPU", hint=hint) == [[*ALL_CPUS, "edge/NPU"]]


def test_a_composite_takes_only_nodes_that_have_all_its_parts():
    assert labels_of("HETERO:GPU,NPU") == [["edge/HETERO:GPU,NPU"]]
    assert labels_of("HETERO:GPU,CPU") == [["edge/HETERO:GPU,CPU", "rack/HETERO:GPU,CPU"]]
    assert labels_of("rack/HETERO:GPU.1,CPU") == [["rack/HETERO:GPU.1,CPU"]]
    assert labels_of("BATCH:GPU.1(4)") == [["rack/BATCH:GPU.1(4)"]]


@pytest.mark.parametrize("text", ["AUTO", "GPU", "GPU.0", "AUTO:GPU", "MULTI:GPU,CPU"])
def test_a_discrete_gpu_comes_before_an_integrated_one_of_the_same_name(text):
    laptop = Node("1", "laptop", 8, (Device("GPU.0"), Device("CPU")))
    tower = Node("2", "tower", 8, (Device("GPU.0", is_discrete=True), Device("CPU")))
    for nodes in ([laptop, tower], [tower, laptop]):
        assert labels_of(text, nodes)[0][:2] == ["tower/GPU.0", "laptop/GPU.0"]


def test_a_node_without_the_library_has_no_seats():
    assert labels_of("AUTO", [node("empty"), node("full", "CPU")]) == [["full/CPU"]]


@pytest.mark.parametrize(
    ("text", "nodes", "message"),
    [
        ("GPU.3", CLUSTER, "no device 'GPU.3' on this cluster; found GPU.0, GPU.1, NPU, "),
        ("AUTO:GPU.3,TPU", CLUSTER, "no device 'AUTO:GPU.3,TPU' on this cluster; found GPU.0, "),
        ("AUTO:-CPU", [node("a", "CPU"), node("b", "CPU")], "on this cluster; found CPU ("),
        ("MULTI:CPU,NPU", [RACK, BARE], "no device 'NPU' on this cluster; found GPU.0, GPU.1, "),
        ("bare/GPU", CLUSTER, "no device 'bare/GPU' on node bare; found FASTCPU, CPU"),
        ("edge/MULTI:CPU,GPU.1", CLUSTER, "no device 'GPU.1' on node edge; found GPU.0, NPU, CPU"),
        ("shed/CPU", [BARE], "no device 'shed/CPU' on this cluster; found bare/FASTCPU, bare/CPU"),
        ("HETERO:GPU,NPU", [RACK, node("b", "NPU")], "on any one node; found rack/CPU, rack/GPU.0"),
        ("HETERO:GPU,NPU", [node("b", "NPU"), RACK], "on any one node; found b/NPU, rack/CPU"),
        ("edge/BATCH:GPU.1", CLUSTER, "on any one node; found edge/CPU, edge/GPU.0, edge/NPU"),
        ("CPU", [], "no device 'CPU' on this cluster; found none"),
        ("AUTO", [node("empty")], "no device 'AUTO' on this cluster; found none"),
    ],
)
def test_an_error_says_what_was_asked_for_and_what_there_is(text, nodes, message):
    with pytest.raises(DeviceNotAvailableError) as caught:
        seats_of(text, nodes)
    assert message in str(caught.value)


# -- sharing out CPUs ----------------------------------------------------------------------------

CPU_SEATS = [Seat(member.node_id, member.name, "CPU") for member in CLUSTER]
GPU_SEAT = Seat(EDGE.node_id, "edge", "GPU.0")


def test_one_replica_on_every_seat_gets_all_that_is_free():
    placements = assign(CPU_SEATS, CLUSTER, {RACK.node_id: 3}, None)
    assert placements == [
        Placement(seat, cpus) for seat, cpus in zip(CPU_SEATS, (8, 5, 8), strict=True)
    ]


def test_replicas_go_round_the_seats_and_share_each_nodes_cpus():
    placements = assign(CPU_SEATS, CLUSTER, {}, 5)
    assert [placement.seat for placement in placements] == [*CPU_SEATS, *CPU_SEATS[:2]]
    assert [placement.cpu_count for placement in placements] == [4, 4, 8, 4, 4]


def test_fewer_replicas_than_seats_take_the_preferred_seats():
    assert assign(CPU_SEATS, CLUSTER, {}, 1) == [Placement(CPU_SEATS[0], 8)]


def test_a_share_is_a_whole_number_of_cpus():
    placements = assign([Seat("id-n", "n", "CPU")], [node("n", "CPU", cpus=7.5)], {}, 2)
    assert [placement.cpu_count for placement in placements] == [3, 3]


@pytest.mark.parametrize("granted", [8, 8.5, 20])
def test_where_no_cpu_is_free_replicas_get_none(granted):
    assert assign(CPU_SEATS[:1], CLUSTER, {EDGE.node_id: granted}, None) == [
        Placement(CPU_SEATS[0], 0)
    ]


def test_a_device_that_brings_its_own_processor_takes_no_cpus():
    seats = [GPU_SEAT, CPU_SEATS[0]]
    assert [placement.cpu_count for placement in assign(seats, CLUSTER, {}, None)] == [0, 8]
    assert [placement.cpu_count for placement in assign(seats, CLUSTER, {}, None, 3)] == [0, 3]


@pytest.mark.parametrize("device", ["FASTCPU", "HETERO:GPU,CPU"])
def test_whatever_computes_on_the_processor_takes_cpus(device):
    seat = Seat(EDGE.node_id, "edge", device)
    assert assign([seat], CLUSTER, {}, None) == [Placement(seat, 8)]


def test_an_explicit_number_of_cpus_may_exceed_what_is_free():
    placements = assign(CPU_SEATS[:1], CLUSTER, {EDGE.node_id: 7}, 2, cpus_per_replica=6)
    assert [placement.cpu_count for placement in placements] == [6, 6]


# -- properties ----------------------------------------------------------------------------------

DEVICE_NAMES = ["CPU", "FASTCPU", "GPU.0", "GPU.1", "GPU.2", "NPU"]
WANTED = [*DEVICE_NAMES, "GPU", "TPU"]

clusters = st.lists(
    st.tuples(st.lists(st.sampled_from(DEVICE_NAMES), unique=True), st.floats(0, 64)), max_size=4
).map(
    lambda found: [
        node(f"n{index}", *devices, cpus=cpus) for index, (devices, cpus) in enumerate(found)
    ]
)


@st.composite
def expressions(draw):
    selection = draw(st.sampled_from(["", "AUTO", "MULTI", "HETERO", "BATCH"]))
    wanted = draw(st.lists(st.sampled_from(WANTED), unique=True, min_size=1, max_size=3))
    pin = draw(st.sampled_from(["", "", "n0/", "id-n1/"]))
    if not selection:
        return pin + wanted[0]
    if selection == "AUTO":
        excluded = draw(st.lists(st.sampled_from(WANTED), unique=True, max_size=3))
        parts = [*(wanted if draw(st.booleans()) else []), *(f"-{name}" for name in excluded)]
        return pin + selection + (":" + ",".join(parts) if parts else "")
    return f"{pin}{selection}:{','.join(wanted)}"


def means(wanted, device):
    return wanted in (device, device.split(".")[0])


def seats_meant(nodes, spec):
    """What the words of an expression mean, device by device."""
    allowed = {
        (member.node_id, device.name)
        for member in nodes
        if spec.node in (None, member.name, member.node_id)
        for device in member.devices
        if not any(means(name, device.name) for name in spec.excluded)
    }
    if not spec.candidates:
        return allowed
    found = [{seat for seat in allowed if means(name, seat[1])} for name in spec.candidates]
    if spec.selection in ("HETERO", "BATCH"):
        owners = set.intersection(*({node_id for node_id, _ in part} for part in found))
        return {(node_id, f"{spec.selection}:{','.join(spec.candidates)}") for node_id in owners}
    if spec.selection == "MULTI" and not all(found):
        return set()
    return set.union(*found)


@given(clusters, expressions(), st.sampled_from(PerformanceHint))
def test_seats_are_exactly_the_devices_that_are_meant(nodes, text, hint):
    spec = DeviceSpec.parse(text)
    meant = seats_meant(nodes, spec)
    if not meant:
        with pytest.raises(DeviceNotAvailableError):
            find_seats(nodes, spec, hint)
        return
    groups = find_seats(nodes, spec, hint)
    seats = [(seat.node_id, seat.device) for group in groups for seat in group]
    assert all(groups)
    assert len(set(seats)) == len(seats)
    assert set(seats) == meant
    if hint is PerformanceHint.CUMULATIVE_THROUGHPUT:
        assert len(groups) == 1


@given(clusters, st.data())
def test_shares_never_exceed_what_is_free(nodes, data):
    try:
        groups = find_seats(nodes, DeviceSpec.parse("AUTO"), PerformanceHint.THROUGHPUT)
    except DeviceNotAvailableError:
        return
    seats = data.draw(st.sampled_from(groups))
    count = data.draw(st.none() | st.integers(0, 20))
    granted = {member.node_id: data.draw(st.floats(0, 80)) for member in nodes}
    placements = assign(seats, nodes, granted, count)
    assert len(placements) == (len(seats) if count is None else count)
    per_seat = Counter(placement.seat for placement in placements)
    assert max((per_seat[seat] for seat in seats), default=0) - min(per_seat[s] for s in seats) <= 1
    for member in nodes:
        taken = [each.cpu_count for each in placements if each.seat.node_id == member.node_id]
        assert all(cpus >= 0 for cpus in taken)
        assert sum(taken) <= max(0, member.cpu_count - granted[member.node_id])


def test_seats_on_nodes_without_enough_cpus_are_left_out():
    head = Node("id-head", "head", 0, (Device("CPU"),))
    worker = Node("id-worker", "worker", 4, (Device("CPU"),))
    seats = [[Seat("id-head", "head", "CPU"), Seat("id-worker", "worker", "CPU")]]
    assert with_cpus(seats, [head, worker], None) == [seats[0][1:]]
    assert with_cpus(seats, [head, worker], 4) == [seats[0][1:]]
    assert with_cpus([seats[0][:1]], [head], None) == [seats[0][:1]]
    with pytest.raises(OptionError, match=r"cpus_per_replica='5' .* at most 4"):
        with_cpus(seats, [head, worker], 5)
