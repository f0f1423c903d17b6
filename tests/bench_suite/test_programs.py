"""Programs of the suite: that they start, count, fail loudly and end; not how fast they are."""

from __future__ import annotations

import time

import psutil
import pytest

from benchmarks.client import Client, ProgramError
from benchmarks.job import Job
from benchmarks.models import carrier_model, digits
from tests.cluster.tools import wait_until


def make_job(peer, model):
    return Job(peer, str(model.path), model.shape, model.dtype, "THROUGHPUT", threads=1)


def count_in(client, seconds):
    answer = client.ask("flow", start_s=time.perf_counter(), seconds=seconds)
    assert answer["duration_s"] == seconds
    return answer["count"]


@pytest.fixture
def start(tmp_path):
    started = []

    def make(job):
        client = Client(f"test/{job.peer}", job, {}, tmp_path)
        started.append(client)
        return client

    yield make
    for client in started:
        client.close()
        assert not psutil.pid_exists(client.pid)


@pytest.mark.parametrize("peer", ["bare", "in_process"])
def test_one_process_without_ray(start, peer):
    client = start(make_job(peer, digits()))
    client.open()
    assert client.about["has_ray"] is False
    wait_until(lambda: count_in(client, 0.1) > 0)  # on a busy machine the first ones may take long
    wait_until(lambda: client.ask("trips", shape=None, seconds=0.1)["trips_s"])


def test_inputs_of_another_size(start, tmp_path):
    client = start(make_job("bare", carrier_model(tmp_path, 1_000)))
    client.open()
    wait_until(lambda: client.ask("trips", shape=[100_000], seconds=0.05)["trips_s"])


def test_a_failing_program_says_why(start, tmp_path):
    model = carrier_model(tmp_path, 1_000)
    client = start(make_job("bare", model))
    model.path.write_bytes(b"nonsense")
    with pytest.raises(ProgramError, match="test/bare: RuntimeError"):
        client.open()


def test_a_program_that_dies_is_noticed(start):
    client = start(make_job("bare", digits()))
    client.open()
    psutil.Process(client.pid).kill()
    with pytest.raises(ProgramError, match="ended"):
        count_in(client, 0.1)
