"""Load, sleep and nodes that come and go, in any order with all other events."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from atriva_inference.device import DeviceSpec
from atriva_inference.options import CompileOptions
from atriva_ray.routing.elastic import ElasticCore
from atriva_ray.routing.messages import ModelRequest, StartReplica
from atriva_ray.routing.reports import LoadReport
from tests.unit.routing.test_core_properties import (
    CLIENTS,
    DEVICES,
    KEYS,
    NODES,
    RouterMachine,
    Ticket,
)


class ElasticMachine(RouterMachine):
    """The same machine around a core whose numbers of replicas follow the load."""

    def __init__(self):
        super().__init__()
        self.core = ElasticCore()
        self.core.clock_ticked(self.now_s)
        self.busy = {}

    @rule(
        client=st.sampled_from(CLIENTS),
        key=st.sampled_from(KEYS),
        device=st.sampled_from(DEVICES),
        least=st.none() | st.integers(1, 3),
        most=st.none() | st.integers(1, 6),
        idle_s=st.none() | st.just(4.0),
        nodes=st.lists(st.sampled_from(NODES), unique=True),
    )
    def load(self, client, key, device, least, most, idle_s, nodes):
        loaded = self.core.requests().get(key)
        request = ModelRequest(
            key=key,
            name=key,
            path=f"{key}.onnx",
            fingerprint="f00d",
            backend="openvino",
            device=DeviceSpec.parse(device) if loaded is None else loaded.device,
            options=CompileOptions(),
            replica_count=least,
            max_count=most,
            idle_s=idle_s,
        )
        number = next(self.numbers)
        self.tickets[number] = Ticket(client, request)
        self.uses[client, key] += 1
        self.seen.setdefault(client, self.now_s)
        self.do(self.core.model_requested, number, client, request, nodes)

    @precondition(lambda self: self.replicas)
    @rule(data=st.data())
    def die(self, data):
        replica_id = data.draw(st.sampled_from(list(self.replicas)))
        del self.replicas[replica_id]
        for each in self.do(self.core.replica_died, replica_id):
            assert not isinstance(each, StartReplica) or each.delay_s <= 30

    @rule(
        data=st.data(),
        seconds=st.sampled_from([2.0, 2.0, 2.0, 20.0]),
        nodes=st.lists(st.sampled_from(NODES), unique=True),
    )
    def look(self, data, seconds, nodes):
        self.now_s += seconds
        for client in self.seen:
            self.seen[client] = self.now_s
            self.core.client_seen(client, self.now_s)
        share = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
        counts = {key: (self.core.scale_of(key), len(self.of(key))) for key in self.core.requests()}
        for replica_id, replica in self.replicas.items():
            if replica.is_ready:
                before_s = self.busy.setdefault(replica_id, 0.0)
                self.busy[replica_id] = total_s = before_s + share * seconds
                report = LoadReport(total_s, round(total_s * 100), round(share), 1, 1, 0.01)
                self.core.loads.replica_reported(replica_id, report, self.now_s)
        waiting = dict.fromkeys(KEYS, 50) if share == 1.0 else {}
        self.core.loads.client_reported("ann", waiting, self.now_s)

        def decide():
            rests, backends = self.core.judge(self.now_s)
            return rests + self.core.allot(dict.fromkeys(backends, nodes))

        self.do(decide)
        for key, (scale, count) in counts.items():
            now = len(self.of(key))
            if self.core.is_asleep(key):
                assert now == 0
            else:
                assert now >= min(count, scale["minimum"])
                assert now <= max(count, scale["maximum"])

    @rule(key=st.sampled_from(KEYS), nodes=st.lists(st.sampled_from(NODES), unique=True))
    def wake(self, key, nodes):
        was_asleep = self.core.is_asleep(key)
        started = self.do(self.core.model_wanted, key, nodes)
        assert bool(started) == was_asleep

    def of(self, key):
        return [each for each in self.replicas.values() if each.order.request.key == key]

    @invariant()
    def every_model_serves_or_starts(self):
        there = {replica.order.request.key for replica in self.replicas.values()}
        asleep = {key for key in self.core.requests() if self.core.is_asleep(key)}
        assert not there & asleep
        assert there | asleep == set(self.core.requests())

    @invariant()
    def what_it_says_is_what_there_is(self):
        for key in self.core.requests():
            scale = self.core.scale_of(key)
            assert scale["ready"] + scale["starting"] == len(self.of(key))
            assert scale["why"]


ElasticMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestElastic = ElasticMachine.TestCase
