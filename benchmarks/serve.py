"""Models on the network: ours beside bare OpenVINO, plain Ray Serve and Triton, in turns.

``python -m benchmarks.serve [--rounds 3] [--seconds 8] [--triton PYTHON]`` starts a Ray node and
the servers, asks them with ``wrk`` and ``h2load`` (Debian has both: wrk, nghttp2-client) and with
``tritonclient``, prints a table, and writes JSON, Markdown and a plot.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import typer
from rich.console import Console

from benchmarks.batch import native_rate
from benchmarks.figures import Figures, show, write
from benchmarks.models import light
from benchmarks.ray_node import RayNode

__all__ = ["main"]

_ROOT = Path(__file__).parent.parent
_PEERS = Path(__file__).parent / "peers"
_READY_TIMEOUT_S = 120.0
_CLIENTS = 16
_LONE_REQUESTS = 60
_WINDOW_BITS = 22

_out = Console()


class _Server:
    """One server that answers the protocol on two ports."""

    def __init__(self, name: str, http_port: int, grpc_port: int, model: str) -> None:
        self.name = name
        self.http_port = http_port
        self.grpc_port = grpc_port
        self.model = model
        self.url = f"http://127.0.0.1:{http_port}"

    def await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.url}/v2/health/ready", timeout=5):  # noqa: S310
                    return
            except OSError:
                time.sleep(0.2)
        raise SystemExit(f"{self.name} did not start; see the lines above")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(server: _Server, command: Sequence[str], env: dict[str, str]) -> Iterator[_Server]:
    process = subprocess.Popen(command, env=os.environ | env, cwd=_ROOT, start_new_session=True)
    try:
        server.await_ready(process)
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# -- who asks --------------------------------------------------------------------------------


class _Requests:
    """One request in the forms that the programs which ask take."""

    def __init__(self, folder: Path, array: Any, input_name: str, datatype: str) -> None:
        tensor = triton_http.InferInput(input_name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        body, self.json_bytes = triton_http.InferenceServerClient.generate_request_body([tensor])
        self.body = folder / f"body-{datatype}.bin"
        self.body.write_bytes(body)
        self.http = tensor
        self.rpc = triton_grpc.InferInput(input_name, list(array.shape), datatype)
        self.rpc.set_data_from_numpy(array)
        self.script = folder / f"post-{datatype}.lua"
        self.script.write_text(f"""
local file = io.open("{self.body}", "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
wrk.headers["Inference-Header-Content-Length"] = "{self.json_bytes}"
wrk.headers["Content-Type"] = "application/octet-stream"
file:close()
""")

    def frame(self, model: str) -> Path:
        """Return a file with the request as gRPC sends it: a flag, its length, the message."""
        from tritonclient.grpc._utils import _get_inference_request  # noqa: PLC0415

        message = _get_inference_request(
            model_name=model,
            inputs=[self.rpc],
            model_version="",
            request_id="",
            outputs=None,
            sequence_id=0,
            sequence_start=False,
            sequence_end=False,
            priority=0,
            timeout=None,
            parameters=None,
        ).SerializeToString()
        path = self.body.with_name(f"{self.body.stem}-{model}.grpc")
        path.write_bytes(struct.pack(">BI", 0, len(message)) + message)
        return path


def _wrk(server: _Server, requests: _Requests, seconds: float) -> float:
    """Requests per second over HTTP."""
    url = f"{server.url}/v2/models/{server.model}/infer"
    command = [
        "wrk",
        "-t1",
        f"-c{_CLIENTS}",
        f"-d{max(1, int(seconds))}s",
        "-s",
        requests.script,
        url,
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in told or "Socket errors" in told:
        raise SystemExit(f"{server.name} refused requests:\n{told}")
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", told)[0])


def _h2load(server: _Server, requests: _Requests, seconds: float) -> float:
    """Requests per second over gRPC."""
    command = [
        *("h2load", "-t1", f"-c{_CLIENTS}", "-m1", f"-D{max(1, int(seconds))}"),
        *(f"-w{_WINDOW_BITS}", f"-W{_WINDOW_BITS}", f"--data={requests.frame(server.model)}"),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        f"http://127.0.0.1:{server.grpc_port}/inference.GRPCInferenceService/ModelInfer",
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if not re.search(r", 0 failed, 0 errored", told):
        raise SystemExit(f"{server.name} refused requests:\n{told}")
    return float(re.findall(r"([\d.]+) req/s", told)[0])


def _lone_http_ms(server: _Server, requests: _Requests) -> float:
    """Median time of a request of one client over HTTP."""
    with triton_http.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
        return _median_ms(lambda: client.infer(server.model, [requests.http]))


def _lone_grpc_ms(server: _Server, requests: _Requests) -> float:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        return _median_ms(lambda: client.infer(server.model, [requests.rpc]))


def _median_ms(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(_LONE_REQUESTS):
        began_s = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times[_LONE_REQUESTS // 6 :]) * 1e3


# -- the run ---------------------------------------------------------------------------------


def _measure(
    figures: Figures, servers: Sequence[_Server], folder: Path, rounds: int, seconds: float
) -> None:
    model = light("squeezenet")
    threads = os.cpu_count() or 1
    properties = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads}
    array = np.random.default_rng(1).random(model.shape, "f4")
    with triton_http.InferenceServerClient(f"127.0.0.1:{servers[0].http_port}") as client:
        about = client.get_model_metadata(servers[0].model)
    requests = _Requests(folder, array, about["inputs"][0]["name"], "FP32")
    rows = int(native_rate(model.path, [array], 100, properties) * seconds / 2)

    def native() -> float:
        return native_rate(model.path, [array], rows, properties)

    for server in servers:  # the first requests prepare what later ones use
        _wrk(server, requests, 1)
    for _ in range(rounds):
        before = native()
        found: dict[tuple[str, str], float] = {}
        for server in servers:
            for kind, ask in (("HTTP", _wrk), ("gRPC", _h2load)):
                if kind == "gRPC" and (not server.grpc_port or not shutil.which("h2load")):
                    continue
                rate = ask(server, requests, seconds)
                after = native()
                found[server.name, kind] = rate
                share = rate / ((before + after) / 2)
                goal = {"HTTP": 0.65, "gRPC": 0.55}[kind] if server.name == "ours" else None
                figures.add(f"{kind}, 16 clients: {server.name}, of native", share, goal)
                before = after
            figures.add(
                f"HTTP, one client: {server.name}, p50 ms",
                _lone_http_ms(server, requests),
                2.5 if server.name == "ours" else None,
                is_limit=True,
            )
            if server.grpc_port:
                figures.add(
                    f"gRPC, one client: {server.name}, p50 ms",
                    _lone_grpc_ms(server, requests),
                    3.0 if server.name == "ours" else None,
                    is_limit=True,
                )
        for kind, goal in (("HTTP", 1.4), ("gRPC", 1.15)):
            if ("Triton", kind) in found:
                ratio = found["ours", kind] / found["Triton", kind]
                figures.add(f"{kind}, 16 clients: ours ÷ Triton", ratio, goal)


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=1, help="Of load per round and server.")] = 8.0,
    triton: Annotated[
        str, typer.Option(help="A Python that has nvidia-pytriton; without, Triton is left out.")
    ] = "",
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = (
        Path(__file__).parent / "results"
    ),
) -> None:
    """Measure servers beside each other, and write the results."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing; Debian has it as 'wrk', and h2load as 'nghttp2-client'")
    model = light("squeezenet")
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="atriva-") as name, ExitStack() as stack:
        folder = Path(name)
        node = RayNode(folder, os.cpu_count() or 2)
        stack.callback(node.stop)
        ours = _Server("ours", _free_port(), _free_port(), "squeezenet")
        command = [
            str(Path(sys.executable).with_name("atriva")),
            "serve",
            f"squeezenet={model.path}",
        ]
        ports = ["--port", str(ours.http_port), "--grpc-port", str(ours.grpc_port)]
        servers = [stack.enter_context(_running(ours, [*command, *ports], node.env))]
        for peer, python, has_grpc in (
            ("Ray Serve", sys.executable, False),
            ("Triton", triton, True),
        ):
            if not python:
                _out.print(f"{peer} is left out: no Python for it was given")
                continue
            server = _Server(peer, _free_port(), _free_port() if has_grpc else 0, "squeezenet")
            script = _PEERS / f"{peer.lower().replace(' ', '_')}_server.py"
            arguments = [str(model.path), str(server.http_port), str(server.grpc_port)]
            command = [python, str(script), *arguments]
            servers.append(stack.enter_context(_running(server, command, node.env)))
        _measure(figures, servers, folder, rounds, seconds)
    found = list(figures.found.values())
    show(found)
    write(found, output, "serve", "Models on the network", lambda each: "ms" not in each.name)


if __name__ == "__main__":
    typer.run(main)
