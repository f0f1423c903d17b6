"""Clients that ask all the time, never twice, and note what became of each request.

`ATRIVA_SERVE_REQUESTS=10000` has them ask that often in each test.
"""

from __future__ import annotations

import http.client
import os
import threading
from collections import Counter
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.cluster.tools import wait_until
from tests.serve.serving_tools import HOST, Server, ask_over, plus_request

REQUESTS = int(os.environ.get("ATRIVA_SERVE_REQUESTS", "1500"))

HTTP_CLIENTS = 5
GRPC_CLIENTS = 3

_REQUESTS_PER_CONNECTION = 25
_PAUSE_S = 0.005
_LATER_PAUSE_S = 0.05
_TIMEOUT_S = 30
_CHANNEL = [
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
]


class Failure(NamedTuple):
    """A request without an answer: what went on when that was known, who asked, and why."""

    phase: str
    client: int
    reason: str


class Steady:
    """Asks a model that adds its version, as long as the block lasts.

    Attributes:
        answers: how many requests each version has answered.
        wrong: answers that are not those of the version which they name, or of one that was not
            to answer any more when they were asked for.
        failures: the requests that failed.
    """

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._model = model
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=work, args=(number,))
            for number, work in enumerate(
                [self._ask_http] * HTTP_CLIENTS + [self._ask_grpc] * GRPC_CLIENTS
            )
        ]
        self._phase = ""
        self._oldest = 0
        self._done: Counter[int] = Counter()  # requests, by client
        self.answers: Counter[str] = Counter()
        self.wrong: list[object] = []
        self.failures: list[Failure] = []

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
            return self._done.total()

    def begin(self, phase: str) -> None:
        """Say what goes on from now on."""
        with self._lock:
            self._phase = phase

    def expect(self, version: int) -> None:
        """From now on nothing older is to answer what is asked from now on."""
        self._oldest = version

    def go_on(self, count: int) -> None:
        """Return when that many more requests are done."""
        wanted = self.count + count
        wait_until(lambda: self.count >= wanted, what=self.said, every_s=0.01)

    def go_round(self, times: int) -> None:
        """Return when every client has done that many more requests."""
        with self._lock:
            wanted = {number: self._done[number] + times for number in range(len(self._threads))}
        wait_until(
            lambda: all(self._done[number] >= least for number, least in wanted.items()),
            what=self.said,
            every_s=0.01,
        )

    def fill_up(self) -> None:
        """Return when as many requests are done as a test is to have."""
        wait_until(lambda: self.count >= REQUESTS, timeout_s=160, what=self.said)

    def said(self) -> str:
        with self._lock:
            failures = Counter((each.phase, each.reason) for each in self.failures)
            return f"answers {dict(self.answers)}, failures {dict(failures)}"

    def _ask_http(self, number: int) -> None:
        path = f"/v2/models/{self._model}/infer"
        connection = None
        for asked in self._turns():
            if connection is None or asked % _REQUESTS_PER_CONNECTION == 0:
                if connection is not None:
                    connection.close()
                connection = http.client.HTTPConnection(HOST, self._server.http_port, _TIMEOUT_S)
            value, oldest = 100_000 * number + asked, self._oldest
            try:
                status, answer = ask_over(connection, "POST", path, plus_request([[value, -value]]))
            except (OSError, http.client.HTTPException) as error:
                self._failed(number, f"connection: {type(error).__name__}")
                connection.close()
                connection = None
                continue
            if status == 200:
                data = answer["outputs"][0]["data"]
                self._answered(number, answer["model_version"], oldest, value, data)
            else:
                self._failed(number, f"HTTP {status}: {answer}")
        if connection is not None:
            connection.close()

    def _ask_grpc(self, number: int) -> None:
        client = triton.InferenceServerClient(self._server.grpc_address, channel_args=_CHANNEL)
        for asked in self._turns():
            value, oldest = 100_000 * number + asked, self._oldest
            tensor = triton.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(np.array([[value, -value]], np.float32))
            try:
                result = client.infer(self._model, [tensor], client_timeout=_TIMEOUT_S)
            except InferenceServerException as error:
                self._failed(number, f"{error.status()}: {error.message()[:80]}")
            else:
                version, data = result.get_response().model_version, result.as_numpy("y")
                self._answered(number, version, oldest, value, data.ravel().tolist())
        with suppress(InferenceServerException):
            client.close()

    def _turns(self):
        asked = 0
        # Once there are enough, what happens meanwhile is to have the processors.
        while not self._stop.wait(_PAUSE_S if self.count < REQUESTS else _LATER_PAUSE_S):
            asked += 1
            yield asked

    def _answered(
        self, number: int, version: str, oldest: int, value: float, data: list[float]
    ) -> None:
        with self._lock:
            self._done[number] += 1
            self.answers[version] += 1
            is_right = data == [value + int(version), -value + int(version)]
            if not is_right or int(version) < oldest:
                self.wrong.append((version, oldest, value, data))

    def _failed(self, number: int, reason: str) -> None:
        with self._lock:
            self._done[number] += 1
            self.failures.append(Failure(self._phase, number, reason))
