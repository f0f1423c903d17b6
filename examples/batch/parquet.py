"""A column of a Parquet file to Parquet, with another column kept beside the answers."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from atriva_ray.batch import run

MODELS = Path(__file__).parents[1] / "models"


def main() -> None:
    """Classify a tensor column and compare with the label that travelled along."""
    with np.load(MODELS / "digits_heldout.npz") as data, tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "digits.parquet", Path(folder) / "answers"
        pixels = pa.FixedShapeTensorArray.from_numpy_ndarray(data["images"])
        pq.write_table(pa.table({"pixels": pixels, "label": data["labels"]}), source)
        run(
            MODELS / "digits.onnx",
            source,
            output,
            columns={"input": "pixels"},
            keep=["label"],
            top_k=1,
        )
        answers = pq.read_table(output).to_pandas()
        print(answers.head())
        print(f"recognised {np.mean(answers['class'] == answers['label']):.1%}")


if __name__ == "__main__":
    main()
