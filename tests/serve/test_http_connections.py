"""Connections: kept, shared by requests, left by their clients in the middle of something."""

from __future__ import annotations

import contextlib
import gzip
import json
import time
import zlib

import pytest

from atriva_ray.serve.limits import Limits
from tests.serve.http_tools import (
    INFER,
    PNG,
    answer_of,
    chunked,
    post,
    post_head,
    read_answer,
    request,
    serving,
    tensor,
    until,
)

SLOW = "/v2/models/slow/infer"
BODY = json.dumps(request()).encode()


@pytest.fixture(scope="module")
def running():
    with serving() as served:
        yield served


@pytest.fixture
def served(running):
    return running.renewed()


def test_many_requests_on_one_connection(served):
    connection = served.connect()
    first = None
    for each in range(300):
        body = json.dumps(request(tensor([each], shape=[1])))
        answer = served.ask("POST", INFER, body, connection)
        assert answer.json["outputs"][0]["data"] == [2 * each]
        assert "connection" not in answer.headers
        first = first or connection.sock
        assert connection.sock is first
    connection.close()


def test_errors_do_not_end_a_connection(served):
    connection = served.connect()
    sock = None
    for method, path, body, status in [
        ("POST", INFER, b"{", 400),
        ("POST", "/v2/models/nothing/infer", BODY, 404),
        ("POST", "/nothing", BODY, 404),
        ("POST", "/v2", BODY, 405),
        ("PUT", INFER, BODY, 405),
        ("GET", INFER, BODY, 405),
        ("POST", "/v2/logging", bytes(100_000), 501),
        ("POST", "/v2/models/full/infer", BODY, 503),
        ("POST", "/v2/models/lost/infer", BODY, 500),
        ("POST", INFER, BODY, 200),
    ]:
        assert served.ask(method, path, body, connection).status == status
        sock = sock or connection.sock
        assert connection.sock is sock
    connection.close()


def test_requests_that_do_not_wait_for_answers(served):
    """Pipelining: answers come in the order of the requests."""
    paths = [INFER, "/v2/models/nothing/infer", INFER, "/v2/logging", INFER]
    parts = [
        post(json.dumps(request(id=str(each))).encode(), path=path)
        for each, path in enumerate(paths)
    ]
    with served.raw(b"".join(parts)) as connection, connection.makefile("rb") as file:
        answers = [read_answer(file) for _ in paths]
    assert [each.status for each in answers] == [200, 404, 200, 501, 200]
    assert [answers[each].json["id"] for each in (0, 2, 4)] == ["0", "2", "4"]

    with served.raw(post(BODY, path=SLOW), post(BODY)) as connection:
        until(lambda: served.fake.running == 1)
        served.release()
        with connection.makefile("rb") as file:
            names = [read_answer(file).json["model_name"] for _ in range(2)]
    assert names == ["slow", "double"]


def test_bodies_in_parts(served):
    head = post_head("Transfer-Encoding: chunked")
    for parts in (
        [BODY],
        [BODY[:1], BODY[1:-1], BODY[-1:]],
        [bytes([each]) for each in BODY],
    ):
        with served.raw(head, chunked(*parts), b"0\r\n\r\n") as connection:
            assert answer_of(connection).json["outputs"][0]["data"] == [2, 4]
    with served.raw(head) as connection:
        for each in (BODY[:20], BODY[20:], b""):
            connection.sendall(chunked(each)[: -2 if not each else None])
            time.sleep(0.02)
            if not each:
                connection.sendall(b"\r\n")
        assert answer_of(connection).status == 200
    with served.raw(post_head(f"Content-Length: {len(BODY)}")) as connection:
        for begin in range(0, len(BODY), 30):
            connection.sendall(BODY[begin : begin + 30])
            time.sleep(0.005)
        assert answer_of(connection).status == 200


def test_a_client_that_asks_whether_it_may_send(served):
    head = post_head(f"Content-Length: {len(BODY)}", "Expect: 100-continue")
    with served.raw(head) as connection, connection.makefile("rb") as file:
        assert file.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert file.readline() == b"\r\n"
        connection.sendall(BODY)
        assert read_answer(file).status == 200
    head = post_head(f"Content-Length: {200 << 20}", "Expect: 100-continue")
    with served.raw(head) as connection:
        assert answer_of(connection).status == 413


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("deflate", zlib.compress)],
)
def test_packed_bodies(coding, pack):
    content = (5).to_bytes(4, "little")
    given = {
        "name": "x",
        "shape": [1],
        "datatype": "INT32",
        "parameters": {"binary_data_size": 4},
    }
    head = json.dumps(request(given)).encode()
    with serving(Limits(max_body_bytes=100_000, linger_s=0.2)) as served:
        # The length of the JSON is that of the JSON, not of what it is packed to.
        lengths = {"content_encoding": coding, "inference_header_content_length": len(head)}
        answer = served.ask("POST", INFER, pack(head + content), **lengths)
        assert answer.json["outputs"][0]["data"] == [10]
        answer = served.ask("POST", INFER, pack(bytes(100_001)), content_encoding=coding)
        assert answer.status == 413
        for broken in (pack(BODY)[:-1], pack(BODY)[:5], BODY, b""):
            answer = served.ask("POST", INFER, broken, content_encoding=coding)
            assert answer.status == 400
            assert coding.lower() in answer.error


@pytest.mark.parametrize(
    ("path", "body"), [(SLOW, BODY), ("/v2/models/slow/infer-image", PNG)], ids=["infer", "image"]
)
def test_a_client_that_goes_away_cancels_its_request(path, body):
    with serving(Limits(max_requests=3)) as served:
        for cancelled in range(1, 4):
            with served.raw(post(body, path=path)):
                until(lambda: served.fake.running == 1)
            until(lambda: served.fake.cancelled == cancelled)  # noqa: B023 - called at once
            assert served.fake.running == 0
        # Those that were cancelled do not count any longer.
        waiting = [served.raw(post(body, path=path)) for _ in range(3)]
        until(lambda: served.fake.running == 3)
        served.release()
        for each in waiting:
            assert answer_of(each).status == 200
            each.close()
        assert served.fake.cancelled == 3


def test_a_client_that_goes_away_before_its_request_is_whole(served, caplog):
    for _ in range(5):
        served.raw(post_head("Content-Length: 1000"), b"{").close()
        served.raw(post_head("Transfer-Encoding: chunked"), chunked(b"{")).close()
        served.raw(post_head()[:-10]).close()
    assert served.infer(request()).status == 200
    assert not served.fake.requests[:-1]
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


def test_requests_that_run_are_answered_when_it_stops():
    with serving() as served:
        running = served.raw(post(BODY, path=SLOW))
        until(lambda: served.fake.running == 1)
        idle = served.raw()
    with running, idle:
        assert answer_of(running).status == 200
        assert idle.recv(1) == b""


def test_a_request_may_begin_in_the_same_piece_as_a_large_body_ends(served):
    content = bytes(160_000)
    size = {"binary_data_size": len(content)}
    given = {"name": "x", "shape": [40_000], "datatype": "INT32", "parameters": size}
    head = json.dumps(request(given)).encode()
    large = post(head + content, f"Inference-Header-Content-Length: {len(head)}")
    following = post(BODY)
    with served.raw() as connection, connection.makefile("rb") as file:
        for _ in range(3):
            connection.sendall(large[:-70_000])
            time.sleep(0.05)
            connection.sendall(large[-70_000:] + following[:20])
            assert read_answer(file).status == 200
            connection.sendall(following[20:])
            assert read_answer(file).status == 200


def test_headers_without_end(served):
    line = b"a: " + bytes([97]) * 8000 + b"\r\n"
    with served.raw(post_head()[:-2]) as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.sendall(line)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""
    assert served.get("/v2").status == 200


def test_clients_that_offer_another_protocol(served):
    """Those that know HTTP/2 do so; nobody has to take it, and their request is one as any."""
    offer = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    once = post(BODY, *offer)
    chunks = post_head("Transfer-Encoding: chunked", *offer) + chunked(BODY) + b"0\r\n\r\n"
    get = post_head(*offer, path="/v2", method="GET")
    for pieces in (
        [once, once, once],
        [once + once + once],
        [once[:200], once[200:], once + once[:100], once[100:]],
        [chunks, once + chunks],
        [get + once, once],
        [once, post(BODY), once],
    ):
        count = b"".join(pieces).count(b"HTTP/1.1")
        with served.raw() as connection, connection.makefile("rb") as file:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.005)
            assert {read_answer(file).status for _ in range(count)} == {200}
    assert len(served.fake.requests) == 17
    many = b"".join(post(json.dumps(request(id=str(each))).encode(), *offer) for each in range(500))
    with served.raw(many) as connection, connection.makefile("rb") as file:
        assert [read_answer(file).json["id"] for _ in range(500)] == list(map(str, range(500)))
    for path in ("/v2", "a:1"):
        for lines in ((), ("Connection: Upgrade", "Upgrade: h2c")):
            with served.raw(post_head(*lines, path=path, method="CONNECT")) as connection:
                assert answer_of(connection).status in {400, 405}
    with served.raw(post(BODY, *offer).replace(b"HTTP/1.1", b"HTTP/1.0")) as connection:
        assert answer_of(connection).headers["connection"] == "close"
