"""Every second frame of a video to Parquet."""

import tempfile
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq

from atriva_ray import Preprocessing
from atriva_ray.batch import run

MODELS = Path(__file__).parents[1] / "models"


def main() -> None:
    """Make a video that shows each held-out digit twice, and classify every second frame."""
    with np.load(MODELS / "digits_heldout.npz") as data, tempfile.TemporaryDirectory() as folder:
        video, output = Path(folder) / "digits.mkv", Path(folder) / "answers"
        write_video(video, data["images"])
        run(
            MODELS / "digits.onnx",
            video,
            output,
            every=2,
            preprocessing=Preprocessing(color="gray", scale=(15,)),
            top_k=1,
        )
        answers = pq.read_table(output).to_pandas()
        print(answers.head())
        print(f"recognised {np.mean(answers['class'] == data['labels']):.1%} of {len(answers)}")


def write_video(path: Path, images: np.ndarray) -> None:
    """Show every image for two frames, sixteen times as large."""
    with av.open(path, "w") as container:
        stream = container.add_stream("ffv1", rate=25)  # keeps every pixel as it is
        stream.width = stream.height = 128
        stream.pix_fmt = "gray"
        for image in images:
            large = np.kron(image[0] * 15, np.ones((16, 16), np.uint8))
            for _ in range(2):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="gray")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
