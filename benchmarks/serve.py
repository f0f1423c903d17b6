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
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import openvino as ov
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import typer
from rich.console import Console

from benchmarks.batch import native_rate
from benchmarks.figures import Figures, show, write
from benchmarks.models import SuiteModel, light, of_pixels
from benchmarks.ray_node import RayNode

__all__ = ["main"]

_ROOT = Path(__file__).parent.parent
_PEERS = Path(__file__).parent / "peers"
_READY_TIMEOUT_S = 120.0
_MODEL = "squeezenet"
_PICTURES = "pictures"
_CLIENTS = 16
_LONE_REQUESTS = 200
_NATIVE_S = 4.0
_WINDOW_BITS = 22

_out = Console()


class _Server:
    """One server that answers the protocol on two ports."""

    def __init__(self, name: str, http_port: int, grpc_port: int) -> None:
        self.name = name
        self.http_port = http_port
        self.grpc_port = grpc_port
        self.url = f"http://127.0.0.1:{http_port}"

    def await_ready(self, process: subprocess.Popen[bytes]) -> None:
        url = f"{self.url}/v2/models/{_MODEL}/ready"
        deadline_s = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(url, timeout=5):  # noqa: S310
                    return
            except OSError:
                time.sleep(0.2)
        raise SystemExit(f"{self.name} did not start; see the lines above")

    def input_name(self, model: str) -> str:
        """Return the name of a model's input."""
        with triton_http.InferenceServerClient(f"127.0.0.1:{self.http_port}") as client:
            name: str = client.get_model_metadata(model)["inputs"][0]["name"]
            return name


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

    def __init__(self, folder: Path, model: SuiteModel, input_name: str, datatype: str) -> None:
        array = (np.random.default_rng(1).random(model.shape) * 255).astype(model.dtype)
        self.array = array
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


def _wrk(server: _Server, requests: _Requests, seconds: float, model: str = _MODEL) -> float:
    """Requests per second over HTTP."""
    url = f"{server.url}/v2/models/{model}/infer"
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
        *(f"-w{_WINDOW_BITS}", f"-W{_WINDOW_BITS}", f"--data={requests.frame(_MODEL)}"),
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
        return _median_ms(lambda: client.infer(_MODEL, [requests.http]))


def _lone_grpc_ms(server: _Server, requests: _Requests) -> float:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        return _median_ms(lambda: client.infer(_MODEL, [requests.rpc]))


def _median_ms(ask: Callable[[], object]) -> float:
    times = []
    for _ in range(_LONE_REQUESTS):
        began_s = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times[_LONE_REQUESTS // 6 :]) * 1e3


# -- the run ---------------------------------------------------------------------------------


class _Load:
    """A model and the requests for it."""

    def __init__(self, model: SuiteModel, requests: _Requests) -> None:
        self._model = model
        self.requests = requests
        self._rows = 100  # to find out how many take as long as is wanted
        self._rows = int(self.native_rate() * _NATIVE_S)

    def native_rate(self) -> float:
        """Requests per second in one process that has nothing else to do."""
        threads = {"INFERENCE_NUM_THREADS": os.cpu_count() or 1}
        properties = {"PERFORMANCE_HINT": "THROUGHPUT", **threads}
        return native_rate(self._model.path, [self.requests.array], self._rows, properties)

    def native_ms(self) -> float:
        """Median time of one request at a time in one process that has nothing else to do."""
        threads = {"INFERENCE_NUM_THREADS": os.cpu_count() or 1}
        compiled = ov.Core().compile_model(
            self._model.path, "CPU", {"PERFORMANCE_HINT": "LATENCY", **threads}
        )
        request = compiled.create_infer_request()
        return _median_ms(lambda: request.infer({0: self.requests.array}))

    def share(self, ask: Callable[[], float]) -> tuple[float, float]:
        """Return a rate, and what part it is of the rates in one process before and after."""
        before = self.native_rate()
        rate = ask()
        return rate, rate / ((before + self.native_rate()) / 2)


def _many_clients(
    figures: Figures, servers: Sequence[_Server], load: _Load, seconds: float
) -> None:
    found: dict[tuple[str, str], float] = {}
    for server in servers:
        for protocol, ask, goal in (("HTTP", _wrk, 0.65), ("gRPC", _h2load, 0.55)):
            if protocol == "gRPC" and not server.grpc_port:
                continue
            rate, share = load.share(partial(ask, server, load.requests, seconds))
            found[server.name, protocol] = rate
            name = f"{protocol}, {_CLIENTS} clients: {server.name}, of one process"
            figures.add(name, share, goal if server.name == "ours" else None)
    for protocol, goal in (("HTTP", 1.4), ("gRPC", 1.15)):
        if ("Triton", protocol) in found:
            ratio = found["ours", protocol] / found["Triton", protocol]
            figures.add(f"{protocol}, {_CLIENTS} clients: ours ÷ Triton", ratio, goal)


def _one_client(figures: Figures, servers: Sequence[_Server], load: _Load) -> None:
    found: dict[tuple[str, str], float] = {}
    native_ms = load.native_ms()
    figures.add("one process, no network: p50 ms", native_ms)
    for server in servers:
        for protocol, ask, goal_ms in (("HTTP", _lone_http_ms, 2.5), ("gRPC", _lone_grpc_ms, 3.0)):
            if protocol == "gRPC" and not server.grpc_port:
                continue
            median_ms = ask(server, load.requests)
            found[server.name, protocol] = median_ms
            name = f"{protocol}, one client: {server.name}, p50 ms"
            figures.add(name, median_ms, goal_ms if server.name == "ours" else None, is_limit=True)
    if ("Triton", "HTTP") in found:
        ratio = found["ours", "HTTP"] / found["Triton", "HTTP"]
        figures.add("HTTP, one client: ours ÷ Triton", ratio, 0.5, is_limit=True)


def _measure(
    figures: Figures,
    servers: Sequence[_Server],
    load: _Load,
    pictures: _Load,
    rounds: int,
    seconds: float,
) -> None:
    ours = servers[0]
    for server in servers:  # the first requests prepare what later ones use
        _wrk(server, load.requests, 1)
    for _ in range(rounds):
        _many_clients(figures, servers, load, seconds)
        _one_client(figures, servers, load)
        _, share = pictures.share(partial(_wrk, ours, pictures.requests, seconds, _PICTURES))
        figures.add(f"HTTP, {_CLIENTS} clients, pictures: ours, of one process", share, 0.8)


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
    for program, package in (("wrk", "wrk"), ("h2load", "nghttp2-client")):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing; Debian has it in the package {package}")
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="atriva-") as name, ExitStack() as stack:
        folder = Path(name)
        model, pixels = light(_MODEL), of_pixels(_MODEL, folder)
        node = RayNode(folder, os.cpu_count() or 2)
        stack.callback(node.stop)
        ours = _Server("ours", _free_port(), _free_port())
        command = [
            *(str(Path(sys.executable).with_name("atriva")), "serve"),
            f"{_MODEL}={model.path}",
            f"{_PICTURES}={pixels.path}",
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
            server = _Server(peer, _free_port(), _free_port() if has_grpc else 0)
            script = _PEERS / f"{peer.lower().replace(' ', '_')}_server.py"
            arguments = [str(model.path), str(server.http_port), str(server.grpc_port)]
            command = [python, str(script), *arguments]
            servers.append(stack.enter_context(_running(server, command, node.env)))
        load = _Load(model, _Requests(folder, model, ours.input_name(_MODEL), "FP32"))
        pictures = _Load(pixels, _Requests(folder, pixels, ours.input_name(_PICTURES), "UINT8"))
        _measure(figures, servers, load, pictures, rounds, seconds)
    found = list(figures.found.values())
    show(found)
    write(found, output, "serve", "Models on the network", lambda each: "ms" not in each.name)


if __name__ == "__main__":
    typer.run(main)
