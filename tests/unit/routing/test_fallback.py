"""Stand-ins while better devices compile, devices that fail, and models that yield to others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atriva_inference.errors import ModelError, OptionError
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_ray.errors import ReplicaLostError
from atriva_ray.routing.aside import DOUBT_S, LAST_DELAY_S, Trouble
from atriva_ray.routing.auto import AutoOptions, ModelPriority
from atriva_ray.routing.fallback import elsewhere, stand_in_seat
from atriva_ray.routing.messages import Grant, Refuse, StartReplica, StopReplica
from atriva_ray.routing.placement import Placement, Seat
from tests.unit.routing.test_core import (
    CLUSTER,
    EDGE_CPU,
    EDGE_GPU,
    NO_MEMORY,
    RACK_CPU,
    Router,
    ids_of,
    refusal_of,
)
from tests.unit.routing.test_core import request_for as bare_request_for

EDGE_NPU = Seat("id-edge", "edge", "NPU")


def request_for(device="AUTO:GPU,CPU", name="resnet", auto=None, **changes):
    return bare_request_for(device, name, auto=auto or AutoOptions(), **changes)


@pytest.fixture
def router():
    return Router()


@pytest.fixture
def core(router):
    return router.core


def seats_of(instructions):
    return [each.placement.seat for each in instructions if isinstance(each, StartReplica)]


def with_stand_in(router, request=None):
    """Ask for a model; return the ids of its stand-in and of its preferred replica."""
    stand_in, gpu = ids_of(router.ask(request or request_for()))
    return stand_in, gpu


# -- while the preferred device compiles -----------------------------------------------------------


def test_a_processor_stands_in_and_its_process_goes_first(router):
    request = request_for()
    assert router.ask(request) == [
        StartReplica("resnet#2", replace(request, reserve_cpus=False), Placement(EDGE_CPU, 8)),
        StartReplica("resnet#1", request, Placement(EDGE_GPU, 0), after="resnet#2"),
    ]


def test_a_stand_in_answers_and_goes_when_the_preferred_device_can(router, core):
    stand_in, gpu = with_stand_in(router)
    assert core.replica_ready(stand_in, 2) == [Grant(1, "resnet")]
    assert router.routes() == [stand_in]
    assert router.ask(request_for(), client="bob") == [Grant(2, "resnet")]
    version = core.version
    assert core.replica_ready(gpu, 2) == [StopReplica(stand_in)]
    assert router.routes() == [gpu]
    assert core.version > version
    assert core.replica_died(stand_in) == []


def test_a_stand_in_that_is_too_late_is_stopped(router, core):
    stand_in, gpu = with_stand_in(router)
    assert core.replica_ready(gpu, 2) == [StopReplica(stand_in), Grant(1, "resnet")]
    assert core.replica_ready(stand_in, 2) == [StopReplica(stand_in)]


def test_with_a_stand_in_the_first_replica_of_several_is_enough(router, core):
    started = router.ask(request_for("AUTO:CPU,GPU", replica_count=3))
    assert len(started) == 3  # nobody stands in for a processor
    core.model_unloaded("resnet")
    stand_in, *gpus = ids_of(router.ask(request_for(replica_count=3)))
    assert core.replica_ready(gpus[1], 2) == [StopReplica(stand_in), Grant(2, "resnet")]
    assert core.replica_ready(gpus[0], 2) == []
    assert router.ask(request_for(), client="bob") == [Grant(3, "resnet")]
    core.replica_ready(gpus[2], 2)
    assert set(router.routes()) == set(gpus)
    assert router.ask(request_for(replica_count=4), client="cid")[0].placement.seat == EDGE_GPU


@pytest.mark.parametrize(
    ("device", "changes"),
    [
        ("AUTO", {"auto": AutoOptions(startup_fallback=False)}),
        ("AUTO", {"max_count": 8}),
        ("GPU", {}),
        ("MULTI:GPU,NPU", {}),
        ("HETERO:GPU,CPU", {}),
        ("AUTO:CPU,GPU", {}),
        ("AUTO", {"options": CompileOptions(PerformanceHint.CUMULATIVE_THROUGHPUT)}),
    ],
)
def test_where_nothing_stands_in_all_replicas_are_waited_for(router, core, device, changes):
    ids = ids_of(router.ask(request_for(device, **changes)))
    for replica_id in ids[:-1]:
        assert core.replica_ready(replica_id, 1) == []
    assert core.replica_ready(ids[-1], 1) == [Grant(1, "resnet")]
    assert router.routes() == ids


def test_without_a_processor_the_last_candidate_stands_in():
    assert stand_in_seat([EDGE_GPU], [[EDGE_NPU], [RACK_CPU, EDGE_CPU]], ()) == RACK_CPU
    assert stand_in_seat([EDGE_GPU], [[EDGE_NPU], [RACK_CPU]], ("rack/CPU",)) == EDGE_NPU
    assert stand_in_seat([EDGE_GPU], [[EDGE_NPU]], ()) == EDGE_NPU
    assert stand_in_seat([EDGE_GPU], [[]], ()) is None
    assert stand_in_seat([EDGE_CPU], [[EDGE_GPU]], ()) is None


def test_a_stand_in_takes_no_cpus_from_others(router):
    with_stand_in(router)
    (other,) = router.ask(bare_request_for("edge/CPU", "yolo"))
    assert other.placement.cpu_count == 8


def test_a_processor_whose_cpus_are_all_taken_stands_in_all_the_same(router):
    nodes = [replace(CLUSTER[0], cpu_count=0)]
    stand_in, gpu = router.ask(request_for(), nodes=nodes)
    assert (stand_in.placement, gpu.placement) == (Placement(EDGE_CPU, 0), Placement(EDGE_GPU, 0))


def test_a_refusal_leaves_the_stand_in_and_starts_its_siblings(router, core):
    stand_in, gpu = with_stand_in(router)
    core.replica_ready(stand_in, 2)
    version = core.version
    started = core.replica_failed(gpu, refusal_of("GPU.0"))
    assert seats_of(started) == [RACK_CPU]
    assert core.version > version
    assert core.refusals("resnet") == {"edge/GPU.0": "unsupported operation"}
    (sibling,) = ids_of(started)
    assert core.replica_ready(sibling, 2) == []
    assert router.routes() == [stand_in, sibling]


def test_where_the_stand_in_is_all_that_is_left_it_stays(router, core):
    stand_in, gpu = with_stand_in(router, request_for("edge/AUTO:GPU,CPU"))
    assert core.replica_failed(gpu, refusal_of("GPU.0")) == []
    assert core.replica_ready(stand_in, 2) == [Grant(1, "resnet")]
    assert core.clock_ticked(1.0) == []
    assert router.routes() == [stand_in]


def test_the_next_group_is_tried_while_the_stand_in_goes_on(router, core):
    stand_in, gpu = with_stand_in(router, request_for("AUTO"))
    core.replica_ready(stand_in, 2)
    (npu,) = ids_of(core.replica_failed(gpu, refusal_of("GPU.0")))
    assert router.routes() == [stand_in]
    assert core.replica_ready(npu, 2) == [StopReplica(stand_in)]


def test_any_other_error_leaves_what_answers_alone(router, core):
    stand_in, gpu = with_stand_in(router, request_for("edge/AUTO:GPU,CPU"))
    core.replica_ready(stand_in, 2)
    assert core.replica_failed(gpu, NO_MEMORY) == []
    assert router.routes() == [stand_in]
    assert core.refusals("resnet") == {"edge/GPU.0": "no memory"}


def test_a_stand_in_that_fails_makes_way_for_another(router, core):
    error = OptionError("config", "GPU_ONLY", "another")
    stand_in, gpu = with_stand_in(router)
    (second,) = core.replica_failed(stand_in, error)
    assert second.placement.seat == RACK_CPU
    assert core.replica_died(second.replica_id) == []
    assert core.replica_ready(gpu, 2) == [Grant(1, "resnet")]
    assert set(core.refusals("resnet")) == {"edge/CPU", "rack/CPU"}


def test_a_stand_in_that_dies_while_it_answers_is_started_again(router, core):
    stand_in, gpu = with_stand_in(router)
    core.replica_ready(stand_in, 2)
    (again,) = core.replica_died(stand_in)
    assert (again.placement.seat, again.delay_s) == (EDGE_CPU, 0.1)
    assert core.replica_ready(gpu, 2) == [StopReplica(again.replica_id)]


def test_a_device_whose_driver_kills_the_process_has_refused(router, core):
    stand_in, gpu = with_stand_in(router, request_for("edge/AUTO:GPU,CPU"))
    core.replica_ready(stand_in, 2)
    for _ in range(2):
        (again,) = core.replica_died(gpu)
        gpu = again.replica_id
    assert core.replica_died(gpu) == []
    assert router.routes() == [stand_in]
    assert str(ReplicaLostError("resnet", 3, "edge/GPU.0")) in core.refusals("resnet").values()


def test_an_error_that_is_nobodys_fault_refuses_before_anything_answers(router, core):
    stand_in, gpu = with_stand_in(router)
    error = ModelError("unreadable")
    assert core.replica_failed(gpu, error) == [Refuse(1, error), StopReplica(stand_in)]


# -- devices that fail at run time -----------------------------------------------------------------


def fail(core, replica_id, now_s, *, is_proven=True):
    return core.replica_failing(replica_id, now_s, is_proven=is_proven)


def tick(core, now_s):
    core.client_seen("ann", now_s)
    return core.clock_ticked(now_s)


def test_a_replica_that_failed_where_another_did_not_is_set_aside_and_comes_back(router, core):
    first, second = router.load(bare_request_for())
    version = core.version
    assert fail(core, first, 100) == []
    assert router.routes() == [second]
    assert core.version > version
    assert tick(core, 100.9) == []
    assert router.routes() == [second]
    assert tick(core, 101) == []
    assert router.routes() == [first, second]


def test_the_last_replica_that_answers_is_never_set_aside(router, core):
    first, second = router.load(bare_request_for())
    fail(core, first, 100)
    fail(core, second, 100)
    assert router.routes() == [second]


def test_what_was_set_aside_is_better_than_nothing(router, core):
    first, second = router.load(bare_request_for())
    fail(core, first, 100)
    core.replica_died(second)
    assert router.routes() == [first]


def test_trouble_is_held_against_a_replica_longer_and_longer_until_it_behaves():
    trouble, now_s, delays = Trouble(), 100.0, []
    for _ in range(8):
        trouble.happened(now_s)
        delays.append(trouble.delay_s)
        now_s = trouble.until_s + 0.5
    assert delays == [1, 2, 4, 8, 16, 32, LAST_DELAY_S, LAST_DELAY_S]
    trouble.happened(trouble.until_s + DOUBT_S)
    assert trouble.delay_s == 1


def test_without_proof_nobody_is_set_aside(router, core):
    first, second = router.load(bare_request_for())
    assert fail(core, first, 100, is_proven=False) == []
    assert router.routes() == [first, second]


def only_on_gpu(router, core):
    gpu = router.load(request_for(auto=AutoOptions(startup_fallback=False)))[0]
    assert router.routes() == [gpu]
    return gpu


def test_the_next_device_gives_a_second_opinion_and_takes_over(router, core):
    gpu = only_on_gpu(router, core)
    (opinion,) = fail(core, gpu, 100, is_proven=False)
    assert opinion.placement.seat == EDGE_CPU
    assert core.expects_stand_in("resnet")
    assert fail(core, gpu, 100, is_proven=False) == []
    core.replica_ready(opinion.replica_id, 2)
    assert not core.expects_stand_in("resnet")
    fail(core, gpu, 101)
    assert router.routes() == [opinion.replica_id]
    tick(core, 102)
    assert router.routes() == [gpu, opinion.replica_id]
    tick(core, 101.9 + DOUBT_S)
    assert tick(core, 102 + DOUBT_S) == [StopReplica(opinion.replica_id)]
    assert router.routes() == [gpu]


def test_a_second_opinion_that_is_not_needed_goes_and_the_next_is_put_off(router, core):
    gpu = only_on_gpu(router, core)
    (opinion,) = fail(core, gpu, 100, is_proven=False)
    core.replica_ready(opinion.replica_id, 2)
    assert tick(core, 100 + DOUBT_S) == [StopReplica(opinion.replica_id)]
    assert fail(core, gpu, 159, is_proven=False) == []
    (opinion,) = fail(core, gpu, 160, is_proven=False)
    tick(core, 160 + DOUBT_S)
    assert fail(core, gpu, 279, is_proven=False) == []
    assert fail(core, gpu, 280, is_proven=False)


def test_one_that_cannot_give_its_opinion_is_said_at_once(router, core):
    gpu = only_on_gpu(router, core)
    (opinion,) = fail(core, gpu, 100, is_proven=False)
    version = core.version
    assert core.replica_failed(opinion.replica_id, refusal_of("CPU")) == []
    assert not core.expects_stand_in("resnet")
    assert core.version > version


def test_when_a_stand_in_dies_the_device_it_stands_in_for_is_better_than_nothing(router, core):
    gpu = only_on_gpu(router, core)
    (opinion,) = fail(core, gpu, 100, is_proven=False)
    core.replica_ready(opinion.replica_id, 2)
    fail(core, gpu, 100)
    (again,) = core.replica_died(opinion.replica_id)
    assert router.routes() == [gpu]
    assert core.replica_ready(again.replica_id, 2) == []
    assert router.routes() == [gpu, again.replica_id]


@pytest.mark.parametrize("device", ["GPU", "MULTI:GPU,NPU"])
def test_only_auto_chooses_another_device(router, core, device):
    ids = router.load(bare_request_for(device))
    assert fail(core, ids[0], 100, is_proven=False) == []


def test_reports_of_what_is_gone_change_nothing(core):
    assert fail(core, "resnet#9", 100) == []
    assert not core.expects_stand_in("resnet")


def test_what_failed_goes_where_it_has_not_and_least_is_under_way():
    assert elsewhere({"a": 1, "b": 3, "c": 2}, {"a"}) == "c"
    assert elsewhere({"a": 1}, {"a"}) is None


# -- priority --------------------------------------------------------------------------------------


def placed(router, name, priority, device="AUTO", **changes):
    auto = AutoOptions(startup_fallback=False, model_priority=ModelPriority(priority))
    ids = router.load(request_for(device, name, auto, **changes))
    return [route.label for route in router.core.routes(name) if route.replica_id in ids]


def test_lower_priorities_go_to_the_devices_that_are_left(router):
    assert placed(router, "high", "HIGH") == ["edge/GPU.0"]
    assert placed(router, "medium", "MEDIUM") == ["edge/NPU"]
    assert placed(router, "low", "LOW") == ["edge/CPU", "rack/CPU"]
    # With a higher model on every device, the last one it is.
    assert placed(router, "medium2", "MEDIUM", "AUTO:GPU") == ["edge/GPU.0"]
    assert placed(router, "high2", "HIGH") == ["edge/GPU.0"]


def test_where_all_devices_are_taken_it_is_the_last_one(router):
    placed(router, "one", "HIGH", "AUTO:GPU")
    placed(router, "other", "HIGH", "AUTO:NPU")
    assert placed(router, "low", "LOW", "AUTO:GPU,NPU") == ["edge/NPU"]


def test_equal_priorities_share_a_device(router):
    assert placed(router, "one", "LOW") == placed(router, "other", "LOW") == ["edge/GPU.0"]


def test_the_highest_priority_that_a_program_asked_for_counts(router):
    assert placed(router, "shared", "LOW") == ["edge/GPU.0"]
    router.ask(request_for("AUTO", "shared", AutoOptions(model_priority=ModelPriority.HIGH)))
    assert placed(router, "other", "MEDIUM") == ["edge/NPU"]


@pytest.mark.parametrize("device", ["GPU", "MULTI:GPU,NPU"])
def test_who_names_a_device_gets_it(router, device):
    placed(router, "high", "HIGH")
    assert "edge/GPU.0" in placed(router, "low", "LOW", device)


def test_a_model_that_the_free_devices_refuse_gets_the_taken_ones(router, core):
    placed(router, "high", "HIGH")
    auto = AutoOptions(startup_fallback=False, model_priority=ModelPriority.LOW)
    (npu,) = ids_of(router.ask(request_for("AUTO:GPU,NPU", "low", auto)))
    started = core.replica_failed(npu, refusal_of("NPU"))
    assert seats_of(started) == [EDGE_GPU]
