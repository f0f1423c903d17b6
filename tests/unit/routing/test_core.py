"""The router's mind, event by event: what goes in, and the instructions that come out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atriva_inference.device import Device, DeviceSpec
from atriva_inference.errors import CompileError, DeviceNotAvailableError, ModelError
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_inference.preprocess import Preprocessing
from atriva_ray.errors import ModelNameConflictError, ModelNotLoadedError, ReplicaLostError
from atriva_ray.routing.auto import AutoOptions
from atriva_ray.routing.balance import Route
from atriva_ray.routing.core import CLIENT_LEASE_S, RouterCore
from atriva_ray.routing.messages import Grant, ModelRequest, Refuse, StartReplica, StopReplica
from atriva_ray.routing.placement import Node, Placement, Seat

EDGE = Node("id-edge", "edge", 8, (Device("GPU.0"), Device("NPU"), Device("CPU")))
RACK = Node("id-rack", "rack", 4, (Device("CPU"),))
CLUSTER = [EDGE, RACK]

EDGE_CPU = Seat("id-edge", "edge", "CPU")
EDGE_GPU = Seat("id-edge", "edge", "GPU.0")
RACK_CPU = Seat("id-rack", "rack", "CPU")

NO_MEMORY = ModelError("no memory")


def request_for(device="CPU", name="resnet", **changes):
    request = ModelRequest(
        key=name,
        name=name,
        path=f"{name}.onnx",
        fingerprint="f00d",
        backend="openvino",
        device=DeviceSpec.parse(device),
        options=CompileOptions(),
        auto=AutoOptions(startup_fallback=False),
    )
    return replace(request, **changes)


def refusal_of(device):
    return CompileError("resnet.onnx", device, {device: "unsupported operation"})


class Router:
    """A core with tickets and clients filled in."""

    def __init__(self):
        self.core = RouterCore()
        self.tickets = 0

    def ask(self, request=None, client="ann", nodes=CLUSTER):
        """Ask for a model, with ticket 1, 2, …; return all instructions."""
        self.tickets += 1
        return self.core.model_requested(self.tickets, client, request or request_for(), nodes)

    def load(self, request=None, client="ann", nodes=CLUSTER):
        """Ask for a model, let all replicas get ready; return their ids."""
        ids = ids_of(self.ask(request, client, nodes))
        for replica_id in ids:
            self.core.replica_ready(replica_id, 2)
        return ids

    def routes(self, key="resnet"):
        return [route.replica_id for route in self.core.routes(key)]


@pytest.fixture
def router():
    return Router()


@pytest.fixture
def core(router):
    return router.core


def ids_of(instructions):
    """Return the ids of started replicas, where nothing else is among the instructions."""
    assert all(isinstance(each, StartReplica) for each in instructions)
    return [each.replica_id for each in instructions]


def the_refusal(instructions):
    """Return the error of the one refusal, where it comes first, and the ids that are stopped."""
    refused, *stopped = instructions
    assert isinstance(refused, Refuse)
    assert all(isinstance(each, StopReplica) for each in stopped)
    return refused, [each.replica_id for each in stopped]


# -- loading -------------------------------------------------------------------------------------


def test_a_model_is_granted_once_all_its_replicas_have_reported(router, core):
    request = request_for()
    assert router.ask(request) == [
        StartReplica("resnet#1", request, Placement(EDGE_CPU, 8)),
        StartReplica("resnet#2", request, Placement(RACK_CPU, 4)),
    ]
    assert core.routes("resnet") == ()
    assert core.replica_ready("resnet#2", 3) == []
    assert core.replica_ready("resnet#1", 2) == [Grant(1, "resnet")]
    assert core.routes("resnet") == (
        Route("resnet#1", "edge/CPU", 2, 3),
        Route("resnet#2", "rack/CPU", 3, 3),
    )
    assert core.requests() == {"resnet": request}
    assert core.keys_of("ann") == ["resnet"]


def test_routes_rank_devices_as_auto_does(router, core):
    router.load(request_for("AUTO"))
    assert core.routes("resnet") == (Route("resnet#1", "edge/GPU.0", 2, 0),)


def test_a_device_that_no_node_has_is_refused(router, core):
    (refused,) = router.ask(request_for("GPU.7"))
    assert refused.ticket == 1
    assert isinstance(refused.error, DeviceNotAvailableError)
    assert (core.requests(), core.keys_of("ann"), core.version) == ({}, [], 0)


def test_where_one_seat_refuses_the_model_the_others_of_its_group_serve(router, core):
    first, second = ids_of(router.ask())
    assert core.replica_failed(first, refusal_of("CPU")) == []
    assert core.replica_ready(second, 2) == [Grant(1, "resnet")]
    assert router.routes() == [second]


def test_the_next_group_is_tried_when_no_device_of_one_can_compile(router, core):
    request = request_for("AUTO")
    (gpu,) = ids_of(router.ask(request))
    (npu,) = ids_of(core.replica_failed(gpu, refusal_of("GPU.0")))
    assert core.replica_failed(npu, refusal_of("NPU")) == [
        StartReplica("resnet#3", request, Placement(EDGE_CPU, 8)),
        StartReplica("resnet#4", request, Placement(RACK_CPU, 4)),
    ]
    assert core.replica_ready("resnet#3", 2) == []
    assert core.replica_ready("resnet#4", 2) == [Grant(1, "resnet")]


def test_a_model_that_no_device_can_compile_is_refused_with_every_reason(router, core):
    (gpu,) = ids_of(router.ask(request_for("AUTO:GPU,CPU")))
    first, second = ids_of(core.replica_failed(gpu, refusal_of("GPU.0")))
    assert core.replica_failed(first, refusal_of("CPU")) == []
    refused, stopped = the_refusal(core.replica_failed(second, refusal_of("CPU")))
    assert (refused.ticket, stopped) == (1, [])
    assert isinstance(refused.error, CompileError)
    assert refused.error.requested == "AUTO:GPU,CPU"
    assert set(refused.error.reasons) == {"edge/GPU.0", "edge/CPU", "rack/CPU"}
    assert "unsupported operation" in str(refused.error)
    assert (core.requests(), core.keys_of("ann")) == ({}, [])


def test_any_other_error_refuses_at_once_and_stops_the_siblings(router, core):
    first, second = ids_of(router.ask())
    router.ask(client="bob")
    assert core.replica_failed(first, NO_MEMORY) == [
        Refuse(1, NO_MEMORY),
        Refuse(2, NO_MEMORY),
        StopReplica(second),
    ]
    assert core.requests() == {}
    assert core.replica_ready(second, 2) == [StopReplica(second)]


def test_any_other_error_costs_only_its_replica_where_another_is_ready(router, core):
    first, second = ids_of(router.ask())
    core.replica_ready(first, 2)
    assert core.replica_failed(second, NO_MEMORY) == [Grant(1, "resnet")]
    assert router.routes() == [first]


def test_a_model_can_be_loaded_again_after_it_was_refused(router, core):
    first, _ = ids_of(router.ask())
    core.replica_failed(first, NO_MEMORY)
    ids = ids_of(router.ask())
    assert first not in ids
    core.replica_ready(ids[0], 2)
    assert core.replica_ready(ids[1], 2) == [Grant(2, "resnet")]


def test_cpus_that_other_models_hold_are_not_granted_again(router, core):
    router.load(request_for(replica_count=4, cpus_per_replica=1))
    started = router.ask(request_for(name="yolo"))
    assert [each.placement.cpu_count for each in started] == [6, 2]
    core.model_unloaded("resnet")
    started = router.ask(request_for(name="bert"))
    assert [each.placement.cpu_count for each in started] == [2, 2]


# -- sharing -------------------------------------------------------------------------------------


def test_an_equal_request_shares_what_is_loaded(router, core):
    router.load()
    assert router.ask(client="bob") == [Grant(2, "resnet")]
    assert core.keys_of("bob") == ["resnet"]


def test_an_equal_request_while_replicas_start_waits_with_the_first(router, core):
    first, second = ids_of(router.ask())
    assert router.ask(client="bob") == []
    assert core.replica_ready(first, 2) == []
    assert core.replica_ready(second, 2) == [Grant(1, "resnet"), Grant(2, "resnet")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fingerprint": "beef", "path": "other.onnx"},
            "read from 'resnet.onnx', and 'other.onnx' has other content",
        ),
        ({"backend": "onnxruntime"}, "backend=openvino, asked for onnxruntime"),
        ({"device": "AUTO"}, "device=CPU, asked for AUTO"),
        (
            {"options": CompileOptions(PerformanceHint.LATENCY)},
            "performance_hint=THROUGHPUT, asked for LATENCY",
        ),
        ({"options": CompileOptions(config={"A": 1})}, "config={}, asked for {'A': 1}"),
        (
            {"options": CompileOptions(preprocessing=Preprocessing(color="bgr"))},
            "preprocessing=None, asked for Preprocessing(",
        ),
        ({"options": CompileOptions(batching=False)}, "batching=True, asked for False"),
    ],
)
def test_another_model_of_the_same_name_is_refused(router, core, changes, message):
    router.load()
    refused, _ = the_refusal(router.ask(request_for(**changes), client="bob"))
    assert refused.ticket == 2
    assert isinstance(refused.error, ModelNameConflictError)
    assert message in str(refused.error)
    assert core.keys_of("bob") == []
    assert core.model_released("bob", "resnet", core.generation("resnet")) == []
    assert core.routes("resnet")


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/elsewhere/resnet.onnx"},
        {"device": "cpu"},
        {"replica_count": 1},
        {"cpus_per_replica": 1},
    ],
)
def test_what_does_not_change_the_compiled_model_does_not_conflict(router, changes):
    router.load()
    assert router.ask(request_for(**changes), client="bob") == [Grant(2, "resnet")]


# -- growth --------------------------------------------------------------------------------------


def placements_of(instructions):
    return [each.placement for each in instructions]


def test_more_replicas_are_started_where_more_are_asked_for(router, core):
    router.load()
    started = router.ask(request_for(replica_count=3, cpus_per_replica=2), client="bob")
    assert placements_of(started) == [Placement(EDGE_CPU, 2)]
    (third,) = ids_of(started)
    assert core.replica_ready(third, 2) == [Grant(2, "resnet")]
    assert len(router.routes()) == 3
    assert router.ask(request_for(replica_count=2), client="cid") == [Grant(3, "resnet")]


def test_growth_takes_seats_of_the_group_that_are_still_free(router):
    router.load(request_for(replica_count=1))
    started = router.ask(request_for(replica_count=3), client="bob")
    assert placements_of(started) == [Placement(RACK_CPU, 4), Placement(EDGE_CPU, 0)]


def test_growth_avoids_seats_that_refused_the_model(router, core):
    first, second = ids_of(router.ask())
    core.replica_failed(first, refusal_of("CPU"))
    core.replica_ready(second, 2)
    started = router.ask(request_for(replica_count=3, cpus_per_replica=1))
    assert placements_of(started) == [Placement(RACK_CPU, 1)] * 2


def test_growth_avoids_nodes_that_are_gone(router):
    router.load(request_for(cpus_per_replica=1))
    started = router.ask(request_for(replica_count=4), nodes=[RACK])
    assert placements_of(started) == [Placement(RACK_CPU, 1)] * 2


def test_where_all_nodes_of_a_model_are_gone_growth_does_not_hold_the_request_up(router):
    router.load(request_for("edge/CPU"))
    assert router.ask(request_for("edge/CPU", replica_count=4), nodes=[RACK]) == [
        Grant(2, "resnet")
    ]


def test_growth_starts_while_the_first_replicas_start(router, core):
    ids = ids_of(router.ask())
    ids += ids_of(router.ask(request_for(replica_count=4), client="bob"))
    assert len(ids) == 4
    for replica_id in ids[:3]:
        assert core.replica_ready(replica_id, 2) == []
    assert core.replica_ready(ids[3], 2) == [Grant(1, "resnet"), Grant(2, "resnet")]


def test_growth_starts_while_another_growth_starts(router, core):
    router.load()
    ids = ids_of(router.ask(request_for(replica_count=3), client="bob"))
    ids += ids_of(router.ask(request_for(replica_count=5), client="cid"))
    assert len(ids) == 3
    assert router.ask(request_for(replica_count=5), client="dot") == []
    grants = [each for replica_id in ids for each in core.replica_ready(replica_id, 2)]
    assert grants == [Grant(ticket, "resnet") for ticket in (2, 3, 4)]


def test_growth_that_was_asked_for_holds_for_the_next_group(router, core):
    ids = ids_of(router.ask(request_for("AUTO:GPU,CPU")))
    ids += ids_of(router.ask(request_for("AUTO:GPU,CPU", replica_count=3), client="bob"))
    assert len(ids) == 3
    for replica_id in ids[:2]:
        assert core.replica_failed(replica_id, refusal_of("GPU.0")) == []
    started = core.replica_failed(ids[2], refusal_of("GPU.0"))
    assert [each.seat for each in placements_of(started)] == [EDGE_CPU, RACK_CPU, EDGE_CPU]


@pytest.mark.parametrize("error", [NO_MEMORY, refusal_of("CPU")])
def test_growth_that_fails_leaves_the_model_as_it_was(router, core, error):
    ids = router.load()
    (third,) = ids_of(router.ask(request_for(replica_count=3), client="bob"))
    assert core.replica_failed(third, error) == [Grant(2, "resnet")]
    assert router.routes() == ids


# -- letting go ----------------------------------------------------------------------------------


def test_a_model_goes_when_its_last_user_closes_it(router, core):
    first, second = router.load()
    router.ask()
    router.ask(client="bob")
    assert core.model_released("ann", "resnet", core.generation("resnet")) == []
    assert core.model_released("ann", "resnet", core.generation("resnet")) == []
    assert (
        core.model_released("ann", "resnet", core.generation("resnet")) == []
    )  # it closed twice what it loaded twice
    assert core.keys_of("ann") == []
    assert core.model_released("bob", "resnet", core.generation("resnet")) == [
        StopReplica(first),
        StopReplica(second),
    ]
    assert core.routes("resnet") is None
    assert core.requests() == {}


def test_closing_what_is_not_loaded_does_nothing(core):
    assert core.model_released("ann", "resnet", 1) == []


def test_a_model_that_kills_every_process_that_compiles_it_is_given_up(router, core):
    (started,) = router.ask(request_for(replica_count=1))
    (started,) = core.replica_died(started.replica_id)
    (started,) = core.replica_died(started.replica_id)
    (refused,) = core.replica_died(started.replica_id)
    assert refused.ticket == 1
    assert isinstance(refused.error, ReplicaLostError)
    assert refused.error.attempts == 3
    assert core.requests() == {}


def test_a_replacement_that_dies_while_it_compiles_is_replaced(router, core):
    first, second = router.load()
    (third,) = core.replica_died(first)
    (fourth,) = core.replica_died(third.replica_id)
    assert fourth.delay_s > third.delay_s
    assert [route.replica_id for route in core.routes("resnet")] == [second]


def test_closing_an_earlier_load_leaves_the_later_one_alone(router, core):
    router.load()
    earlier = core.generation("resnet")
    core.model_unloaded("resnet")
    router.load()
    assert core.model_released("ann", "resnet", earlier) == []
    assert core.keys_of("ann") == ["resnet"]


def test_unload_takes_a_model_from_everybody(router, core):
    first, second = router.load()
    router.ask(client="bob")
    assert core.model_unloaded("resnet") == [StopReplica(first), StopReplica(second)]
    assert (core.keys_of("ann"), core.keys_of("bob")) == ([], [])


def test_unload_refuses_those_who_wait(router, core):
    first, second = ids_of(router.ask())
    refused, stopped = the_refusal(core.model_unloaded("resnet"))
    assert (refused.ticket, stopped) == (1, [first, second])
    assert isinstance(refused.error, ModelNotLoadedError)


def test_unloading_what_is_not_loaded_says_what_is(router, core):
    router.load()
    with pytest.raises(ModelNotLoadedError, match=r"no model 'yolo' .* loaded are 'resnet'"):
        core.model_unloaded("yolo")


def test_a_client_that_leaves_releases_all_it_loaded(router, core):
    own = router.load(request_for(name="own"))
    router.load(request_for(name="shared"))
    router.ask(request_for(name="own"))
    router.ask(request_for(name="shared"), client="bob")
    assert core.client_left("ann") == [StopReplica(replica_id) for replica_id in own]
    assert list(core.requests()) == ["shared"]
    assert core.keys_of("ann") == []
    assert core.client_left("ann") == []


def test_a_client_that_leaves_while_it_waits_stops_what_starts_for_it(router, core):
    first, second = ids_of(router.ask())
    refused, stopped = the_refusal(core.client_left("ann"))
    assert (refused.ticket, stopped) == (1, [first, second])
    assert core.requests() == {}


def test_a_client_that_leaves_while_it_waits_does_not_disturb_others_who_wait(router, core):
    first, second = ids_of(router.ask())
    router.ask(client="bob")
    assert core.client_left("ann") == []
    core.replica_ready(first, 2)
    assert Grant(2, "resnet") in core.replica_ready(second, 2)
    assert core.model_released("bob", "resnet", core.generation("resnet")) == [
        StopReplica(first),
        StopReplica(second),
    ]


def test_a_silent_client_loses_its_models_when_its_lease_ends(router, core):
    core.client_seen("ann", 100)
    core.client_seen("bob", 100)
    own = router.load(request_for(name="own"))
    router.load(request_for(name="shared"))
    router.ask(request_for(name="shared"), client="bob")
    core.client_seen("bob", 101)
    assert core.clock_ticked(100 + CLIENT_LEASE_S) == []
    assert core.clock_ticked(100.5 + CLIENT_LEASE_S) == [
        StopReplica(replica_id) for replica_id in own
    ]
    assert core.keys_of("bob") == ["shared"]
    assert core.clock_ticked(100.5 + CLIENT_LEASE_S) == []


def test_a_client_that_left_while_it_asked_has_a_lease_all_the_same(router, core):
    core.client_seen("ann", 100)
    core.client_left("ann")
    ids = router.load()
    assert core.clock_ticked(100 + CLIENT_LEASE_S) == []
    assert core.clock_ticked(101 + CLIENT_LEASE_S) == [StopReplica(each) for each in ids]


# -- replicas that die ---------------------------------------------------------------------------


def test_a_replica_that_died_is_replaced_on_its_seat(router, core):
    request = request_for()
    first, second = router.load(request)
    assert core.replica_died(first) == [
        StartReplica("resnet#3", request, Placement(EDGE_CPU, 8), delay_s=0.1)
    ]
    assert router.routes() == [second]
    assert router.ask(client="bob") == [Grant(2, "resnet")]
    assert core.replica_ready("resnet#3", 2) == []
    assert router.routes() == [second, "resnet#3"]


def die_and_restart(core, replica_id):
    """Return the replacement, once it is ready, and the delay it was started with."""
    (started,) = core.replica_died(replica_id)
    core.replica_ready(started.replica_id, 2)
    return started.replica_id, started.delay_s


def test_a_replica_that_dies_again_and_again_is_replaced_later_and_later(router, core):
    (replica_id,) = router.load(request_for("GPU"))
    delays = []
    for _ in range(12):
        replica_id, delay_s = die_and_restart(core, replica_id)
        delays.append(delay_s)
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert delays[-2:] == [30, 30]


def test_a_replica_that_lived_for_a_while_is_replaced_soon(router, core):
    (replica_id,) = router.load(request_for("GPU"))
    for now_s in (1, 2, 3):
        core.client_seen("ann", now_s)
        replica_id, _ = die_and_restart(core, replica_id)
    core.client_seen("ann", 20)
    assert die_and_restart(core, replica_id)[1] == pytest.approx(0.8)
    core.client_seen("ann", 100)
    core.client_seen("ann", 131)
    assert die_and_restart(core, core.routes("resnet")[0].replica_id)[1] == pytest.approx(0.1)


def test_years_of_deaths_do_not_overflow(router, core):
    (replica_id,) = router.load(request_for("GPU"))
    for _ in range(2000):
        replica_id, delay_s = die_and_restart(core, replica_id)
    assert delay_s == 30


def test_who_asks_while_all_replicas_are_replaced_waits(router, core):
    (gpu,) = router.load(request_for("GPU"))
    (again,) = ids_of(core.replica_died(gpu))
    assert core.routes("resnet") == ()
    assert router.ask(request_for("GPU"), client="bob") == []
    assert core.replica_ready(again, 2) == [Grant(2, "resnet")]


def test_a_replacement_that_cannot_compile_makes_way_for_the_next_group(router, core):
    request = request_for("AUTO:GPU,CPU")
    (gpu,) = router.load(request)
    (again,) = ids_of(core.replica_died(gpu))
    started = core.replica_failed(again, refusal_of("GPU.0"))
    assert [each.seat for each in placements_of(started)] == [EDGE_CPU, RACK_CPU]
    for replica_id in ids_of(started):
        assert core.replica_ready(replica_id, 2) == []
    assert len(router.routes()) == 2


def test_a_replacement_that_cannot_start_is_tried_on_the_next_seat(router, core):
    first, second = router.load()
    (again,) = core.replica_died(first)
    (elsewhere,) = core.replica_failed(again.replica_id, NO_MEMORY)
    assert (again.placement.seat, elsewhere.placement.seat) == (EDGE_CPU, RACK_CPU)
    assert elsewhere.delay_s > again.delay_s
    assert router.routes() == [second]


def test_a_model_whose_replacements_never_start_is_given_up(router, core):
    (gpu,) = router.load(request_for("GPU"))
    (started,) = core.replica_died(gpu)
    router.ask(request_for("GPU"), client="bob")
    for _ in range(5):
        (started,) = core.replica_failed(started.replica_id, NO_MEMORY)
    refused, stopped = the_refusal(core.replica_failed(started.replica_id, NO_MEMORY))
    assert (refused.ticket, refused.error, stopped) == (2, NO_MEMORY, [])
    assert core.routes("resnet") is None


@pytest.mark.parametrize("error", [refusal_of("GPU.0")])
def test_a_model_whose_only_replacement_fails_is_gone(router, core, error):
    (gpu,) = router.load(request_for("GPU"))
    (again,) = ids_of(core.replica_died(gpu))
    router.ask(request_for("GPU"), client="bob")
    version = core.version
    refused, stopped = the_refusal(core.replica_failed(again, error))
    assert (refused.ticket, stopped) == (2, [])
    assert type(refused.error) is type(error)
    assert core.routes("resnet") is None
    assert core.version > version


@pytest.mark.parametrize("error", [refusal_of("CPU")])
def test_a_replacement_that_fails_is_missed_by_nobody_while_others_serve(router, core, error):
    first, second = router.load()
    (again,) = ids_of(core.replica_died(first))
    assert core.replica_failed(again, error) == []
    assert router.routes() == [second]


@pytest.mark.parametrize("error", [refusal_of("CPU")])
def test_a_replacement_that_fails_does_not_end_the_other_replacements(router, core, error):
    first, second = router.load()
    ids = ids_of(core.replica_died(first) + core.replica_died(second))
    assert core.replica_failed(ids[0], error) == []
    router.ask(client="bob")
    assert core.replica_ready(ids[1], 2) == [Grant(2, "resnet")]


def test_growth_that_fails_while_all_replicas_are_replaced_does_not_end_the_model(router, core):
    (gpu,) = router.load(request_for("GPU"))
    (again,) = ids_of(core.replica_died(gpu))
    (more,) = ids_of(router.ask(request_for("GPU", replica_count=2), client="bob"))
    assert core.replica_failed(more, NO_MEMORY) == []
    assert core.replica_ready(again, 2) == [Grant(2, "resnet")]


def test_a_replica_that_dies_while_it_starts_is_started_again(router, core):
    first, second = ids_of(router.ask())
    core.replica_ready(second, 2)
    (again,) = ids_of(core.replica_died(first))
    assert router.ask(client="bob") == []
    assert core.replica_ready(again, 2) == [Grant(1, "resnet"), Grant(2, "resnet")]


def test_a_replacement_that_dies_while_it_starts_holds_nobody_up(router, core):
    first, second = router.load()
    (again,) = ids_of(core.replica_died(first))
    (once_more,) = ids_of(core.replica_died(again))
    assert router.ask(client="bob") == [Grant(2, "resnet")]
    assert core.replica_ready(once_more, 2) == []
    assert router.routes() == [second, once_more]


def test_a_ready_replica_that_dies_while_its_sibling_starts_is_not_waited_for(router, core):
    first, second = ids_of(router.ask())
    core.replica_ready(first, 2)
    core.replica_died(first)
    assert core.replica_ready(second, 2) == [Grant(1, "resnet")]


def test_cpus_of_a_replica_that_died_are_kept_for_its_replacement(router, core):
    first, _ = router.load()
    core.replica_died(first)
    started = router.ask(request_for(name="yolo"))
    assert [each.placement.cpu_count for each in started] == [0, 0]


def test_news_of_replicas_that_nobody_knows_change_nothing(router, core):
    router.load()
    version = core.version
    assert core.replica_ready("resnet#99", 2) == [StopReplica("resnet#99")]
    assert core.replica_failed("resnet#99", NO_MEMORY) == []
    assert core.replica_died("resnet#99") == []
    assert core.version == version


# -- names and versions --------------------------------------------------------------------------


def test_a_model_is_found_by_its_key_and_by_a_name_that_only_it_has(router, core):
    router.load(request_for(key="resnet@1"))
    assert core.resolve("resnet@1") == "resnet@1"
    assert core.resolve("resnet") == "resnet@1"
    core.model_unloaded("resnet")
    assert core.requests() == {}


def test_a_name_that_several_models_have_is_not_guessed(router, core):
    router.load(request_for(key="resnet@1"))
    router.load(request_for(key="resnet@2"))
    router.load(request_for(name="yolo"))
    with pytest.raises(ModelNotLoadedError) as caught:
        core.resolve("resnet")
    assert caught.value.loaded == ("resnet@1", "resnet@2")
    router.load(request_for())  # a key goes before names
    assert core.resolve("resnet") == "resnet"


def test_an_unknown_name_is_refused_with_what_is_loaded(router, core):
    router.load(request_for(name="yolo"))
    with pytest.raises(ModelNotLoadedError) as caught:
        core.resolve("resnet")
    assert caught.value.loaded == ("yolo",)
    assert core.routes("resnet") is None


def test_the_version_grows_with_each_change_that_clients_should_hear_of(router, core):
    versions = [core.version]
    first, second = ids_of(router.ask())
    for event in (
        lambda: core.replica_ready(first, 2),
        lambda: core.replica_ready(second, 2),
        lambda: router.ask(client="bob"),
        lambda: core.replica_died(first),
        lambda: core.model_unloaded("resnet"),
    ):
        event()
        versions.append(core.version)
    assert versions == sorted(set(versions))


def test_the_version_stays_where_clients_need_not_hear(router, core):
    router.load()
    router.ask(client="bob")
    version = core.version
    core.client_seen("ann", 1)
    core.clock_ticked(2)
    assert core.version == version
    core.model_released("bob", "resnet", core.generation("resnet"))  # others may get its homes
    assert core.version == version + 1
    assert core.users("resnet") == ["ann"]
