"""A server behind Ray Serve's own proxies, which `http_port: null` asks for."""

from __future__ import annotations

import http.client

import numpy as np
import pytest
import tritonclient.http as triton

from atriva_inference import OptionError
from atriva_ray.serve import app
from atriva_ray.serve.tokens import new_token
from tests.cluster.tools import Cluster, Driver, wait_until
from tests.serve.serving_tools import HOST, Repository, ask_over, free_ports, plus_request

BIG_ROWS = 75_000
"""Of two numbers of four bytes: 600 kB."""


class Proxied:
    """The port of the proxies, and a token that the server behind them knows."""

    def __init__(self, port: int, token: str) -> None:
        self.address = f"{HOST}:{port}"
        self.token = token

    def ask(self, method: str, path: str, body=None, token: str | None = None):
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            return ask_over(connection, method, path, body, self.token if token is None else token)
        finally:
            connection.close()


@pytest.fixture(scope="module")
def proxied(short_tmp):
    """A server on a cluster of its own, for the proxies of a cluster have one port."""
    folder = short_tmp / "proxied"
    models = Repository(folder / "repository")
    models.add_plus("step", 1)
    token, line = new_token("alice")
    (folder / "tokens").write_text(f"{line}\n")
    port, grpc_port = free_ports()
    settings = {
        "repository": str(models.folder),
        "tokens": str(folder / "tokens"),
        "http_port": None,
        "grpc_port": grpc_port,
    }
    cluster = Cluster(folder, {"ATRIVA_MODEL_STORE": str(folder / "store")})
    try:
        driver = Driver({"RAY_ADDRESS": cluster.address}, folder)
        driver.do(f"""
            import ray
            from ray import serve
            from atriva_ray.serve import app
            ray.init(configure_logging=False)
            serve.start(http_options={{"host": {HOST!r}, "port": {port}}})
            serve.run(app({settings!r}), route_prefix="/")
        """)
        served = Proxied(port, token)
        wait_until(lambda: served.ask("GET", "/v2/health/ready")[0] == 200)  # models are loaded
        yield served
        driver.do("serve.shutdown()")
        driver.close()
    finally:
        cluster.stop()


def test_it_is_not_built_without_tokens():
    settings = {"models": ["model.onnx"], "http_port": None}
    with pytest.raises(OptionError, match="http_port='null'"):
        app(settings)
    assert app(settings | {"insecure": True}) is not None


def test_health_and_what_there_is(proxied):
    assert proxied.ask("GET", "/v2/health/live", token="")[0] == 200
    assert proxied.ask("GET", "/v2/health/ready", token="")[0] == 200
    status, about = proxied.ask("GET", "/v2/models/step")
    assert status == 200
    assert about["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]


def test_numbers_as_json(proxied):
    status, answer = proxied.ask("POST", "/v2/models/step/infer", plus_request([[1, 2], [3, 4]]))
    assert status == 200
    assert answer["outputs"][0]["data"] == [2, 3, 4, 5]


@pytest.mark.parametrize("rows", [1, BIG_ROWS])
def test_binary_tensors(proxied, rows):
    sent = np.random.default_rng(rows).random((rows, 2), np.float32)
    tensor = triton.InferInput("x", list(sent.shape), "FP32")
    tensor.set_data_from_numpy(sent)
    headers = {"authorization": f"Bearer {proxied.token}"}
    with triton.InferenceServerClient(proxied.address) as client:
        for packed in (None, "gzip"):
            answer = client.infer(
                "step", [tensor], headers=headers, request_compression_algorithm=packed
            )
            np.testing.assert_array_equal(answer.as_numpy("y"), sent + 1)


def test_errors_are_those_of_the_protocol(proxied):
    status, answer = proxied.ask("GET", "/v2/models/nothing")
    assert status == 404
    assert "nothing" in answer["error"]
    status, answer = proxied.ask("POST", "/v2/models/step/infer", b"no JSON")
    assert status == 400
    assert list(answer) == ["error"]


def test_a_token_is_wanted_there_too(proxied):
    for token in ("", proxied.token[:-1]):
        status, answer = proxied.ask("GET", "/v2/models/step", token=token)
        assert status == 401
        assert "token" in answer["error"]
