"""A model behind Triton, by PyTriton's bundled server.

``python triton_server.py MODEL HTTP_PORT GRPC_PORT``, with a Python of its own that has
nvidia-pytriton, openvino and numpy, and nothing of this project.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
import openvino as ov
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


def main(path: str, http_port: int, grpc_port: int) -> None:
    """Serve until it is stopped."""
    threads = os.cpu_count() or 1
    core = ov.Core()
    model = core.read_model(path)
    compiled = core.compile_model(
        model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads}
    )
    count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))

    def make_instance() -> Any:
        request = compiled.create_infer_request()

        def infer(requests: list[Any]) -> list[dict[str, Any]]:
            answers = []
            for each in requests:
                (array,) = each.data.values()
                request.infer({0: array})
                answers.append({"output": request.get_output_tensor(0).data.copy()})
            return answers

        return infer

    (source,) = [each for each in model.inputs if len(each.partial_shape) > 1]
    with Triton(config=TritonConfig(http_port=http_port, grpc_port=grpc_port)) as triton:
        triton.bind(
            model_name="squeezenet",
            infer_func=[make_instance() for _ in range(count)],
            inputs=[Tensor(name=source.any_name, dtype=np.float32, shape=tuple(source.shape))],
            outputs=[Tensor(name="output", dtype=np.float32, shape=tuple(model.outputs[0].shape))],
            config=ModelConfig(batching=False),
        )
        triton.serve()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
