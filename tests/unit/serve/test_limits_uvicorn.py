"""The limits under the server that they are made for, with clients that are up to no good."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time

import pytest
import uvicorn

from atriva_ray.serve.limits import Limits, LimitsMiddleware, receive_body

LIMITS = Limits(
    max_body_bytes=1 << 20, max_idle_s=0.8, body_grace_s=1.2, max_requests=2, linger_s=0.5
)


class Served:
    def __init__(self, port, middleware):
        self.port = port
        self.middleware = middleware
        self.bodies = []

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def wait_until_idle(self):
        deadline_s = time.monotonic() + 10
        while self.middleware.running_count:
            assert time.monotonic() < deadline_s
            time.sleep(0.005)


@pytest.fixture(params=["httptools", "h11"])
def served(request):
    async def app(scope, receive, send):
        body = await receive_body(scope, receive, LIMITS)
        size = b"%d" % len(body)
        served.bodies.append(bytes(body))
        headers = [(b"content-length", b"%d" % len(size))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": size, "more_body": False})

    middleware = LimitsMiddleware(app, LIMITS)
    config = uvicorn.Config(
        middleware, port=0, http=request.param, lifespan="off", log_level="warning", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    served = Served(port, middleware)
    yield served
    served.wait_until_idle()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def head(*lines, method="POST"):
    return "\r\n".join([f"{method} /v2 HTTP/1.1", "Host: here", *lines, "", ""]).encode()


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def answer_of(connection):
    """Return status, headers and body of one answer."""
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        return status, headers, file.read(int(headers["content-length"]))


def is_closed(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_large_bodies_come_whole_on_one_connection(served):
    content = bytes(range(256)) * 2400
    with served.connect() as connection:
        for _ in range(3):
            connection.sendall(head(f"Content-Length: {len(content)}") + content)
            assert answer_of(connection)[::2] == (200, b"614400")
    assert served.bodies == [content] * 3


def test_a_chunked_body_needs_no_length(served):
    with served.connect() as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        for _ in range(10):
            connection.sendall(chunk(b"a" * 50_000))
        connection.sendall(chunk(b""))
        assert answer_of(connection)[::2] == (200, b"500000")


def test_a_packed_body_is_unpacked(served):
    packed = gzip.compress(bytes(600_000))
    with served.connect() as connection:
        connection.sendall(
            head("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed
        )
        assert answer_of(connection)[::2] == (200, b"600000")


def test_a_bomb_does_not_go_off(served):
    packed = gzip.compress(bytes(100_000_000), compresslevel=1)
    assert len(packed) < LIMITS.max_body_bytes
    with served.connect() as connection:
        connection.sendall(head("Content-Encoding: gzip", f"Content-Length: {len(packed)}"))
        with contextlib.suppress(ConnectionError):
            connection.sendall(packed)
        status, headers, body = answer_of(connection)
    assert status == 413
    assert headers["connection"] == "close"
    assert "error" in json.loads(body)


def test_an_announced_body_that_is_too_large_is_refused_and_the_answer_arrives(served):
    size = LIMITS.max_body_bytes + 700_000
    with served.connect() as connection:
        connection.sendall(head(f"Content-Length: {size}") + bytes(size))
        status, headers, _ = answer_of(connection)
        assert status == 413
        assert headers["connection"] == "close"
        assert is_closed(connection)


def test_a_client_that_asks_first_need_not_send_what_is_refused(served):
    with served.connect() as connection:
        connection.sendall(head("Content-Length: 2000000", "Expect: 100-continue"))
        assert answer_of(connection)[0] == 413


def test_an_endless_chunked_body_is_refused(served):
    with served.connect() as connection:
        connection.sendall(head("Transfer-Encoding: chunked"))
        with contextlib.suppress(ConnectionError):
            for _ in range(30):
                connection.sendall(chunk(bytes(50_000)))
        assert answer_of(connection)[0] == 413
        assert is_closed(connection)


def test_a_client_that_stops_is_cut_off(served):
    with served.connect() as connection:
        connection.sendall(head("Content-Length: 1000") + b"a" * 10)
        begun_s = time.monotonic()
        status, _, body = answer_of(connection)
        assert status == 408
        assert 0.6 < time.monotonic() - begun_s < 8
        assert "10 bytes" in json.loads(body)["error"]
        assert is_closed(connection)


def test_a_client_that_drips_is_cut_off(served):
    with served.connect() as connection:
        connection.sendall(head("Content-Length: 1000"))
        begun_s = time.monotonic()
        connection.settimeout(0.1)
        data = b""
        while not data and time.monotonic() - begun_s < 10:
            connection.sendall(b"a")
            with contextlib.suppress(TimeoutError):
                data = connection.recv(100)
        assert b" 408 " in data.splitlines()[0]
        assert time.monotonic() - begun_s > 1


def test_a_client_that_goes_away_leaves_nothing_behind(served, caplog):
    for _ in range(5):
        with served.connect() as connection:
            connection.sendall(head("Content-Length: 1000") + b"a" * 10)
    served.wait_until_idle()
    with served.connect() as connection:
        connection.sendall(head("Content-Length: 2") + b"ab")
        assert answer_of(connection)[0] == 200
    assert served.bodies == [b"ab"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_one_too_many_is_refused_and_may_come_again_on_the_same_connection(served):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(2)]
        for connection in slow:
            connection.sendall(head("Content-Length: 2") + b"a")
        while served.middleware.running_count < 2:
            time.sleep(0.005)
        third = stack.enter_context(served.connect())
        third.sendall(head("Content-Length: 2") + b"ab")
        status, headers, _ = answer_of(third)
        assert (status, headers["retry-after"]) == (503, "1")
        for connection in slow:
            connection.sendall(b"b")
            assert answer_of(connection)[0] == 200
        third.sendall(head("Content-Length: 2") + b"ab")
        assert answer_of(third)[0] == 200


def test_an_unknown_method_is_refused(served):
    with served.connect() as connection:
        connection.sendall(head(method="DELETE"))
        status, headers, _ = answer_of(connection)
        assert (status, headers["allow"]) == (405, "GET, HEAD, POST")
