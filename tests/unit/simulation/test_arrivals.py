"""Requests as they once came."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from atriva_inference.errors import OptionError
from atriva_ray.errors import InputFileError
from atriva_ray.simulation.arrivals import read_arrivals
from atriva_ray.simulation.scenario import ReplicaGroup, Scenario
from atriva_ray.simulation.simulate import simulate
from atriva_ray.simulation.workload import make_workload

ONE = {"name": "one", "count": 1, "service_time_s": 0.01}


@pytest.fixture
def written(tmp_path):
    def write(content):
        file = tmp_path / "arrivals.csv"
        file.write_text(content)
        return file

    return write


def test_arrivals_are_what_their_file_says_in_the_order_of_time(written):
    found = read_arrivals(written("client,time_s,size\n3,0.5,2\n0,1e-3,0.5\n\n3,0.25,1\n"))
    assert found.times_s.tolist() == [0.001, 0.25, 0.5]
    assert found.clients.tolist() == [0, 3, 3]
    assert found.sizes.tolist() == [0.5, 1, 2]
    assert found.client_count == 4


@pytest.mark.parametrize(
    "content", ["time_s\n1\n2", "\ufefftime_s\r\n1\r\n2\r\n", ' time_s\n"1"\n2\n']
)
def test_times_are_enough(written, content):
    found = read_arrivals(written(content))
    assert found.times_s.tolist() == [1, 2]
    assert (found.clients, found.sizes, found.client_count) == (None, None, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the columns time_s"),
        ("1\n2\n", "the columns time_s"),
        ("time_s,colour\n1,2\n", "the columns time_s"),
        ("time_s,time_s\n1,2\n", "the columns time_s"),
        ("time_s\n", "no requests"),
        ("time_s\n1\n2\nsoon\n", r"line 4: time_s 'soon' is not a number of seconds"),
        ("time_s\n1\n\n-2\n", r"line 4: time_s '-2'"),
        ("time_s\n1\nnan\n", r"line 3: time_s 'nan'"),
        ("time_s\n1\ninf\n", r"line 3: time_s 'inf'"),
        ("time_s,client\n1,1\n2\n", r"line 3: 1 values, not 2"),
        ("time_s\n1\n2,3\n", r"line 3: 2 values, not 1"),
        ("time_s\n1,1\n2,3\n", r"line 2: 2 values, not 1"),
        ("time_s,client\n1,1.5\n", r"line 2: client '1.5' is not a whole number"),
        ("time_s,client\n1,-1\n", r"line 2: client '-1'"),
        ("time_s,client\n1,1e300\n", r"line 2: client '1e300'"),
        ("time_s,size\n1,1\n1,0\n", r"line 3: size '0' is not a number above 0"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(written, content, message):
    with pytest.raises((InputFileError, OptionError), match=message) as caught:
        read_arrivals(written(content))
    assert "arrivals.csv" in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path):
    with pytest.raises(InputFileError, match="No such file"):
        read_arrivals(tmp_path / "arrivals.csv")
    (tmp_path / "arrivals.csv").write_bytes(b"time_s\n\xff\xfe\n")
    with pytest.raises(InputFileError, match=r"arrivals\.csv"):
        read_arrivals(tmp_path / "arrivals.csv")


def test_a_million_requests_are_read_in_seconds(tmp_path):
    times_s = np.random.default_rng(1).uniform(0, 100, 1_000_000)
    np.savetxt(tmp_path / "arrivals.csv", times_s, header="time_s", comments="")
    begin = time.process_time()
    found = read_arrivals(tmp_path / "arrivals.csv")
    assert time.process_time() - begin < 10
    np.testing.assert_array_equal(found.times_s, np.sort(times_s))


def test_a_scenario_takes_its_requests_from_a_file_beside_it(written):
    file = written("time_s,client,size\n0,1,1\n1,0,3\n1,1,0.5\n9,1,1\n")
    told = {"replicas": [ONE], "arrivals": file.name, "network_s": 0}
    scenario = Scenario.from_mapping(told, file.parent)
    assert (scenario.clients, scenario.asked_per_s) == (2, pytest.approx(4 / 9))
    workload = make_workload(scenario)
    assert workload.times_s.tolist() == [0, 1, 1, 9]
    assert workload.clients.tolist() == [1, 0, 1, 1]
    found = simulate(scenario, workload, "round-robin")
    np.testing.assert_allclose(found.latencies_s, [0.01, 0.03, 0.035, 0.01])

    scenario = Scenario.from_mapping(told | {"duration_s": 9, "clients": 7}, file.parent)
    assert (scenario.clients, scenario.asked_per_s) == (7, pytest.approx(3 / 9))
    assert len(make_workload(scenario)) == 3


def test_what_a_file_does_not_say_is_drawn(written):
    file = written("time_s\n" + "\n".join(str(i / 1_000) for i in range(5_000)))
    told = {"replicas": [ONE | {"sigma": 0.3}], "arrivals": str(file), "clients": 4}
    workload = make_workload(Scenario.from_mapping(told))
    assert np.bincount(workload.clients).min() > 1_000
    assert workload.sizes.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"load": 0.5}, "beside load"),
        ({"rate_per_s": 0.5}, "beside rate_per_s"),
        ({"bursts": {"on_s": 1, "off_s": 1}}, "beside bursts"),
        ({"clients": 1}, "at least the 2 of"),
        ({"arrivals": 3}, "the name of a CSV file"),
        ({"replicas": [ONE | {"sigma": 0.3}]}, "sigma 0"),
    ],
)
def test_what_does_not_go_with_a_file_is_told(written, told, message):
    file = written("time_s,client,size\n0,1,1\n1,0,3\n")
    with pytest.raises(OptionError, match=message):
        Scenario.from_mapping({"replicas": [ONE], "arrivals": file.name} | told, file.parent)


def test_bytes_take_time_on_their_way():
    group = ReplicaGroup(name="one", count=1, service_time_s=1)
    scenario = Scenario(replicas=(group,), rate_per_s=0.01, duration_s=1_000, network_s=0.125)
    there = {"bandwidth_bytes_per_s": 1_000, "request_bytes": 500, "answer_bytes": 250}
    for told, takes_s in (({}, 1.25), (there, 2)):
        each = replace(scenario, **told)
        found = simulate(each, make_workload(each), "ours")
        assert found.latencies_s.min() == pytest.approx(takes_s)
        # A request waits while another runs, but not while it travels.
        assert found.idle_while_waiting == pytest.approx(0, abs=1e-6)
