"""A client of the routing benchmark, in a process of its own."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from atriva_ray import InferenceRuntime, Model

_ROW = {"x": np.ones((1, 8), "f4")}


def _keep_busy(model: Model, in_flight: int, seconds: float) -> dict[str, Any]:
    """Have so many requests under way for so long; count the answers."""
    answered = 0
    ends_s = time.monotonic() + seconds
    lock = threading.Lock()
    is_over = threading.Semaphore(0)

    def again(future: Any) -> None:
        nonlocal answered
        future.result()
        if time.monotonic() < ends_s:
            with lock:
                answered += 1
            model.submit(_ROW).add_done_callback(again)
        else:
            is_over.release()

    for _ in range(in_flight):
        model.submit(_ROW).add_done_callback(again)
    for _ in range(in_flight):
        is_over.acquire()
    return {"answered": answered, "seconds": seconds}


def _keep_to_times(model: Model, times_s: list[float], settling_s: float) -> dict[str, Any]:
    """Send each request at its time; return how long those took that came after settling."""
    latencies_s = [0.0] * len(times_s)
    futures = []
    began_s = time.monotonic()

    def note(index: int, _future: Any) -> None:
        latencies_s[index] = time.monotonic() - began_s - times_s[index]

    for index, at_s in enumerate(times_s):
        pause_s = began_s + at_s - time.monotonic()
        if pause_s > 0:
            time.sleep(pause_s)
        future = model.submit(_ROW)
        future.add_prompt_callback(partial(note, index))
        futures.append(future)
    for future in futures:
        future.result()
    counted = [late for at_s, late in zip(times_s, latencies_s, strict=True) if at_s >= settling_s]
    return {"latencies_s": counted}


def main() -> None:
    """Load the model, say so, wait for the word, and do what the argument says."""
    job = json.loads(sys.argv[1])
    do: Callable[..., dict[str, Any]] = _keep_busy if "in_flight" in job else _keep_to_times
    with InferenceRuntime("paced") as runtime:
        device = os.environ["PACED_DEVICE"]
        model = runtime.load_model(os.environ["PACED_MODEL"], device, name="paced")
        print("ready", flush=True)
        sys.stdin.readline()
        print(json.dumps(do(model, **job)), flush=True)


if __name__ == "__main__":
    main()
