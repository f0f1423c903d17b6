"""Classify the held-out handwritten digits on a cluster and check every answer.

The model and the images come with the package: a small convolutional network and the 360 images
of scikit-learn's ``load_digits`` that it was not trained on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

import atriva_inference
from atriva_inference.tensor import Array
from atriva_ray.runtime import InferenceRuntime

__all__ = ["DemoReport", "example_file", "run_demo"]

MIN_ACCURACY = 0.97
MIN_REPLICAS = 2

_TOLERANCE = 1e-3
"""Both sides run the same kernels; threads and streams may differ, and so may roundings."""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demonstration measured.

    Attributes:
        accuracy: share of the images whose label was found.
        images: how many images were classified.
        answers: requests that each replica answered, by replica id.
        devices: ``node/device`` of each replica, by replica id.
        elapsed_s: first request sent to last answer received.
        latencies_s: start to answer, of each request, with all requests queued at once.
        largest_difference: between an answer and the same answer in one process.
    """

    accuracy: float
    images: int
    answers: Mapping[str, int]
    devices: Mapping[str, str]
    elapsed_s: float
    latencies_s: Array
    largest_difference: float

    @property
    def throughput(self) -> float:
        """Images per second."""
        return self.images / self.elapsed_s

    def latency_s(self, percentile: float) -> float:
        """Return a percentile of the latencies in seconds."""
        return float(np.percentile(self.latencies_s, percentile))

    @property
    def failures(self) -> list[str]:
        """Say what is not as it should be; nothing if all is well."""
        working = sum(1 for count in self.answers.values() if count > 0)
        found = []
        if self.accuracy < MIN_ACCURACY:
            found.append(f"accuracy {self.accuracy:.3f} is below {MIN_ACCURACY}")
        if working < MIN_REPLICAS:
            found.append(f"{working} replica(s) answered, not {MIN_REPLICAS}")
        if sum(self.answers.values()) != self.images:
            found.append(f"{sum(self.answers.values())} answers for {self.images} images")
        if not self.largest_difference <= _TOLERANCE:
            found.append(
                f"an answer differs from the in-process one by {self.largest_difference:.2g}"
            )
        return found


def example_file(name: str) -> Path:
    """Return a file of the examples, from the installed package or from a checkout.

    Raises:
        FileNotFoundError: neither has it.
    """
    packaged = Path(str(resources.files("atriva_ray"))) / "demo" / "data" / name
    checkout = Path(__file__).parents[2] / "examples" / "models" / name
    for path in (packaged, checkout):
        if path.is_file():
            return path
    raise FileNotFoundError(f"the installation lacks {name}; install atriva-ray again")


def run_demo(
    replicas: int = MIN_REPLICAS,
    in_flight: int = 16,
    on_stage: Callable[[str], None] = lambda _stage: None,
    on_answer: Callable[[], None] = lambda: None,
) -> DemoReport:
    """Run the demonstration.

    Args:
        replicas: replicas to load the model on.
        in_flight: asynchronous requests under way at once.
        on_stage: told in words what happens next.
        on_answer: called after every answer.

    Raises:
        InferenceRuntimeError: the model could not be loaded or run.
    """
    path = example_file("digits.onnx")
    with np.load(example_file("digits_heldout.npz")) as data:
        images, labels = data["images"], data["labels"]
    on_stage("starting Ray")
    with InferenceRuntime(address="local") as runtime:
        on_stage(f"loading {path.name} with AUTO on {replicas} replicas")
        model = runtime.load_model(path, device="AUTO", replicas=replicas)
        requests = [model.create_async_request() for _ in range(in_flight)]
        started_s: dict[int, float] = {}
        latencies_s = np.zeros(len(images))
        answers = np.zeros((len(images), 10), np.float32)

        def collect(index: int) -> None:
            answers[index] = requests[index % in_flight].wait()["output"].to_numpy()[0]
            latencies_s[index] = time.perf_counter() - started_s[index]
            on_answer()

        on_stage(f"classifying {len(images)} images")
        begin_s = time.perf_counter()
        for index in range(len(images)):
            if index >= in_flight:
                collect(index - in_flight)
            tensor = runtime.tensor_from_numpy(images[index : index + 1])
            started_s[index] = time.perf_counter()
            requests[index % in_flight].start({"input": tensor})
        for index in range(max(0, len(images) - in_flight), len(images)):
            collect(index)
        elapsed_s = time.perf_counter() - begin_s
        uses = model.replicas
    on_stage("comparing with the answers of one process")
    with atriva_inference.InferenceRuntime() as local, local.load_model(path) as reference:
        expected = np.stack(
            [
                reference.run({"input": image[np.newaxis]})["output"].to_numpy()[0]
                for image in images
            ]
        )
    return DemoReport(
        accuracy=float((answers.argmax(axis=1) == labels).mean()),
        images=len(images),
        answers={use.route.replica_id: use.answered for use in uses},
        devices={use.route.replica_id: use.route.label for use in uses},
        elapsed_s=elapsed_s,
        latencies_s=latencies_s,
        largest_difference=float(np.abs(answers - expected).max()),
    )
