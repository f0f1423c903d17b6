"""One program of the suite: loads its peer, then measures when it is told to.

It reads one JSON object per line and answers each with one; it ends with its input, so also when
the suite is killed. What it or its libraries print goes to its log.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from functools import cache
from typing import Any

import numpy as np

from atriva_inference.tensor import Array
from benchmarks.job import Job
from benchmarks.peers.peer import Peer

_PEERS = {
    "bare": "Bare",
    "benchmark_app": "BenchmarkApp",
    "in_process": "InProcess",
    "ray_actor": "RayActor",
    "ray_serve": "RayServe",
    "cluster": "Cluster",
}
_MANY_ARRAYS = 8
_FEW_ARRAYS = 2
_LARGE_BYTES = 10_000_000


class Program:
    """Answers the suite's questions about one peer."""

    def __init__(self, job: Job) -> None:
        self._job = job
        module = importlib.import_module(f"benchmarks.peers.{job.peer}")
        self._peer: Peer = getattr(module, _PEERS[job.peer])(job)

    def about(self) -> dict[str, Any]:
        """Return how the model was compiled, and whether this process has Ray in it."""
        return {
            "settings": self._peer.settings(),
            "pids": self._peer.pids(),
            "has_ray": "ray" in sys.modules,
            "lanes": os.environ.get("ATRIVA_LANES", ""),
        }

    def flow(self, start_s: float, seconds: float) -> dict[str, Any]:
        """Measure throughput."""
        arrays = _arrays(self._job.shape, self._job.dtype)
        count, duration_s = self._peer.measure_flow(arrays, start_s, seconds)
        return {"count": count, "duration_s": duration_s}

    def trips(self, shape: list[int] | None, seconds: float) -> dict[str, Any]:
        """Measure round trips, with an input of another shape if one is given."""
        arrays = _arrays(tuple(shape or self._job.shape), self._job.dtype)
        return {"trips_s": self._peer.measure_trips(arrays, seconds)}

    def close(self) -> dict[str, Any]:
        """End what the peer started."""
        self._peer.close()
        return {}


@cache
def _arrays(shape: tuple[int, ...], dtype: str) -> list[Array]:
    """Return inputs to use in turn: several, so that the caches do not hold the only one."""
    generator = np.random.default_rng(0)
    arrays: list[Array] = []
    is_large = int(np.prod(shape)) * np.dtype(dtype).itemsize >= _LARGE_BYTES
    for _ in range(_FEW_ARRAYS if is_large else _MANY_ARRAYS):
        if np.dtype(dtype).kind == "f":
            arrays.append(generator.random(shape, np.float32).astype(dtype, copy=False))
        else:
            arrays.append(generator.integers(0, 255, shape, dtype))
    return arrays


def main() -> None:
    """Serve the suite until the end of input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not get between the answers
    program = None
    for line in sys.stdin:
        question = json.loads(line)
        try:
            if question["do"] == "open":
                program = Program(Job.from_json(sys.argv[1]))
                value = program.about()
            else:
                value = getattr(program, question["do"])(**question.get("with", {}))
            answer = {"value": value}
        except Exception as error:  # noqa: BLE001 - the suite says what happened
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
