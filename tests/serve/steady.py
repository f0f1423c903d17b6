"""Clients that ask all the time, never twice, and note what became of each request."""

from __future__ import annotations

import http.client
import os
import threading
from collections import Counter
from contextlib import suppress

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.cluster.tools import wait_until
from tests.serve.serving_tools import HOST, Server, ask_over, plus_request

REQUESTS = int(os.environ.get("ATRIVA_SERVE_REQUESTS", "1500"))

_HTTP_CLIENTS = 4
_GRPC_CLIENTS = 2
_REQUESTS_PER_CONNECTION = 25
_PAUSE_S = 0.005
_LATER_PAUSE_S = 0.05
_TIMEOUT_S = 30
_CHANNEL = [
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
]


class Steady:
    """Asks a model that adds its version, as long as the block lasts.

    Attributes:
        answers: how many requests each version has answered.
        wrong: answers that are not those of the version which they name.
        failures: how many requests failed with what.
    """

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._model = model
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=work, args=(number,))
            for number, work in enumerate(
                [self._ask_http] * _HTTP_CLIENTS + [self._ask_grpc] * _GRPC_CLIENTS
            )
        ]
        self.answers: Counter[str] = Counter()
        self.wrong: list[object] = []
        self.failures: Counter[str] = Counter()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def count(self) -> int:
        with self._lock:
            return self.answers.total() + self.failures.total()

    def go_on(self, count: int) -> None:
        """Return when that many more requests are done."""
        wanted = self.count + count
        wait_until(lambda: self.count >= wanted, what=self.said, every_s=0.01)

    def fill_up(self) -> None:
        """Return when as many requests are done as a test is to have."""
        wait_until(lambda: self.count >= REQUESTS, timeout_s=160, what=self.said)

    def said(self) -> str:
        with self._lock:
            return f"answers {dict(self.answers)}, failures {dict(self.failures)}"

    def _ask_http(self, number: int) -> None:
        path = f"/v2/models/{self._model}/infer"
        connection = None
        for asked in self._turns():
            if connection is None or asked % _REQUESTS_PER_CONNECTION == 0:
                if connection is not None:
                    connection.close()
                connection = http.client.HTTPConnection(HOST, self._server.http_port, _TIMEOUT_S)
            value = 1000 * number + asked
            try:
                status, answer = ask_over(connection, "POST", path, plus_request([[value, -value]]))
            except (OSError, http.client.HTTPException) as error:
                self._failed(f"connection: {type(error).__name__}")
                connection.close()
                connection = None
                continue
            if status == 200:
                data = answer["outputs"][0]["data"]
                self._answered(answer["model_version"], value, data)
            else:
                self._failed(f"HTTP {status}: {answer}")
        if connection is not None:
            connection.close()

    def _ask_grpc(self, number: int) -> None:
        client = triton.InferenceServerClient(self._server.grpc_address, channel_args=_CHANNEL)
        for asked in self._turns():
            value = 1000 * number + asked
            tensor = triton.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.array([[value, -value]], np.float32))
            try:
                result = client.infer(self._model, [tensor], client_timeout=_TIMEOUT_S)
            except InferenceServerException as error:
                self._failed(f"{error.status()}: {error.message()[:80]}")
            else:
                version = result.get_response().model_version
                self._answered(version, value, result.as_numpy("y").ravel().tolist())
        with suppress(InferenceServerException):
            client.close()

    def _turns(self):
        asked = 0
        # Once there are enough, what happens meanwhile is to have the processors.
        while not self._stop.wait(_PAUSE_S if self.count < REQUESTS else _LATER_PAUSE_S):
            asked += 1
            yield asked

    def _answered(self, version: str, value: float, data: list[float]) -> None:
        with self._lock:
            self.answers[version] += 1
            if data != [value + int(version), -value + int(version)]:
                self.wrong.append((version, value, data))

    def _failed(self, reason: str) -> None:
        with self._lock:
            self.failures[reason] += 1
