"""A model as one step of a Ray Data pipeline."""

from pathlib import Path

import numpy as np
import ray

from atriva_ray import InferenceRuntime

MODELS = Path(__file__).parents[1] / "models"


def main() -> None:
    """Classify a data set lazily, between two steps of Ray Data's own."""
    with np.load(MODELS / "digits_heldout.npz") as data:
        images, labels = data["images"], data["labels"]
    with InferenceRuntime() as runtime:
        # Ray Data needs a processor to read on, so the model does not keep all to itself.
        model = runtime.load_model(MODELS / "digits.onnx", reserve_cpus=False)
        dataset = ray.data.from_items(
            [{"input": image, "label": label} for image, label in zip(images, labels, strict=True)]
        )
        answers = model.predict(dataset, top_k=1).filter(lambda row: row["label"] == 3)
        rows = answers.take_all()
        print(
            f"recognised {np.mean([row['class'] == 3 for row in rows]):.1%} of {len(rows)} threes"
        )


if __name__ == "__main__":
    main()
