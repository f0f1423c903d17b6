"""The router's mind where load adds and takes replicas, and idle models sleep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atriva_inference.device import Device, DeviceSpec
from atriva_inference.errors import CompileError, ModelError
from atriva_inference.options import CompileOptions
from atriva_ray.errors import ModelNameConflictError
from atriva_ray.routing.elastic import ElasticCore, Shortage
from atriva_ray.routing.messages import Grant, ModelRequest, Refuse, StartReplica, StopReplica
from atriva_ray.routing.placement import Node, Placement, Seat
from atriva_ray.routing.reports import LoadReport

EDGE = Node("id-edge", "edge", 8, (Device("CPU"),))
RACK = Node("id-rack", "rack", 4, (Device("CPU"),))
GPUS = Node("id-gpus", "gpus", 8, (Device("GPU.0"), Device("GPU.1"), Device("CPU")))
EDGE_CPU, RACK_CPU = Seat("id-edge", "edge", "CPU"), Seat("id-rack", "rack", "CPU")


def request_for(key="m", least=1, most=4, **changes):
    request = ModelRequest(
        key=key,
        name=key,
        path=f"{key}.onnx",
        fingerprint="f00d",
        backend="openvino",
        device=DeviceSpec.parse("CPU"),
        options=CompileOptions(),
        replica_count=least,
        max_count=most,
    )
    return replace(request, **changes)


class Router:
    """A core with a clock, and replicas that do as the tests say."""

    def __init__(self, *nodes):
        self.core = ElasticCore()
        self.nodes = nodes or (EDGE,)
        self.now_s = 100.0
        self.tickets = 0
        self.busy = {}
        self.core.client_seen("ann", self.now_s)

    def ask(self, request, client="ann"):
        self.tickets += 1
        return self.core.model_requested(self.tickets, client, request, self.nodes)

    def load(self, request, client="ann"):
        return self.get_ready(self.ask(request, client))

    def get_ready(self, instructions):
        started = [each for each in instructions if isinstance(each, StartReplica)]
        for each in started:
            self.core.replica_ready(each.replica_id, 1)
        return started

    def replicas(self, key="m"):
        return [route.replica_id for route in self.core.routes(key)]

    def look(self, share=0.0, keys=("m",), waiting=0, seconds=2.0, *, asked=None):
        """Let time pass, with all replicas of some models that busy; return what is to be done."""
        self.now_s += seconds
        busy_ids = {each for key in keys for each in self.replicas(key)}
        for key in self.core.requests():
            for replica_id in self.replicas(key):
                is_busy = replica_id in busy_ids and share > 0
                total_s, answered = self.busy.get(replica_id, (0.0, 0))
                total_s += share * seconds if is_busy else 0.0
                answered += is_busy if asked is None else asked
                self.busy[replica_id] = total_s, answered
                report = LoadReport(total_s, answered, int(is_busy), 1, 1, 0.01)
                self.core.loads.replica_reported(replica_id, report, self.now_s)
        self.core.loads.client_reported("ann", dict.fromkeys(keys, waiting), self.now_s)
        rests, backends = self.core.judge(self.now_s)
        return rests + self.core.allot(dict.fromkeys(backends, self.nodes))

    def grow(self, keys=("m",), looks=12):
        """Keep models full until they have what they can get; return what was stopped for it."""
        stopped = []
        for _ in range(looks):
            done = self.look(1.0, keys, waiting=100)
            self.get_ready(done)
            stopped += [each for each in done if isinstance(each, StopReplica)]
        return stopped


@pytest.fixture
def router():
    return Router()


# -- more and fewer --------------------------------------------------------------------------------


def test_the_first_replicas_leave_room_for_those_to_come(router):
    (first,) = router.load(request_for(most=4))
    assert first.placement == Placement(EDGE_CPU, 2)
    router.grow()
    assert len(router.replicas()) == 4
    assert router.core.granted_cpus("id-edge") == 8


def test_without_a_range_everything_is_as_it_was(router):
    (first,) = router.load(request_for(most=None))
    assert first.placement == Placement(EDGE_CPU, 8)
    assert router.grow() == []
    assert len(router.replicas()) == 1
    assert router.core.shortages() == {}


def test_who_loads_meanwhile_does_not_wait_for_what_is_added(router):
    router.load(request_for())
    (added,) = router.look(1.0, waiting=9)
    assert isinstance(added, StartReplica)
    assert router.ask(request_for(), "bob") == [Grant(2, "m")]


def test_quiet_takes_replicas_away_again(router):
    router.load(request_for())
    router.grow()
    first = router.replicas()[0]
    stopped = [each for _ in range(40) for each in router.look(0.01)]
    assert len(stopped) == 3
    assert all(isinstance(each, StopReplica) for each in stopped)
    assert router.replicas() == [first]
    assert router.core.granted_cpus("id-edge") == 2


def test_clients_hear_of_one_that_goes(router):
    router.load(request_for())
    router.grow()
    version = router.core.version
    while not router.look(0.01):
        assert router.core.version == version
    assert router.core.version > version


@pytest.mark.parametrize("event", ["fail", "refuse", "die"])
def test_one_that_cannot_be_added_harms_nobody_and_is_not_tried_again_at_once(router, event):
    router.load(request_for())
    (added,) = router.look(1.0, waiting=9)
    match event:
        case "fail":
            done = router.core.replica_failed(added.replica_id, ModelError("no CPUs"))
        case "refuse":
            refusal = CompileError("m.onnx", "CPU", {"CPU": "no CPUs"})
            done = router.core.replica_failed(added.replica_id, refusal)
        case "die":
            done = router.core.replica_died(added.replica_id)
    assert done == []
    assert len(router.replicas()) == 1
    assert "none could be added on edge/CPU" in router.core.scale_of("m")["why"]
    assert all(router.look(1.0, waiting=9) == [] for _ in range(25))
    while not (done := router.look(1.0, waiting=9)):
        assert router.now_s < 200
    assert isinstance(done[0], StartReplica)


def test_one_that_was_added_and_dies_later_is_replaced(router):
    router.load(request_for())
    router.grow()
    lost = router.replicas()[-1]
    (started,) = router.core.replica_died(lost)
    assert isinstance(started, StartReplica)


def test_nodes_that_joined_later_are_used():
    router = Router(RACK)
    router.load(request_for(cpus_per_replica=4))
    router.grow(looks=2)
    assert router.core.shortages() == {"m": Shortage(1, 4)}
    assert "find no free place (4 CPUs each)" in router.core.scale_of("m")["why"]
    router.nodes = (RACK, EDGE)
    (added,) = router.look(1.0, waiting=9)
    assert added.placement == Placement(EDGE_CPU, 4)
    assert router.core.shortages() == {}


@pytest.mark.parametrize(
    "changes", [{"device": DeviceSpec.parse("rack/CPU")}, {"reserve_cpus": False}]
)
def test_new_nodes_are_not_asked_for_where_they_would_not_help(changes):
    router = Router(RACK)
    router.load(request_for(cpus_per_replica=4, **changes))
    router.grow(looks=2)
    assert "find no free place" in router.core.scale_of("m")["why"]
    assert router.core.shortages() == {}


def test_a_model_stays_on_the_kind_of_device_that_took_it():
    router = Router(EDGE)
    router.load(request_for(device=DeviceSpec.parse("AUTO")))
    router.nodes = (EDGE, GPUS)
    router.grow()
    assert {route.label for route in router.core.routes("m")} == {"edge/CPU", "gpus/CPU"}


def test_every_device_with_memory_of_its_own_takes_one():
    router = Router(GPUS)
    router.load(request_for(device=DeviceSpec.parse("AUTO")))
    router.grow()
    assert {route.label for route in router.core.routes("m")} == {"gpus/GPU.0", "gpus/GPU.1"}
    assert router.core.shortages() == {}


# -- several models -----------------------------------------------------------------------------


def test_two_models_that_grow_share_a_node(router):
    for key in ("m", "n"):
        router.load(request_for(key, most=8, cpus_per_replica=1))
    router.grow(("m", "n"))
    assert len(router.replicas("m")) == len(router.replicas("n")) == 4


def test_who_came_later_gets_its_share_from_who_has_more(router):
    router.load(request_for(most=7, cpus_per_replica=1))
    router.grow()
    router.load(request_for("n", most=8, cpus_per_replica=1))
    stopped = router.grow(("m", "n"))
    assert {each.replica_id.partition("#")[0] for each in stopped} == {"m"}
    assert len(router.replicas("m")) == len(router.replicas("n")) == 4
    assert router.grow(("m", "n")) == []


def test_a_models_minimum_makes_others_give_way_and_is_never_touched(router):
    router.load(request_for(most=8, cpus_per_replica=1))
    router.grow()
    assert len(router.replicas("m")) == 8
    router.load(request_for("n", least=3, most=None, cpus_per_replica=2))
    router.grow()
    assert len(router.replicas("m")) == 2
    assert len(router.replicas("n")) == 3
    router.load(request_for("o", least=4, most=None, cpus_per_replica=2))
    router.grow()
    assert [len(router.replicas(key)) for key in "mno"] == [1, 3, 4]


# -- sleep --------------------------------------------------------------------------------------


@pytest.fixture
def sleeper(router):
    router.load(request_for(most=None, idle_s=10.0))
    router.look(0.5)
    return router


def sleep(router):
    """Let time pass until the model sleeps; return what is stopped for that."""
    while not router.core.is_asleep("m"):
        stopped = router.look()
    return stopped


def test_a_model_that_nobody_asks_sleeps(sleeper):
    (replica_id,) = sleeper.replicas()
    began_s, version = sleeper.now_s, sleeper.core.version
    assert sleep(sleeper) == [StopReplica(replica_id)]
    assert sleeper.now_s - began_s == 10
    assert sleeper.core.version > version
    assert sleeper.core.routes("m") == ()
    assert sleeper.core.keys_of("ann") == ["m"]
    assert sleeper.core.granted_cpus("id-edge") == 0
    assert sleeper.core.clock_ticked(sleeper.now_s) == []
    scale = sleeper.core.scale_of("m")
    assert (scale["asleep"], scale["wanted"], scale["ready"]) == (True, 0, 0)


def test_who_is_asked_now_and_then_stays(sleeper):
    for _ in range(10):
        assert sleeper.look(seconds=8) == []
        assert sleeper.look(0.001, seconds=1) == []
    assert sleeper.look(waiting=1, seconds=60) == []
    assert sleeper.look(asked=1, seconds=60) == []


def test_it_wakes_for_a_request_once(sleeper):
    generation = sleeper.core.generation("m")
    (before,) = sleep(sleeper)
    (started,) = sleeper.core.model_wanted("m", sleeper.nodes)
    assert started.placement == Placement(EDGE_CPU, 8)
    assert started.replica_id != before.replica_id
    assert sleeper.core.model_wanted("m", sleeper.nodes) == []
    sleeper.core.replica_ready(started.replica_id, 2)
    assert sleeper.replicas() == [started.replica_id]
    assert sleeper.core.generation("m") == generation
    assert sleep(sleeper) == [StopReplica(started.replica_id)]


def test_what_is_awake_or_not_loaded_is_not_woken(sleeper):
    assert sleeper.core.model_wanted("m", sleeper.nodes) == []
    assert sleeper.core.model_wanted("other", sleeper.nodes) == []


def test_who_loads_it_wakes_it_and_waits(sleeper):
    sleep(sleeper)
    (started,) = sleeper.ask(request_for(most=None, idle_s=30.0), "bob")
    assert sleeper.core.replica_ready(started.replica_id, 2) == [Grant(2, "m")]
    assert sleeper.core.keys_of("bob") == ["m"]
    began_s = sleeper.now_s
    sleep(sleeper)
    assert sleeper.now_s - began_s >= 30  # the longer of the two


def test_who_asks_for_another_model_under_its_name_is_refused_and_wakes_nobody(sleeper):
    sleep(sleeper)
    (refused,) = sleeper.ask(request_for(most=None, fingerprint="beef"), "bob")
    assert isinstance(refused, Refuse)
    assert isinstance(refused.error, ModelNameConflictError)
    assert sleeper.core.is_asleep("m")


def test_it_wakes_elsewhere_if_its_node_is_gone(sleeper):
    sleep(sleeper)
    (started,) = sleeper.core.model_wanted("m", [RACK])
    assert started.placement == Placement(RACK_CPU, 4)


def test_if_it_cannot_be_woken_here_it_is_tried_again(sleeper):
    sleep(sleeper)
    sleeper.nodes = (EDGE, RACK)
    (started,) = sleeper.core.model_wanted("m", sleeper.nodes)
    (again,) = sleeper.core.replica_failed(started.replica_id, ModelError("no CPUs"))
    assert again.placement.seat != started.placement.seat


def test_whoever_never_lets_it_sleep_is_heard(sleeper):
    sleeper.ask(request_for(most=None), "bob")
    assert sleeper.look(seconds=10_000) == []


def test_sleep_takes_what_load_had_added_too(router):
    router.load(request_for(idle_s=4.0))
    router.grow()
    assert len(sleep(router)) == 4
    assert len(router.get_ready(router.core.model_wanted("m", router.nodes))) == 1


def test_closing_a_sleeper_forgets_it(sleeper):
    sleep(sleeper)
    assert sleeper.core.client_left("ann") == []
    assert sleeper.core.requests() == {}
    assert not sleeper.core.is_asleep("m")


def test_what_a_replica_held_is_known_until_its_process_has_ended(sleeper):
    (stopped,) = sleep(sleeper)
    assert sleeper.core.leaving == {stopped.replica_id: Placement(EDGE_CPU, 8)}
