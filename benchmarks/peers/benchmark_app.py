"""OpenVINO's ``benchmark_app``, started anew for every turn, its own figure taken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from atriva_inference.tensor import Array
from benchmarks.job import Job
from benchmarks.peers.peer import Peer

__all__ = ["BenchmarkApp", "parse_throughput"]

_START_LIMIT_S = 60
_THROUGHPUT = re.compile(r"Throughput:\s*([\d.]+)\s*FPS")


def parse_throughput(text: str) -> float:
    """Return the requests per second that the program printed.

    Raises:
        ValueError: it printed none.
    """
    match = _THROUGHPUT.search(text)
    if match is None:
        raise ValueError(f"benchmark_app printed no throughput:\n{text[-2000:]}")
    return float(match[1])


class BenchmarkApp(Peer):
    """Takes whole seconds only, and loads the model outside of the time it measures.

    Inputs of a fixed shape are filled in once, before it measures: unlike the others it does not
    pay for getting each request's input to the model.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._folder = tempfile.TemporaryDirectory(prefix="ab-")
        config = Path(self._folder.name) / "config.json"
        config.write_text(json.dumps({"CPU": {"INFERENCE_NUM_THREADS": str(job.threads)}}))
        shape = ",".join(map(str, job.shape))
        self._command = [
            str(Path(sys.executable).with_name("benchmark_app")),
            *("-m", job.model, "-d", "CPU", "-hint", job.hint.lower(), "-api", "async"),
            *("-data_shape", f"[{shape}]", "-load_config", str(config)),
        ]

    def measure_flow(
        self, _arrays: Sequence[Array], start_s: float, seconds: float
    ) -> tuple[int, float]:
        time.sleep(max(0.0, start_s - time.perf_counter()))
        whole_s = max(1, round(seconds))
        shown = subprocess.run(
            [*self._command, "-t", str(whole_s)],
            capture_output=True,
            text=True,
            timeout=_START_LIMIT_S + whole_s,
            check=False,
        )
        rate = parse_throughput(shown.stdout + shown.stderr)
        return round(rate * whole_s), whole_s

    def flow(self, arrays: Sequence[Array], until_s: float, finished: list[float]) -> None:
        raise NotImplementedError

    def trip(self, array: Array) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._folder.cleanup()
