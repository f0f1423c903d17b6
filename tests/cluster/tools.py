"""Real clusters and real programs: nodes are `ray start` processes, drivers Python processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil

READY_TIMEOUT_S = 90
TOKEN_MODE = {"RAY_AUTH_MODE": "token"}
BIN = Path(sys.executable).parent

_DRIVER = """
import json, sys, traceback
scope = {}
for line in sys.stdin:
    kind, code = json.loads(line)
    try:
        if kind == "exec":
            exec(code, scope)
            answer = {"value": None}
        else:
            answer = {"value": eval(code, scope)}
    except BaseException as error:
        traceback.print_exc()
        answer = {"error": type(error).__name__, "message": str(error)}
    print("@@" + json.dumps(answer), flush=True)
"""


class DriverError(Exception):
    """What the program raised: the class's name, and its message."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message


class Driver:
    """A program of its own process, fed with statements and expressions."""

    def __init__(self, env: dict[str, str], folder: Path, wrapper: list[str] | None = None) -> None:
        self._log = (folder / f"driver-{os.urandom(3).hex()}.log").open("w+")
        self.process = subprocess.Popen(
            [*(wrapper or []), sys.executable, "-u", "-c", _DRIVER],
            env=os.environ | TOKEN_MODE | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def do(self, code: str) -> None:
        """Run statements."""
        self._ask("exec", textwrap.dedent(code))

    def get(self, code: str):
        """Return the value of an expression, as JSON has it."""
        return self._ask("eval", code)

    def close(self) -> None:
        """End the program as its end of input does, and see that it ends well."""
        self.process.stdin.close()
        assert self.process.wait(60) in (0, -signal.SIGKILL), self.log()

    def kill(self) -> None:
        """End the program as the kernel would."""
        self.process.kill()
        self.process.wait(10)

    def log(self) -> str:
        self._log.flush()
        self._log.seek(0)
        return self._log.read()

    def _ask(self, kind: str, code: str):
        self.process.stdin.write(json.dumps([kind, code]) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@@"):
                answer = json.loads(line[2:])
                if "error" in answer:
                    raise DriverError(answer["error"], answer["message"])
                return answer["value"]
        raise AssertionError(f"the program ended:\n{self.log()}")


class Cluster:
    """A Ray cluster of this machine; each node is one `ray start --block`."""

    def __init__(
        self, folder: Path, env: dict[str, str], *options: str, cpus_of_new_nodes: int = 0
    ) -> None:
        """Start the head; with `cpus_of_new_nodes`, Ray's autoscaler adds nodes when they lack."""
        import ray  # noqa: PLC0415 - the unit tests pass without it

        self._folder = folder
        self._env = env
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address = f"{ray.util.get_node_ip_address()}:{port}"
        self.nodes: list[subprocess.Popen[str]] = []
        if cpus_of_new_nodes:
            config = _autoscaling(self.address, cpus_of_new_nodes)
            (folder / "autoscaling.json").write_text(json.dumps(config))
            options += (f"--autoscaling-config={folder / 'autoscaling.json'}",)
            self._env = env = env | _FAKE_NODES
        self._start(
            [
                "--head",
                f"--port={port}",
                f"--temp-dir={folder / 'ray'}",
                "--include-dashboard=false",
                *options,
            ],
            env,
        )

    def add_node(
        self, env: dict[str, str], *options: str, wrapper: list[str] | None = None
    ) -> None:
        """Add a node, optionally started by another command (to give it other mounts, say)."""
        self._start([f"--address={self.address}", *options], self._env | env, wrapper)

    def stop(self) -> None:
        for node in reversed(self.nodes):
            if node.poll() is not None:
                continue
            children = psutil.Process(node.pid).children(recursive=True)
            node.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.wait(5)
            for child in children:  # what is left of a node that did not end well
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            node.kill()
            node.wait(10)

    def _start(
        self, options: list[str], env: dict[str, str], wrapper: list[str] | None = None
    ) -> None:
        log = (self._folder / f"node-{len(self.nodes)}.log").open("w+")
        command = [str(BIN / "ray"), "start", "--block", "--num-cpus=2", "--disable-usage-stats"]
        node = subprocess.Popen(
            [*(wrapper or []), *command, *options],
            env=os.environ | TOKEN_MODE | env,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.nodes.append(node)
        while "Ray runtime started" not in (self._folder / Path(log.name).name).read_text():
            try:
                node.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
            self.stop()
            raise AssertionError(f"a node ended:\n{Path(log.name).read_text()}")


_FAKE_NODES = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}


def _autoscaling(address: str, cpus: int) -> dict[str, object]:
    """Have Ray's autoscaler add nodes that are processes of this machine."""
    head, more = "ray.head.default", "ray.worker.cpu"
    return {
        "cluster_name": "fake",
        "max_workers": 4,
        "idle_timeout_minutes": 10,
        "upscaling_speed": 1.0,
        "auth": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "provider": {"type": "fake_multinode", "gcs_address": address},
        "head_node_type": head,
        "available_node_types": {
            head: {"resources": {}, "node_config": {}, "max_workers": 0},
            more: {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 4},
        },
    }


def wait_until(condition, timeout_s=READY_TIMEOUT_S, every_s=0.1, what=lambda: "nothing"):
    """Return the condition's value as soon as it is true; else fail, showing `what()`."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what()}"
        threading.Event().wait(every_s)
    return value
