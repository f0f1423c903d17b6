"""A real server on a real cluster: `atriva serve` as a program, and what one asks it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import onnx
import psutil
from onnx import TensorProto, helper, numpy_helper

from atriva_ray.serve.sockets import check_free
from tests.cluster.tools import BIN, TOKEN_MODE, Driver, wait_until
from tests.conftest import EXAMPLES, MODELS

HOST = "127.0.0.1"
DIGITS = EXAMPLES / "models" / "digits.onnx"
HELDOUT = EXAMPLES / "models" / "digits_heldout.npz"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SCALE = 255 / 16
"""The model takes pixels up to 16, a picture has them up to 255."""

_ANSWER_TIMEOUT_S = 60
_END_TIMEOUT_S = 60


class Repository:
    """A folder of models."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def add_plus(self, name: str, version: int, device: str = "CPU") -> None:
        """Add a version of a model that adds the version to what it gets."""
        plus = numpy_helper.from_array(np.array([version], np.float32), "plus")
        x, y = (
            helper.make_tensor_value_info(each, TensorProto.FLOAT, ["rows", 2])
            for each in ("x", "y")
        )
        node = helper.make_node("Add", ["x", "plus"], ["y"])
        graph = helper.make_graph([node], "plus", [x], [y], [plus])
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        self._settings(name, f"device: {device}\n")
        path = self._version(name, version) / f"{name}_{version}.onnx"
        whole = path.with_suffix(".part")
        onnx.save(model, whole)
        whole.rename(path)

    def add_garbage(self, name: str, version: int) -> None:
        self._version(name, version).joinpath("model.onnx").write_bytes(b"no model at all")

    def add_digits(self) -> None:
        folder = self._version("digits", 1)
        shutil.copy(DIGITS, folder / "digits_1.onnx")
        (folder.parent / "labels.txt").write_text("\n".join(NAMES))
        text = (
            f"device: CPU\nlabels: labels.txt\ntop_k: 3\npreprocessing: {digit_preprocessing()}\n"
        )
        (folder.parent / "model.yaml").write_text(text)

    def add_files(self, name: str, settings: str, *files: str) -> None:
        folder = self._version(name, 1)
        for file in files:
            shutil.copy(MODELS / file, folder)
        self._settings(name, settings)

    def remove(self, name: str, version: int | None = None) -> None:
        path = self.folder / name
        shutil.rmtree(path if version is None else path / str(version))

    def _version(self, name: str, version: int) -> Path:
        folder = self.folder / name / str(version)
        folder.mkdir(parents=True)
        return folder

    def _settings(self, name: str, text: str) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "model.yaml").write_text(text)


def digit_preprocessing() -> dict[str, object]:
    return {"color": "gray", "scale": SCALE}


class Server:
    """The program `atriva serve`, and its ports."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str], name="atriva") -> None:
        self.name = name
        self.http_port, self.grpc_port = free_ports()
        self.grpc_address = f"{HOST}:{self.grpc_port}"
        self.http_address = f"{HOST}:{self.http_port}"
        self._log = folder / f"{name}.log"
        ports = ["--port", str(self.http_port), "--grpc-port", str(self.grpc_port)]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [str(BIN / "atriva"), "serve", *arguments, *ports, "--name", name],
                cwd=folder,
                env=os.environ | TOKEN_MODE | env,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_ready(self) -> None:
        def is_ready():
            assert self.process.poll() is None, self.log()
            with suppress(OSError, http.client.HTTPException):
                return self.ask("GET", "/v2/health/ready")[0] == 200
            return False

        wait_until(is_ready, what=self.log)

    def ask(self, method: str, path: str, body=None, token: str = ""):
        """Return the status and what the JSON of the answer says, over a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.http_port, timeout=_ANSWER_TIMEOUT_S)
        try:
            return ask_over(connection, method, path, body, token)
        finally:
            connection.close()

    def plus(self, name: str, version: str = "", token: str = ""):
        """Return the status, and which version says to have answered and what it added."""
        path = f"/v2/models/{name}" + (f"/versions/{version}" if version else "")
        status, answer = self.ask("POST", f"{path}/infer", plus_request([[1, 2]]), token)
        if status != 200:
            return status, answer["error"], None
        data = answer["outputs"][0]["data"]
        return status, answer["model_version"], [data[0] - 1, data[1] - 2]

    def load(self, name: str):
        return self.ask("POST", f"/v2/repository/models/{name}/load", {})

    def unload(self, name: str):
        return self.ask("POST", f"/v2/repository/models/{name}/unload", {})

    def index(self):
        status, states = self.ask("POST", "/v2/repository/index", {})
        assert status == 200
        return {
            (each["name"], each.get("version", "")): (each["state"], each.get("reason", ""))
            for each in states
        }

    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it as Ctrl-C does, and see that it ends well and leaves its ports."""
        self.process.send_signal(number)
        assert self.process.wait(_END_TIMEOUT_S) == 0, self.log()
        assert "Traceback" not in self.log(), self.log()
        for port in (self.http_port, self.grpc_port):
            check_free(HOST, port)

    def close(self) -> None:
        """End it however it can be ended."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@contextmanager
def started(server: Server):
    """Wait for a server, and end it whatever happens."""
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()


class Nodes:
    """The processes of a cluster."""

    def __init__(self, cluster, folder: Path) -> None:
        self._cluster = cluster
        self._driver = Driver({"RAY_ADDRESS": cluster.address}, folder)
        self._driver.do("""
            import ray
            from atriva_ray.router_handle import get_router
            ray.init(namespace="atriva", configure_logging=False)
        """)

    def replicas(self, prefix: str = "") -> list[int]:
        """Return the processes of the models whose files begin like that."""
        status = self._driver.get("ray.get(get_router().status.remote())")
        return [
            use["pid"]
            for key, model in status.items()
            if key.startswith(prefix)
            for use in model["replicas"]
        ]

    def serving(self, kind: str, name: str = "atriva") -> list[int]:
        """Return the processes of a server: those of its ``Ingress``, or of its ``Catalog``."""
        title = f"ServeReplica:{name}:{kind}"
        found = []
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                if title in " ".join(process.cmdline()):
                    found.append(process.pid)
        return found

    def memory_bytes(self) -> int:
        """Return what all processes of the cluster take, what they share counted once."""
        taken = 0
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                taken += process.memory_full_info().pss
        return taken

    def close(self) -> None:
        self._driver.close()

    def _processes(self) -> list[psutil.Process]:
        roots = [psutil.Process(node.pid) for node in self._cluster.nodes]
        return [each for root in roots for each in (root, *root.children(recursive=True))]


def ask_over(connection: http.client.HTTPConnection, method: str, path: str, body=None, token=""):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    content = body if body is None or isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    answer = response.read()
    return response.status, json.loads(answer) if answer else None


def plus_request(rows):
    data = [value for row in rows for value in row]
    tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 2], "data": data}
    return {"inputs": [tensor]}


def free_ports(count: int = 2) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def ended(pids) -> bool:
    """Whether processes have gone; one that only waits to be looked at has."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return False
    return True
