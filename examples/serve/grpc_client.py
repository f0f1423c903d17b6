"""Asks a server for digits over gRPC, several requests at once: pip install 'tritonclient[grpc]'.

Start one first: atriva serve examples/models/digits.onnx
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc.aio import InferenceServerClient

DIGITS = Path(__file__).parent.parent / "models" / "digits_heldout.npz"


async def recognise(client: InferenceServerClient, image: np.ndarray) -> int:
    """Return the digit that a picture shows."""
    tensor = triton.InferInput("input", [1, *image.shape], "FP32")
    tensor.set_data_from_numpy(image[np.newaxis])
    answer = await client.infer("digits", [tensor], client_timeout=10)
    return int(answer.as_numpy("output").argmax())


async def main(address: str) -> None:
    """Ask for all of them at once."""
    with np.load(DIGITS) as data:
        images, labels = data["images"][:32].astype(np.float32), data["labels"][:32]
    async with InferenceServerClient(address) as client:
        found = await asyncio.gather(*(recognise(client, image) for image in images))
    print(f"recognised {sum(np.equal(found, labels))} of {len(labels)}")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "localhost:8001"))
