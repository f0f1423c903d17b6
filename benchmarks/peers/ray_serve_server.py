"""A model behind Ray Serve as its documentation would have it: FastAPI, the default proxy.

``python ray_serve_server.py MODEL HTTP_PORT 0`` answers binary requests of the Open Inference
Protocol with one tensor in and one out.
"""
# Annotations are not postponed: FastAPI could not look them up in what Ray sends to its workers.

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

import numpy as np
import openvino as ov
import ray
from fastapi import FastAPI, Request, Response
from ray import serve

app = FastAPI()


@serve.deployment(max_ongoing_requests=64)
@serve.ingress(app)
class Model:
    """Runs as many requests at once as OpenVINO advises."""

    def __init__(self, path: str) -> None:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        threads = os.cpu_count() or 1
        core = ov.Core()
        compiled = core.compile_model(
            core.read_model(path),
            "CPU",
            {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads},
        )
        count = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._idle: list[ov.InferRequest] = [compiled.create_infer_request() for _ in range(count)]
        self._free = asyncio.Semaphore(count)

    @app.get("/v2/models/{name}/ready")
    async def ready(self, name: str) -> Response:  # noqa: ARG002 - there is one
        """Say that it is."""
        return Response()

    @app.get("/v2/models/{name}")
    async def metadata(self, name: str) -> dict[str, Any]:
        """Return the least that clients ask for."""
        return {"name": name, "inputs": [], "outputs": []}

    @app.post("/v2/models/{name}/infer")
    async def infer(self, name: str, request: Request) -> Response:
        """Run one request."""
        body = await request.body()
        size = int(request.headers["Inference-Header-Content-Length"])
        (tensor,) = json.loads(body[:size])["inputs"]
        array = np.frombuffer(body, np.float32, offset=size).reshape(tensor["shape"])
        async with self._free:
            runner = self._idle.pop()
            try:
                await asyncio.to_thread(runner.infer, {0: array})
                output = runner.get_output_tensor(0).data.copy()
            finally:
                self._idle.append(runner)
        described = {
            "name": "output",
            "datatype": "FP32",
            "shape": output.shape,
            "parameters": {"binary_data_size": output.nbytes},
        }
        head = json.dumps({"model_name": name, "outputs": [described]}).encode()
        return Response(
            head + output.tobytes(),
            media_type="application/octet-stream",
            headers={"Inference-Header-Content-Length": str(len(head))},
        )


if __name__ == "__main__":
    # A cluster of its own: Ray Serve has one set of proxies per cluster.
    ray.init("local", configure_logging=False, log_to_driver=False, include_dashboard=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Model.bind(sys.argv[1]), name="plain", route_prefix="/")
    try:
        signal.pause()
    except KeyboardInterrupt:
        serve.delete("plain")
