"""Many models in one server, which leaves nothing of them; and models on different devices."""

from __future__ import annotations

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import tritonclient.grpc as triton

from tests.cluster.tools import Cluster, wait_until
from tests.serve.serving_tools import (
    Nodes,
    Repository,
    Server,
    ended,
    plus_request,
    started,
)

NAME = "crowd"
MANY = {f"many_{number:02}": str(number) for number in range(1, 21)}
DEVICES = {"usual": "CPU", "other": "FASTCPU"}
AT_ONCE = 4
FEW = 3
ROWS = 4000  # too many to travel otherwise than in shared memory
MIB = 1 << 20
LEAST_BYTES = 40 * MIB
"""Of a replica's process, what it does not share with others; it is about twice that."""
WASTE_BYTES = len(MANY) * LEAST_BYTES / 4


@pytest.fixture(scope="module")
def wide(short_tmp):
    """A cluster of its own, of one node with two devices."""
    folder = short_tmp / "wide"
    folder.mkdir()
    store, plugins = str(folder / "store"), "FASTCPU=openvino_intel_cpu_plugin"
    cluster = Cluster(folder, {"ATRIVA_MODEL_STORE": store, "ATRIVA_OPENVINO_PLUGINS": plugins})
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def shelf(short_tmp):
    models = Repository(short_tmp / "crowd" / "repository")
    for name, device in DEVICES.items():
        models.add_plus(name, 1, device)
    return models


@pytest.fixture(scope="module")
def crowd(wide, shelf):
    """A server on that cluster, which begins with one model per device."""
    folder, env = shelf.folder.parent, {"RAY_ADDRESS": wide.address}
    with started(Server(folder, "--repository", "repository", env=env, name=NAME)) as running:
        yield running
        running.end()


@pytest.fixture(scope="module")
def crew(wide, short_tmp):
    found = Nodes(wide, short_tmp)
    yield found
    found.close()


def test_models_on_different_devices(crowd):
    client = triton.InferenceServerClient(crowd.grpc_address)
    status, page = _page(crowd)
    assert status == 200
    for name, device in DEVICES.items():
        assert crowd.plus(name) == (200, "1", [1, 1])
        status, config = crowd.ask("GET", f"/v2/models/{name}/config")
        assert status == 200
        (group,) = config["instance_group"]
        assert group["name"].partition("/")[2] == device
        assert group["kind"] == ("KIND_CPU" if device == "CPU" else "KIND_MODEL")
        assert config["parameters"]["device"] == {"string_value": device}
        assert client.get_model_config(name).config.instance_group[0].name == group["name"]
        (card,) = (each for each in page if f"<h3>{name}" in each)
        assert f">{group['name']}</li>" in card
        assert crowd.index()[name, "1"][0] == "READY"
        status, answer = crowd.ask("GET", f"/v2/models/{name}/stats")
        assert (status, [each["name"] for each in answer["model_stats"]]) == (200, [name])
    client.close()


class Footprint(NamedTuple):
    """What a server's own processes hold, and what lies in shared memory."""

    files: tuple[int, ...]
    sockets: tuple[int, ...]
    threads: tuple[int, ...]
    mappings: tuple[int, ...]
    names: frozenset[str]

    @property
    def counts(self):
        """Each by process."""
        return self[:4]

    def is_within(self, before, few):
        """Whether nothing is there that was not before, but for a few."""
        return (
            all(
                now - then <= few
                for mine, others in zip(self.counts, before.counts, strict=True)
                for now, then in zip(mine, others, strict=True)
            )
            and self.names <= before.names
        )


@pytest.mark.timeout(900)  # a process for each model, twice
def test_many_models_come_and_go(crowd, shelf, crew, record_property):
    for name, version in MANY.items():
        shelf.add_plus(name, int(version))
    begun_bytes = crew.memory_bytes()
    loaded_bytes, left_bytes, footprints = [], [], [_footprint(crew)]
    for names in (list(MANY), list(MANY)[:8]):
        pids = _load(crowd, crew, names)
        loaded_bytes.append(crew.memory_bytes())
        assert loaded_bytes[-1] - begun_bytes > len(names) * LEAST_BYTES
        assert sum(_footprint(crew).mappings) > 0
        _unload(crowd, names)
        wait_until(lambda pids=pids: ended(pids), timeout_s=30)
        wait_until(lambda: crew.memory_bytes() - begun_bytes < WASTE_BYTES, timeout_s=30)
        left_bytes.append(crew.memory_bytes())
        footprints.append(_footprint(crew))
    record_property("MiB", [each // MIB for each in (begun_bytes, *loaded_bytes, *left_bytes)])
    record_property("footprints", [each.counts for each in footprints])
    # Something that is kept of every model would be 8 more of it.
    wait_until(
        lambda: _footprint(crew).is_within(footprints[1], FEW),
        timeout_s=20,
        what=lambda: footprints,
    )


def _load(crowd, crew, names):
    """Load models, ask each, and return the processes that they run in."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert set(pool.map(crowd.load, names)) == {(200, None)}
    index = crowd.index()
    for name in names:
        version = MANY[name]
        assert index[name, version] == ("READY", "")
        assert crowd.plus(name) == (200, version, [int(version), int(version)])
        request = plus_request([[1, 2]] * ROWS)
        status, answer = crowd.ask("POST", f"/v2/models/{name}/infer", request)
        assert status == 200
        assert answer["outputs"][0]["data"] == [1 + int(version), 2 + int(version)] * ROWS
    pids = crew.replicas("many_")
    assert len(set(pids)) == len(names)
    return pids


def _unload(crowd, names):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert set(pool.map(crowd.unload, names)) == {(200, None)}
    index = crowd.index()
    for name in names:
        assert index[name, MANY[name]][0] == "UNAVAILABLE"
        assert crowd.plus(name)[0] == 404


def _footprint(crew):
    processes = [
        psutil.Process(pid) for kind in ("Catalog", "Ingress") for pid in crew.serving(kind, NAME)
    ]
    assert len(processes) == 3
    shm = Path("/dev/shm")  # noqa: S108 - looked at, not written
    opened = [_opened(each.pid) for each in processes]
    return Footprint(
        tuple(map(len, opened)),
        tuple(sum(target.startswith("socket:") for target in each) for each in opened),
        tuple(each.num_threads() for each in processes),
        tuple(Path(f"/proc/{each.pid}/maps").read_text().count("/memfd:") for each in processes),
        frozenset(path.name for path in shm.iterdir() if path.name.startswith("atriva")),
    )


def _opened(pid):
    """Return what the descriptors of a process lead to."""
    targets = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            targets.append(str(descriptor.readlink()))
    return targets


def _page(crowd):
    """Return the status of the page, and its cards."""
    with urllib.request.urlopen(f"http://{crowd.http_address}/", timeout=30) as answer:
        text = answer.read().decode()
    return answer.status, re.findall(r'<article class="card">.*?</article>', text, re.DOTALL)
