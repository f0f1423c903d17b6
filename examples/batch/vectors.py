"""Small vectors from CSV, and from JSON lines, to JSON lines.

The digits model takes 1×8×8, so 64 numeric columns (or a list of 64) make a row.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from atriva_ray.batch import run

MODELS = Path(__file__).parents[1] / "models"


def main() -> None:
    """Classify the same rows from both formats."""
    with np.load(MODELS / "digits_heldout.npz") as data, tempfile.TemporaryDirectory() as folder:
        rows, labels = data["images"].reshape(-1, 64), data["labels"]
        table = Path(folder) / "digits.csv"
        header = ",".join(f"pixel_{index}" for index in range(64))
        np.savetxt(table, rows, fmt="%d", delimiter=",", header=header, comments="")
        lines = Path(folder) / "digits.jsonl"
        lines.write_text("".join(json.dumps({"input": row.tolist()}) + "\n" for row in rows))
        for source in (table, lines):
            output = Path(folder) / f"answers-{source.suffix[1:]}"
            run(MODELS / "digits.onnx", source, output, format="jsonl", top_k=1)
            parts = sorted(output.glob("part-*.jsonl"))
            answers = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
            found = np.array([answer["class"] for answer in answers])
            print(f"{source.name}: recognised {np.mean(found == labels):.1%} of {len(answers)}")


if __name__ == "__main__":
    main()
