"""How a server begins and ends, whom it lets in, and what it sees by itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import suppress

import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.cluster.tools import BIN, TOKEN_MODE, wait_until
from tests.conftest import MODELS
from tests.serve.serving_tools import (
    DIGITS,
    HOST,
    Repository,
    Server,
    ended,
    free_ports,
    started,
)

NAME = "guarded"
OURS = (*"┏┃┡│└", "HTTP  ", "gRPC  ", "Ray   ", "stopped")
"""How the lines begin that `atriva serve` shows; Ray and Ray Serve have more to say."""


def atriva(*arguments, **env):
    without = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    command = [str(BIN / "atriva"), *arguments]
    return subprocess.run(
        command,
        env=without | TOKEN_MODE | env,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,  # refusals are looked at
    )


def ports_for():
    port, grpc_port = map(str, free_ports())
    return ["--port", port, "--grpc-port", grpc_port]


@pytest.fixture(scope="module")
def watched(short_tmp):
    models = Repository(short_tmp / "watched" / "repository")
    models.add_plus("live", 1)
    models.add_plus("gone", 1)
    models.add_garbage("broken", 1)
    return models


@pytest.fixture
def cluster_logs(cluster, short_tmp):
    """The folder of the logs of the cluster's node."""
    return short_tmp / "c" / "ray" / "session_latest" / "logs"


@pytest.fixture(scope="module")
def token(watched):
    """A token that the server knows."""
    made = atriva("token", "alice", "--file", str(watched.folder.parent / "tokens"))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@pytest.fixture(scope="module")
def guarded(cluster, watched, token):
    """A server of another name on the same cluster, with tokens, that looks for changes."""
    options = ["--tokens", "tokens", "--watch", "0.5", "--ingresses", "1"]
    folder, env = watched.folder.parent, {"RAY_ADDRESS": cluster.address}
    server = Server(folder, "--repository", "repository", *options, env=env, name=NAME)
    with started(server) as running:
        yield running


def test_a_token_is_wanted_on_both_ports(guarded, token):
    path = "/v2/models/live"
    assert guarded.ask("GET", "/v2/health/live")[0] == 200
    status, answer = guarded.ask("GET", path)
    assert status == 401
    assert "token" in answer["error"]
    assert guarded.ask("GET", path, token=token[:-1])[0] == 401
    assert guarded.ask("GET", path, token=token)[0] == 200
    assert guarded.load("live")[0] == 401
    client = triton.InferenceServerClient(guarded.grpc_address)
    with pytest.raises(InferenceServerException) as caught:
        client.get_model_metadata("live")
    assert caught.value.status() == "StatusCode.UNAUTHENTICATED"
    headers = {"authorization": f"Bearer {token}"}
    assert client.get_model_metadata("live", headers=headers).name == "live"
    client.close()


def test_what_goes_wrong_is_in_the_log_of_the_process(guarded, cluster_logs):
    (log,) = cluster_logs.glob(f"serve/replica_{NAME}_Catalog_*.log")
    wait_until(lambda: "model broken: " in log.read_text(), timeout_s=20, what=log.read_text)


def test_what_changes_in_the_folder_is_followed(guarded, watched, token, nodes):
    def answers(version):
        return guarded.plus("live", token=token) == (200, str(version), [version, version])

    assert answers(1)
    assert guarded.plus("gone", token=token)[0] == 200
    watched.add_plus("live", 2)
    watched.remove("gone")
    wait_until(lambda: answers(2), timeout_s=20)
    wait_until(lambda: guarded.plus("gone", token=token)[0] == 404, timeout_s=20)
    (catalog,) = nodes.serving("Catalog", NAME)
    os.kill(catalog, signal.SIGKILL)  # the next one goes on looking
    wait_until(lambda: ended([catalog]))
    watched.add_plus("live", 3)
    wait_until(lambda: answers(3), timeout_s=60)


def test_a_name_that_is_taken_is_told(guarded, cluster, watched):
    command = ["serve", "--repository", str(watched.folder), *ports_for(), "--name", NAME]
    refused = atriva(*command, "--address", cluster.address)
    assert refused.returncode == 2
    assert f"name='{NAME}'" in refused.stderr
    assert guarded.ask("GET", "/v2/health/ready")[0] == 200


def test_it_ends_well_when_it_is_told_to(guarded, nodes):
    wait_until(lambda: len(nodes.replicas("live")) == 1)  # the catalog that was killed is forgotten
    processes = [
        *nodes.serving("Ingress", NAME),
        *nodes.serving("Catalog", NAME),
        *nodes.replicas("live"),
    ]
    assert len(processes) == 3
    guarded.end(signal.SIGTERM)
    wait_until(lambda: ended(processes))
    assert nodes.replicas("live") == []
    shown = [line for line in guarded.log().splitlines() if line and not line.startswith(OURS)]
    # Ray tells of the catalog that was killed, if it gets round to it; of nothing else.
    assert [line for line in shown if "A worker died" not in line] == []


def test_a_service_manager_may_tell_all_processes_at_once(short_tmp):
    folder = short_tmp / "own"
    folder.mkdir()
    options = [str(DIGITS), "--ingresses", "1", "--address", "local"]
    with started(Server(folder, *options, env={"RAY_TMPDIR": str(folder)}, name="own")) as server:
        program = psutil.Process(server.process.pid)
        processes = program.children(recursive=True)
        for each in (program, *processes):
            with suppress(psutil.NoSuchProcess):
                each.terminate()
        assert server.process.wait(45) == 0, server.log()  # Ray itself would abort after 60 s
        assert "Traceback" not in server.log(), server.log()
        wait_until(lambda: ended(each.pid for each in processes))


def test_others_are_let_in_only_with_tokens():
    refused = atriva("serve", "model.onnx", *ports_for(), "--host", "0.0.0.0")  # noqa: S104
    assert refused.returncode == 2
    assert "host='0.0.0.0'" in refused.stderr
    assert "tokens" in refused.stderr
    assert refused.stdout == ""


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ([], "--repository"),
        (["model.onnx", "--port", "7000", "--grpc-port", "7000"], "both 7000"),
        (["model.onnx", "--tls-cert", "server.pem"], "--tls-key"),
    ],
)
def test_what_does_not_go_together_is_told_at_once(options, missing):
    refused = atriva("serve", *options)
    assert refused.returncode == 2
    assert missing in refused.stderr
    assert refused.stdout == ""


def test_a_port_in_use_is_told():
    with socket.create_server((HOST, 0)) as other:
        port = str(other.getsockname()[1])
        refused = atriva("serve", "model.onnx", *ports_for(), "--grpc-port", port)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert f"{HOST}:{port}" in line
    assert "Address already in use" in line


def test_a_model_that_is_not_there_is_told():
    path = str(MODELS / "nothing.onnx")
    refused = atriva("serve", path, *ports_for(), "--ingresses", "1", "--address", "local")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "'nothing'" in line
    assert "No such file" in line
