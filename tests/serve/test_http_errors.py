"""What clients are told when something is wrong: a status, and JSON that says what."""

from __future__ import annotations

import json

import pytest

from atriva_ray.serve.limits import Limits
from atriva_ray.serve.protocol.rest_request import HEADER_LENGTH
from tests.serve.http_tools import (
    HOST,
    INFER,
    PNG,
    answer_of,
    chunked,
    post,
    post_head,
    request,
    serving,
    tensor,
    until,
)


@pytest.fixture(scope="module")
def running():
    with serving() as served:
        yield served


@pytest.fixture
def served(running):
    return running.renewed()


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/v2/models/nothing/infer", 404, "there is no model 'nothing' here"),
        ("/v2/models/double/versions/9/infer", 404, "has no version '9'"),
        ("/v2/models/bad/infer", 400, "the input is not good"),
        ("/v2/models/full/infer", 503, "try again in 2.5 s"),
        ("/v2/models/unready/infer", 503, "is LOADING"),
        ("/v2/models/late/infer", 504, "within 0.25 s"),
        ("/v2/models/broken/infer", 500, "could not be answered"),
        ("/v2/models/lost/infer", 500, "could not be answered"),
    ],
)
def test_what_a_model_may_answer_instead(served, path, status, text, caplog):
    retries = {"full": "3", "unready": "1"}
    connection = served.connect()
    body = json.dumps(request(parameters={"timeout": 250_000}))
    answer = served.ask("POST", path, body, connection)
    assert answer.status == status
    assert text in answer.error
    assert answer.headers.get("retry-after") == retries.get(path.split("/")[3])
    # Whatever happened, the next request of the connection is answered.
    assert served.ask("POST", INFER, json.dumps(request()), connection).status == 200
    connection.close()
    failed = [each for each in caplog.records if each.exc_info]
    assert len(failed) == (status == 500)
    for record in failed:
        assert answer.error.rpartition(" ")[2] in record.getMessage()
        assert record.name.startswith("atriva_ray")


def test_pictures_fail_likewise(served):
    for model, status in [
        ("bad", 400),
        ("full", 503),
        ("late", 504),
        ("broken", 500),
        ("lost", 500),
    ]:
        answer = served.post(f"/v2/models/{model}/infer-image", PNG)
        assert (answer.status, bool(answer.error)) == (status, True)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models",
        "/v2/models",
        "/v2/models/",
        "/v2/models/double/",
        "/v2/models/double/nothing",
        "/v2/models/double/ready/",
        "/v2/models/double/versions",
        "/v2/models/double/versions/",
        "/v2/models/double/versions//ready",
        "/v2//health/live",
        "/v2/../v2",
        "/V2",
        "/favicon.ico",
        "/%00",
        "/%ff%fe",
        "/" + "a" * 5000,
    ],
)
def test_an_address_at_which_nothing_is(served, path):
    for method in ("GET", "POST"):
        answer = served.ask(method, path)
        assert answer.status == 404
        assert "there is nothing at '/" in answer.error
        assert len(answer.error) < 400


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "%2e%2e",
        "..%2f..%2fetc",
        "%2Fetc%2Fpasswd",
        "double%00",
        "double%0A",
        "double%0d%0aX-Header:%201",
        "%ff",
        "zw%C3%B6lf",
        "double%20",
        "double;version=1",
        "a" * 4000,
    ],
)
def test_names_that_no_model_has(served, name):
    for version in ("", f"/versions/{name}"):
        for path in (f"/v2/models/{name}{version}", f"/v2/models/{name}{version}/ready"):
            answer = served.get(path)
            assert answer.status == 404
            assert answer.error
            assert "x-header" not in answer.headers
    answer = served.post(f"/v2/models/double/versions/{name}/infer", request())
    assert answer.status == 404


def test_names_are_read_as_they_are_meant(served):
    names = ("ein Modell", "größe", "a+b", "a%b", "..", "stats", "infer")
    written = ("ein%20Modell", "gr%C3%B6%C3%9Fe", "a+b", "a%25b", "..", "stats", "infer")
    served.fake.names = names
    for name, path in zip(names, written, strict=True):
        assert served.get(f"/v2/models/{path}/ready").json == {"name": name, "ready": True}
        answer = served.infer(request(), path=f"/v2/models/{path}/infer")
        assert answer.json["model_name"] == name


def test_methods_that_an_address_does_not_have(served):
    for method, path, allowed in [
        ("GET", INFER, {"POST"}),
        ("HEAD", INFER, {"POST"}),
        ("POST", "/v2", {"GET", "HEAD"}),
        ("POST", "/v2/models/double", {"GET", "HEAD"}),
        ("POST", "/v2/health/live", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
        ("GET", "/v2/repository/index", {"POST"}),
        ("DELETE", "/v2/models/double", {"GET", "HEAD", "POST"}),
        ("PUT", INFER, {"GET", "HEAD", "POST"}),
        ("OPTIONS", INFER, {"GET", "HEAD", "POST"}),
        ("TRACE", "/v2", {"GET", "HEAD", "POST"}),
    ]:
        answer = served.ask(method, path)
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) == allowed
        if method == "HEAD":
            assert answer.body == b""
        else:
            assert repr(method) in answer.error


def test_only_the_head_of_an_answer(served):
    connection = served.connect()
    for path, status in [
        ("/", 200),
        ("/docs", 200),
        ("/v2", 200),
        ("/v2/health/live", 200),
        ("/v2/models/double", 200),
        ("/v2/models/unready/ready", 503),
        ("/v2/models/nothing", 404),
        ("/nothing", 404),
    ]:
        head = served.ask("HEAD", path, connection=connection)
        assert (head.status, head.body) == (status, b"")
        whole = served.ask("GET", path, connection=connection)
        assert head.headers["content-length"] == str(len(whole.body))
    connection.close()


def test_what_triton_has_and_this_server_does_not(served):
    shared = {"shared_memory_region": "region", "shared_memory_byte_size": 8}
    for method, path in [
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/a/register"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/models/double/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
    ]:
        answer = served.ask(method, path, b"{}" if method == "POST" else None)
        assert answer.status == 501
        assert path in answer.error
    for document in (
        request(tensor(parameters=shared)),
        request(outputs=[{"name": "x_doubled", "parameters": shared}]),
    ):
        answer = served.infer(document)
        assert answer.status == 501
        assert "shared memory" in answer.error


def test_queries_are_passed_over(served):
    for query in (b"?a=b", b"?", b"?\xff\xfe", b"?a=%ff&&&=", b"?" + b"a" * 5000):
        for path, status in [("/v2", 200), ("/v2/logging", 501), ("/", 200)]:
            lines = b"GET %b%b HTTP/1.1\r\nHost: %b\r\n\r\n"
            with served.raw(lines % (path.encode(), query, HOST.encode())) as connection:
                expected = {status, 400} if b"\xff" in query else {status}
                assert answer_of(connection).status in expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"inputs"',
        b"\xff",
        '{"inputs": []}'.encode("utf-16"),
        b'{"inputs": {}}',
        b'{"inputs": [1]}',
        b'{"outputs": []}',
        b'{"inputs": [], "outputs": 1}',
        b'{"inputs": [], "id": 7}',
        b'{"inputs": [], "parameters": []}',
        b'{"inputs": [], "parameters": {"timeout": -1}}',
        b'{"inputs": [], "parameters": {"timeout": "soon"}}',
        b'{"inputs": [], "parameters": {"priority": 1.5}}',
        b'{"inputs": [], "parameters": {"binary_data_output": 1}}',
        b'{"inputs": [], "parameters": {"a": {}}}',
        b'{"inputs": [], "parameters": {"a": 99999999999999999999999}}',
        b'{"inputs": [], "outputs": [{"name": "y"}, {"name": "y"}]}',
        b'{"inputs": [{"name": "", "shape": [1], "datatype": "BOOL", "data": [true]}]}',
        b'{"inputs": ' + b"[" * 100_000,
        b'{"inputs": [], "id": ' + b"9" * 10_000 + b"}",
    ],
)
def test_a_request_that_cannot_be_understood(served, body):
    answer = served.infer(body)
    assert answer.status == 400
    assert len(answer.error) < 500
    assert not served.fake.requests


@pytest.mark.parametrize(
    "length", ["x", "-1", "+1", "1.0", "0x10", "1_0", "1 0", "²", "", "9" * 19, "9" * 5000, "3"]
)
def test_a_length_of_the_json_that_is_none(served, length):
    body = json.dumps(request()).encode()
    lines = (f"Content-Length: {len(body)}".encode(), HEADER_LENGTH.encode())
    head = post_head().removesuffix(b"\r\n") + lines[0] + b"\r\n"
    with served.raw(
        head + lines[1] + b": " + length.encode("latin-1") + b"\r\n\r\n" + body
    ) as connection:
        answer = answer_of(connection)
    assert answer.status == 400
    assert len(answer.error) < 300


def test_of_two_lengths_of_the_json_the_larger_one_counts():
    body = json.dumps(request()).encode().ljust(1000)
    with serving(Limits(max_json_bytes=100)) as served:
        for lengths in ((1000, 10), (10, 1000)):
            lines = [f"{HEADER_LENGTH}: {each}" for each in lengths]
            with served.raw(post(body, *lines)) as connection:
                assert answer_of(connection).status == 413


def test_a_request_that_is_too_large():
    with serving(Limits(max_body_bytes=10_000, max_json_bytes=1000, linger_s=0.2)) as served:
        answer = served.post(INFER, bytes(10_001))
        assert answer.status == 413
        assert "10,001 bytes" in answer.error
        assert answer.headers["connection"] == "close"
        answer = served.infer(b" " * 1001, bytes(8))
        assert answer.status == 413
        assert "1,000 bytes" in answer.error
        with served.raw(post_head("Transfer-Encoding: chunked"), chunked(bytes(10_001))) as late:
            assert answer_of(late).status == 413
        assert served.infer(request()).status == 200


def test_a_body_that_is_packed_otherwise_than_it_says(served):
    for coding, status, text in [
        ("br", 415, "gzip, deflate"),
        ("zstd", 415, "gzip, deflate"),
        ("gzip, gzip", 415, "gzip, deflate"),
        ("gzip", 400, "not gzip"),
        ("deflate", 400, "not deflate"),
    ]:
        answer = served.infer(request(), content_encoding=coding)
        assert answer.status == status
        assert text in answer.error
    assert served.infer(request(), content_encoding="identity").status == 200


def test_a_client_that_is_too_slow():
    with serving(Limits(max_idle_s=0.2)) as served:
        with served.raw(post_head("Content-Length: 100"), b"{") as connection:
            answer = answer_of(connection)
        assert answer.status == 408
        assert "too slowly" in answer.error


def test_a_server_that_is_full_still_says_how_it_is():
    with serving(Limits(max_requests=2, retry_after_s=1.5)) as served:
        slow = [served.connect() for _ in range(2)]
        for each in slow:
            each.request("POST", "/v2/models/slow/infer", json.dumps(request()))
        until(lambda: served.fake.running == 2)
        answer = served.infer(request())
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        assert "wait already" in answer.error
        for path in ("/v2/health/live", "/v2/health/ready", "/v2", "/", "/v2/models/double"):
            assert served.get(path).status == 200
        served.release()
        for each in slow:
            assert each.getresponse().status == 200
            each.close()
        assert served.infer(request()).status == 200


def test_what_is_no_http(served):
    for data in (
        b"what?\r\n\r\n",
        b"INFER /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/9.1\r\n\r\n",
        b"GET /v2/models/\xff\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        post_head("Content-Length: x"),
        post_head("Content-Length: -1"),
        post_head("Content-Length: 1", "Content-Length: 2") + b"ab",
        post_head("Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        post_head("Transfer-Encoding: chunked") + b"x\r\n",
        post_head("a b: c"),
    ):
        with served.raw(data) as connection:
            answer = answer_of(connection)
            assert answer.status == 400
            assert answer.headers["connection"] == "close"
            assert answer.error
            assert connection.recv(1) == b""
    assert served.get("/v2").status == 200
