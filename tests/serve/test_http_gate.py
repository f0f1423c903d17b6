"""Who may ask over HTTP, and the pages, which everybody may see and which then show nothing."""

from __future__ import annotations

import pytest
import tritonclient.http as triton

from atriva_ray.serve.http.gate import Gate
from atriva_ray.serve.tokens import TokenStore, new_token
from tests.serve.http_tools import HOST, INFER, PNG, request, serving

TOKEN, LINE = new_token("somebody")
OPEN = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
LOCKED = [
    ("GET", "/v2"),
    ("GET", "/v2/"),
    ("GET", "/v2/models/double"),
    ("GET", "/v2/models/double/ready"),
    ("GET", "/v2/models/double/config"),
    ("GET", "/v2/models/nothing/config"),
    ("GET", "/v2/models/stats"),
    ("GET", "/v2/logging"),
    ("GET", "/nothing"),
    ("GET", "//"),
    ("GET", "/docs/"),
    ("GET", "/v2/health/live/"),
    ("GET", "/v2/health/live%0A"),
    ("GET", "/v2/health/ready/../../models/double"),
    ("POST", INFER),
    ("POST", "/v2/models/double/infer-image"),
    ("POST", "/v2/repository/index"),
    ("POST", "/v2/repository/models/double/load"),
    ("POST", "/v2/repository/models/double/unload"),
]


@pytest.fixture(scope="module")
def running():
    with serving() as served:
        yield served


@pytest.fixture
def served(running):
    return running.renewed()


@pytest.fixture(scope="module")
def guarded():
    with serving(gate=gate()) as served:
        yield served


@pytest.fixture
def locked(guarded):
    return guarded.renewed()


def gate(loopback_host=HOST):
    return Gate(TokenStore([LINE]).check, loopback_host)


def test_a_token_is_needed_everywhere_but_for_health_and_pages(locked):
    for method, path in LOCKED:
        for headers in (
            {},
            {"authorization": TOKEN},
            {"authorization": "Bearer"},
            {"authorization": "Bearer "},
            {"authorization": f"Bearer {TOKEN[:-1]}"},
            {"authorization": f"Basic {TOKEN}"},
            {"authorization": "Bearer größe"},
        ):
            answer = locked.ask(method, path, **headers)
            assert answer.status == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="atriva"'
            assert "wants a token" in answer.error
            assert "double" not in answer.error
    for path in OPEN:
        assert locked.get(path).status == 200
    assert locked.fake.calls == []
    assert not locked.fake.requests


def test_who_has_a_token_may_ask(locked):
    for scheme in ("Bearer", "bearer", "BEARER"):
        answer = locked.infer(request(), authorization=f"{scheme} {TOKEN}")
        assert answer.status == 200
    for method, path in LOCKED:
        answer = locked.ask(method, path, authorization=f"Bearer {TOKEN}")
        assert answer.status not in {401, 403}
    with triton.InferenceServerClient(locked.url) as client:
        assert client.is_server_ready()
        assert not client.is_model_ready("double")
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert client.is_model_ready("double", headers=headers)


def test_what_a_client_sends_without_a_token_is_not_read(locked):
    connection = locked.connect()
    for _ in range(3):
        assert locked.ask("POST", INFER, bytes(1_000_000), connection).status == 401
    connection.close()


def test_with_a_token_the_server_may_have_any_name(locked):
    for host in ("models.example.org", "localhost", HOST):
        answer = locked.get("/v2", host=host, authorization=f"Bearer {TOKEN}")
        assert answer.status == 200


@pytest.mark.parametrize("host", ["[", "]", "a b", "a/b", ":", "[::1", "ü", "a:99999999", "<b>"])
def test_names_of_the_server_that_are_none(locked, host):
    for path in ("/", "/v2/logging", "/v2"):
        headers = {"authorization": f"Bearer {TOKEN}", "host": host}
        answer = locked.get(path, **headers)
        assert answer.status in {200, 400, 501}
        assert b"<b>" not in answer.body


def test_other_web_sites_may_not_ask(served):
    for origin in (
        "http://evil.example",
        "https://evil.example",
        "null",
        "",
        f"http://{HOST}",
        f"http://{HOST}:{served.port + 1}",
        f"http://{HOST}:{served.port}.evil.example",
        f"http://localhost:{served.port}",
    ):
        for path in ("/v2", "/", "/v2/health/live"):
            answer = served.get(path, origin=origin)
            assert answer.status == 403
            assert "web site" in answer.error
            assert "access-control-allow-origin" not in answer.headers
        assert served.infer(request(), origin=origin).status == 403
    assert not served.fake.requests
    assert served.infer(request(), origin=f"http://{HOST}:{served.port}").status == 200
    assert served.ask("OPTIONS", INFER, origin="http://evil.example").status == 405


def test_on_loopback_no_other_name_may_stand_for_this_machine(served):
    """Or a site whose name is first its own address and then ours would be the same site."""
    for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1.evil.example"):
        for path in ("/v2", "/"):
            answer = served.get(path, host=host)
            assert answer.status == 403
            assert "evil.example" in answer.error
        answer = served.get("/v2", host=host, origin=f"http://{host}")
        assert answer.status == 403
    for host in ("localhost", f"localhost:{served.port}", "LocalHost:1", HOST, "[::1]:8000"):
        assert served.get("/v2", host=host).status == 200


def test_a_server_for_others_may_have_any_name():
    with serving(gate=Gate(None, None)) as served:
        assert served.get("/v2", host="models.example.org").status == 200
        answer = served.get("/v2", host="models.example.org", origin="http://evil.example")
        assert answer.status == 403


def test_the_page(served):
    answer = served.get("/")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.body.decode()
    for text in ("double", "unready", "it is large", "node-1/NPU", served.url):
        assert text in page
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-frame-options"] == "DENY"


def test_the_page_shows_no_models_to_who_has_no_token(locked):
    for headers in ({}, {"authorization": "Bearer nonsense"}):
        page = locked.get("/", **headers).body.decode()
        assert "wants a token" in page
        for text in ("double", "unready", "it is large", "node-1"):
            assert text not in page
    answer = locked.get("/", authorization=f"Bearer {TOKEN}")
    assert "double" in answer.body.decode()
    assert "Authorization" in answer.headers["vary"]


def test_the_document_says_what_there_is():
    with serving() as served:
        document = served.get("/openapi.json").json
        assert document["openapi"].startswith("3.1")
        assert document["security"] == []
        assert served.get("/docs").headers["content-type"] == "text/html; charset=utf-8"
        page = served.get("/docs").body.decode()
        for path, item in document["paths"].items():
            assert path in page
            real = path.format(model_name="double", model_version="2") if "{" in path else path
            for method in {"get", "post"} & item.keys():
                body = PNG if path.endswith("infer-image") else None
                body = '{"inputs": []}' if path.endswith("/infer") else body
                answer = served.ask(method.upper(), real, body)
                assert answer.status == 200, (method, real, answer.body)
    with serving(gate=gate()) as served:
        assert served.get("/openapi.json").json["security"] == [{"bearer": []}]
