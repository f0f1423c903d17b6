"""Asks a server for a digit, with Triton's own client: pip install 'tritonclient[http]'.

Start one first: atriva serve examples/models/digits.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

DIGITS = Path(__file__).parent.parent / "models" / "digits_heldout.npz"

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:8000"
with np.load(DIGITS) as data:
    images, labels = data["images"][:8].astype(np.float32), data["labels"][:8]

with triton.InferenceServerClient(address, concurrency=4) as client:
    print(client.get_model_metadata("digits"))
    tensor = triton.InferInput("input", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    scores = client.infer("digits", [tensor]).as_numpy("output")
    print("recognised:", scores.argmax(1), "truth:", labels)
