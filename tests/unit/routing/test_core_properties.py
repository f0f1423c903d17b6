"""The router's mind under any order of events: what must always hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import count, product

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atriva_inference.device import Device, DeviceSpec, device_kind
from atriva_inference.errors import CompileError, ModelError
from atriva_inference.options import CompileOptions
from atriva_ray.errors import ModelNameConflictError
from atriva_ray.routing.aside import LAST_DELAY_S
from atriva_ray.routing.auto import AutoOptions, ModelPriority
from atriva_ray.routing.core import CLIENT_LEASE_S, RouterCore
from atriva_ray.routing.messages import Grant, ModelRequest, Refuse, StartReplica, StopReplica
from atriva_ray.routing.placement import Node

NODES = (
    Node("a", "a", 8, (Device("CPU"), Device("GPU.0"))),
    Node("b", "b", 3.5, (Device("CPU"), Device("FASTCPU"))),
    Node("c", "c", 0, (Device("CPU"), Device("NPU"))),
)
CLIENTS = ("ann", "bob", "cid")
KEYS = ("m1", "m2")
DEVICES = ("AUTO", "CPU", "AUTO:GPU,CPU", "GPU", "MULTI:NPU,GPU")

errors = st.sampled_from(
    [CompileError("m.onnx", "AUTO", {"CPU": "no such layer"}), ModelError("no memory")]
)


@dataclass
class Ticket:
    """A load that was asked for."""

    client: str
    request: ModelRequest
    is_answered: bool = False


@dataclass
class Started:
    """A replica as the shell around the core sees it."""

    order: StartReplica
    is_ready: bool = False


class RouterMachine(RuleBasedStateMachine):
    """Sends events to a core, does what it says, and keeps its own books."""

    def __init__(self):
        super().__init__()
        self.core = RouterCore()
        self.now_s = 1000.0
        self.seen = {}
        self.core.clock_ticked(self.now_s)
        self.numbers = count(1)
        self.tickets = {}
        self.replicas = {}
        self.stopped_early = []
        self.ids = set()
        self.uses = Counter()
        self.suspected = set()

    # -- the shell -------------------------------------------------------------------------------

    def do(self, event, *arguments):
        """Send an event, do what the core says, and see that the version tells of changes."""
        before, version = self.published(), self.core.version
        instructions = event(*arguments)
        for instruction in instructions:
            self.carry_out(instruction)
        for key in set(KEYS) - set(self.core.requests()):
            self.forget_uses(CLIENTS, [key])
        has_news = self.published() != before or any(isinstance(i, Grant) for i in instructions)
        assert self.core.version >= version + has_news
        return instructions

    def carry_out(self, instruction):
        match instruction:
            case StartReplica(replica_id):
                assert replica_id not in self.ids
                self.ids.add(replica_id)
                self.replicas[replica_id] = Started(instruction)
            case StopReplica(replica_id):
                if not self.replicas.pop(replica_id).is_ready:
                    self.stopped_early.append(replica_id)
            case Grant(number, key):
                assert self.answer(number).request.key == key
                assert self.core.routes(key)
            case Refuse(number, error):
                ticket = self.answer(number)
                if isinstance(error, ModelNameConflictError):
                    self.uses[ticket.client, ticket.request.key] -= 1

    def forget_uses(self, clients, keys):
        for client, key in product(clients, keys):
            del self.uses[client, key]

    def answer(self, number):
        ticket = self.tickets[number]
        assert not ticket.is_answered
        ticket.is_answered = True
        return ticket

    def published(self):
        return {key: routes for key in KEYS if (routes := self.core.routes(key))}

    def routed(self, key):
        return {route.replica_id for route in self.core.routes(key)}

    def some(self, data, *, is_ready):
        ids = [each for each, there in self.replicas.items() if there.is_ready == is_ready]
        return data.draw(st.sampled_from(ids))

    def has_some(self, *, is_ready):
        return any(replica.is_ready == is_ready for replica in self.replicas.values())

    # -- events ----------------------------------------------------------------------------------

    @rule(
        client=st.sampled_from(CLIENTS),
        key=st.sampled_from(KEYS),
        device=st.sampled_from(DEVICES),
        fingerprint=st.sampled_from(["f00d", "f00d", "f00d", "beef"]),
        replica_count=st.none() | st.integers(1, 5),
        nodes=st.lists(st.sampled_from(NODES), unique=True),
        startup_fallback=st.booleans(),
        priority=st.sampled_from(ModelPriority),
    )
    def load(
        self, client, key, device, fingerprint, replica_count, nodes, startup_fallback, priority
    ):
        loaded = self.core.requests().get(key)
        if loaded is not None and fingerprint == "f00d":
            device = loaded.device.text  # so that most requests share
        request = ModelRequest(
            key=key,
            name=key,
            path=f"{key}.onnx",
            fingerprint=fingerprint,
            backend="openvino",
            device=DeviceSpec.parse(device),
            options=CompileOptions(),
            replica_count=replica_count,
            auto=AutoOptions(startup_fallback=startup_fallback, model_priority=priority),
        )
        number = next(self.numbers)
        self.tickets[number] = Ticket(client, request)
        self.uses[client, key] += 1
        self.seen.setdefault(client, self.now_s)
        self.do(self.core.model_requested, number, client, request, nodes)

    @precondition(lambda self: self.has_some(is_ready=False))
    @rule(data=st.data(), slots=st.integers(1, 4))
    def get_ready(self, data, slots):
        replica_id = self.some(data, is_ready=False)
        self.replicas[replica_id].is_ready = True
        self.do(self.core.replica_ready, replica_id, slots)

    @precondition(lambda self: self.has_some(is_ready=False))
    @rule(data=st.data(), error=errors)
    def fail(self, data, error):
        replica_id = self.some(data, is_ready=False)
        del self.replicas[replica_id]
        self.do(self.core.replica_failed, replica_id, error)

    @precondition(lambda self: self.replicas)
    @rule(data=st.data())
    def die(self, data):
        replica_id = data.draw(st.sampled_from(list(self.replicas)))
        has_served = self.replicas[replica_id].is_ready or bool(
            self.core.routes(replica_id.partition("#")[0])
        )
        del self.replicas[replica_id]
        instructions = self.do(self.core.replica_died, replica_id)
        assert all(each.delay_s <= 30 for each in instructions if isinstance(each, StartReplica))
        if replica_id.partition("#")[0] not in self.core.requests():
            assert not has_served  # given up: nothing of it is left that was ever ready

    @precondition(lambda self: self.has_some(is_ready=True))
    @rule(data=st.data(), is_proven=st.booleans())
    def fail_at_run_time(self, data, is_proven):
        replica_id = self.some(data, is_ready=True)
        key = replica_id.partition("#")[0]
        before = self.routed(key)
        self.suspected.add(replica_id)
        instructions = self.do(
            partial(self.core.replica_failing, is_proven=is_proven), replica_id, self.now_s
        )
        assert len(instructions) <= 1
        is_set_aside = is_proven and before != {replica_id}
        assert self.routed(key) == before - ({replica_id} if is_set_aside else set())

    @precondition(lambda self: self.stopped_early)
    @rule(data=st.data(), error=errors)
    def report_what_was_stopped_meanwhile(self, data, error):
        replica_id = data.draw(st.sampled_from(self.stopped_early))
        assert self.core.replica_died(replica_id) == []
        assert self.core.replica_failed(replica_id, error) == []
        assert self.core.replica_ready(replica_id, 1) == [StopReplica(replica_id)]
        self.stopped_early.remove(replica_id)

    @rule(client=st.sampled_from(CLIENTS), key=st.sampled_from(KEYS))
    def release(self, client, key):
        waiting = sum(
            not ticket.is_answered and (ticket.client, ticket.request.key) == (client, key)
            for ticket in self.tickets.values()
        )
        if self.uses[client, key] and self.uses[client, key] <= waiting:
            return  # it has nothing yet that it could close
        if self.uses[client, key]:
            self.uses[client, key] -= 1
        generation = self.core.generation(key) if key in self.core.requests() else 0
        self.do(self.core.model_released, client, key, generation)

    @precondition(lambda self: self.core.requests())
    @rule(data=st.data())
    def unload(self, data):
        key = data.draw(st.sampled_from(list(self.core.requests())))
        self.do(self.core.model_unloaded, key)
        assert key not in self.core.requests()

    @rule(client=st.sampled_from(CLIENTS))
    def leave(self, client):
        self.seen.pop(client, None)
        self.forget_uses([client], KEYS)
        self.do(self.core.client_left, client)

    @rule(client=st.sampled_from(CLIENTS))
    def show_life(self, client):
        self.seen[client] = self.now_s
        self.core.client_seen(client, self.now_s)

    @rule(seconds=st.sampled_from([0.1, 1, CLIENT_LEASE_S / 2, CLIENT_LEASE_S + 1]))
    def tick(self, seconds):
        self.now_s += seconds
        for client, seen_s in list(self.seen.items()):
            if self.now_s - seen_s > CLIENT_LEASE_S:
                del self.seen[client]
                self.forget_uses([client], KEYS)
        self.do(self.core.clock_ticked, self.now_s)

    # -- what always holds -----------------------------------------------------------------------

    @invariant()
    def users_are_counted_right(self):
        for client in CLIENTS:
            assert set(self.core.keys_of(client)) == {key for key in KEYS if self.uses[client, key]}

    @invariant()
    def every_model_has_a_user(self):
        for key in self.core.requests():
            assert any(self.uses[client, key] for client in CLIENTS)

    @invariant()
    def every_user_will_lose_its_lease(self):
        assert {client for client, _ in +self.uses} <= set(self.seen)

    @invariant()
    def every_replica_belongs_to_a_model_and_routes_name_the_ready_ones(self):
        ready = {key: set() for key in self.core.requests()}
        for replica_id, replica in self.replicas.items():
            key = replica.order.request.key
            assert key in ready
            if replica.is_ready:
                ready[key].add(replica_id)
        for key, ids in ready.items():
            routed = self.routed(key)
            assert routed <= ids
            assert ids - routed <= self.suspected
            assert bool(ids) == bool(routed)  # a bad device is better than none

    @invariant()
    def every_model_serves_or_starts(self):
        there = {replica.order.request.key for replica in self.replicas.values()}
        assert there == set(self.core.requests())

    @invariant()
    def whoever_waits_waits_for_something_that_starts(self):
        starting = {
            replica.order.request.key for replica in self.replicas.values() if not replica.is_ready
        }
        for ticket in self.tickets.values():
            assert ticket.is_answered or ticket.request.key in starting

    @invariant()
    def no_node_grants_more_cpus_than_it_has(self):
        granted = Counter()
        for replica in self.replicas.values():
            placement = replica.order.placement
            assert placement.cpu_count >= 0
            reserves = replica.order.request.reserve_cpus
            granted[placement.seat.node_id] += placement.cpu_count if reserves else 0
        for node in NODES:
            assert granted[node.node_id] <= node.cpu_count

    def teardown(self):
        """When replicas stop failing, everybody is answered; when all leave, nothing stays."""
        while self.has_some(is_ready=False):
            replica_id = next(each for each, there in self.replicas.items() if not there.is_ready)
            self.replicas[replica_id].is_ready = True
            self.do(self.core.replica_ready, replica_id, 1)
        assert all(ticket.is_answered for ticket in self.tickets.values())
        for _ in range(3):  # what was set aside comes back, and what stood in for it goes
            self.now_s += LAST_DELAY_S
            for client in list(self.seen):
                self.show_life(client)
            self.do(self.core.clock_ticked, self.now_s)
        for key in self.core.requests():
            there = [each for each in self.replicas if each.partition("#")[0] == key]
            assert self.routed(key) == set(there)
            kinds = {device_kind(self.replicas[each].order.placement.seat.device) for each in there}
            is_auto = "AUTO" in self.core.requests()[key].device.text
            assert len(kinds) == 1 or not is_auto
        for client in CLIENTS:
            self.leave(client)
        assert self.replicas == {}
        assert self.core.requests() == {}


RouterMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestRouter = RouterMachine.TestCase
