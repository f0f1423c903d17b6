"""What a scenario may say."""

from __future__ import annotations

import pytest
import yaml

from atriva_inference.errors import OptionError
from atriva_ray.simulation.faults import Fault
from atriva_ray.simulation.scenario import Burst, ReplicaGroup, Scenario
from tests.conftest import EXAMPLES

RIGHT = """
replicas:
  - {name: fast, count: 10, service_time_s: 0.001, sigma: 0.3}
  - {name: slow, count: 5, service_time_s: 0.01, slots: 2}
clients: 3
load: 0.5
duration_s: 4
warm_up_s: 1
network_s: 0
bandwidth_bytes_per_s: 1.0e+6
request_bytes: 2000
answer_bytes: 500
bursts: {on_s: 0.1, off_s: 0.3}
faults:
  - {at_s: 1, for_s: 0.5, group: fast, share: 0.2, slowdown: 10}
  - {at_s: 2, count: 3, dies: true, detection_s: 0.01}
deadline_s: 0.05
seed: 7
"""


def test_a_scenario_is_what_its_file_says():
    scenario = Scenario.from_mapping(yaml.safe_load(RIGHT))
    assert scenario == Scenario(
        replicas=(
            ReplicaGroup(name="fast", count=10, service_time_s=0.001, sigma=0.3),
            ReplicaGroup(name="slow", count=5, service_time_s=0.01, slots=2),
        ),
        clients=3,
        load=0.5,
        duration_s=4,
        warm_up_s=1,
        network_s=0,
        bandwidth_bytes_per_s=1e6,
        request_bytes=2_000,
        answer_bytes=500,
        bursts=Burst(on_s=0.1, off_s=0.3),
        faults=(
            Fault(at_s=1, for_s=0.5, group="fast", share=0.2, slowdown=10),
            Fault(at_s=2, count=3, dies=True, detection_s=0.01),
        ),
        deadline_s=0.05,
        seed=7,
    )
    assert scenario.capacity_per_s == pytest.approx(11_000)
    assert scenario.asked_per_s == pytest.approx(5_500)
    assert scenario.request_transfer_s == pytest.approx(0.002)
    assert scenario.answer_transfer_s == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("load: 0.5", "", "either load or rate_per_s"),
        ("load: 0.5", "load: 0.5\nrate_per_s: 3", "either load or rate_per_s"),
        ("load: 0.5", "load: 0", "load='0'"),
        ("load: 0.5", "load: half", "load='half'"),
        ("load: 0.5", "load: .nan", "load='nan'"),
        ("clients: 3", "clients: 0", "clients='0'"),
        ("clients: 3", "clients: true", "clients='True'"),
        ("clients: 3", "people: 3", "people"),
        ("warm_up_s: 1", "warm_up_s: 4", "less than duration_s"),
        ("network_s: 0", "network_s: -1", "network_s='-1'"),
        ("name: slow", "name: fast", "different names"),
        ("service_time_s: 0.01, ", "", "service_time_s"),
        ("service_time_s: 0.01", "service_time_s: 0", "service_time_s='0'"),
        ("count: 10", "count: 1.5", "count='1.5'"),
        ("slots: 2", "slots: 0", "slots='0'"),
        ("sigma: 0.3", "sigma: .inf", "sigma='inf'"),
        ("{on_s: 0.1, off_s: 0.3}", "often", "bursts"),
        ("on_s: 0.1", "on_s: 0", "on_s='0'"),
        ("seed: 7", "seed: seven", "seed='seven'"),
        ("bandwidth_bytes_per_s: 1.0e+6", "", "bandwidth_bytes_per_s"),
        ("1.0e+6", "0", "bandwidth_bytes_per_s='0'"),
        ("request_bytes: 2000", "request_bytes: -1", "request_bytes='-1'"),
        ("answer_bytes: 500", "answer_bytes: many", "answer_bytes='many'"),
        ("deadline_s: 0.05", "deadline_s: 0", "deadline_s='0'"),
        ("at_s: 1, ", "", "at_s"),
        ("group: fast", "group: quick", "group 'quick'"),
        ("slowdown: 10", "slowness: 10", "slowness"),
        ("count: 3, dies", "count: 16, dies", "no more than there are: 15"),
    ],
)
def test_what_a_scenario_cannot_say_is_told(before, after, message):
    assert before in RIGHT
    with pytest.raises(OptionError, match=message.replace(".", r"\.")):
        Scenario.from_mapping(yaml.safe_load(RIGHT.replace(before, after)))


@pytest.mark.parametrize("content", [None, [], "fast", {"replicas": "fast"}, {"replicas": [3]}, {}])
def test_what_is_no_scenario_is_told(content):
    with pytest.raises(OptionError):
        Scenario.from_mapping(content)


def test_a_cluster_without_replicas_is_told():
    with pytest.raises(OptionError, match="at least one group"):
        Scenario.from_mapping({"replicas": [], "load": 1})


def test_faults_are_a_list():
    with pytest.raises(OptionError, match="a list of faults"):
        Scenario.from_mapping(yaml.safe_load(RIGHT) | {"faults": "many"})


@pytest.mark.parametrize("name", ["mixed", "faults"])
def test_the_examples_are_scenarios(name):
    file = EXAMPLES / "simulate" / f"{name}.yaml"
    assert Scenario.from_mapping(yaml.safe_load(file.read_text())).clients > 1
