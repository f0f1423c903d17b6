"""Classify handwritten digits on a Ray cluster, as asynchronous requests.

Run it as it is for a cluster inside this program, or with RAY_ADDRESS set for one that is there.
For one process without Ray, import InferenceRuntime from atriva_inference and leave out replicas.
"""

from pathlib import Path

import numpy as np

from atriva_ray import InferenceRuntime

MODELS = Path(__file__).parent / "models"


def main() -> None:
    """Print the share of the held-out digits that were recognised, and who did the work."""
    with np.load(MODELS / "digits_heldout.npz") as data:
        images, labels = data["images"], data["labels"]
    with InferenceRuntime() as runtime:
        model = runtime.load_model(MODELS / "digits.onnx", device="AUTO", replicas=2)
        with model.create_stream() as stream:
            answers = stream.map({"input": image[np.newaxis]} for image in images)
            found = [answer["output"].to_numpy().argmax() for answer in answers]
        print(f"recognised {np.mean(found == labels):.1%} of {len(labels)} digits")
        for use in model.replicas:
            print(f"{use.route.label}: {use.answered} requests")


if __name__ == "__main__":
    main()
