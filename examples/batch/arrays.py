"""Rows of a .npy file to .npy files; a .npz works the same, its arrays named as the inputs."""

import tempfile
from pathlib import Path

import numpy as np

from atriva_ray.batch import run

MODELS = Path(__file__).parents[1] / "models"


def main() -> None:
    """Classify the rows of an array and read the scores back."""
    with np.load(MODELS / "digits_heldout.npz") as data, tempfile.TemporaryDirectory() as folder:
        rows, output = Path(folder) / "digits.npy", Path(folder) / "scores"
        np.save(rows, data["images"])
        report = run(MODELS / "digits.onnx", rows, output, format="npy")
        scores = np.concatenate([np.load(part) for part in sorted(output.glob("part-*.npy"))])
        found = scores.argmax(axis=1)
        print(f"recognised {np.mean(found == data['labels']):.1%} of {report.rows_out}")


if __name__ == "__main__":
    main()
