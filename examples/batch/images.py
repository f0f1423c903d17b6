"""A folder of pictures to Parquet: uint8 pixels travel, and the model itself scales them.

The same from the command line:
atriva batch examples/models/digits.onnx FOLDER OUTPUT --color gray --scale 15 --top-k 3
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from atriva_ray import Preprocessing
from atriva_ray.batch import run

MODELS = Path(__file__).parents[1] / "models"


def main() -> None:
    """Write the held-out digits as PNG files, classify the folder, read the answers back."""
    with np.load(MODELS / "digits_heldout.npz") as data, tempfile.TemporaryDirectory() as folder:
        pictures, output = Path(folder) / "pictures", Path(folder) / "answers"
        pictures.mkdir()
        for index, image in enumerate(data["images"]):
            Image.fromarray(image[0] * 15).save(pictures / f"{index:03d}.png")  # 0..16 to 0..240
        report = run(
            MODELS / "digits.onnx",
            pictures,
            output,
            preprocessing=Preprocessing(color="gray", scale=(15,)),
            top_k=3,
        )
        answers = pq.read_table(output).to_pandas()
        print(answers.head())
        print(f"recognised {np.mean(answers['class'] == data['labels']):.1%} of {report.rows_out}")


if __name__ == "__main__":
    main()
