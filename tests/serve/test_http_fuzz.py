"""Requests over HTTP that nobody would write, on connections that are kept.

`ATRIVA_FUZZ_COUNT=100000` sends more of them.
"""

from __future__ import annotations

import collections
import json
import os
import random

import psutil
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from atriva_ray.serve.limits import Limits
from atriva_ray.serve.protocol.rest_request import HEADER_LENGTH
from tests.serve.blurring import blurred
from tests.serve.http_tools import INFER, request, serving, tensor

COUNT = int(os.environ.get("ATRIVA_FUZZ_COUNT", "10000"))
EXAMPLES = max(20, COUNT // 1000)
ALLOWED = {200, 400, 404, 413, 501}
MIB = 1 << 20

PATHS = [*[INFER] * 20, "/v2/models/double/versions/1/infer", "/v2/models/nothing/infer"]
SNIPPETS = [
    *(b"null", b"-1", b"1e999", b"NaN", b"-Infinity", b"true", b"0", b"99999999999999", b'""'),
    *(b"[", b"]", b"{", b"}", b'"', b",", b":", b"[[]]", b'"BYTES"', b'"FP16"', b"\\ud800"),
    *(b"\\u0000", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff", b"9" * 19, b"9" * 5000),
    *(b"[" * 2000, b'{"a":' * 500, b'"shared_memory_region":"a",', b'"binary_data":true,'),
]


def binary(datatype, shape, content, name="x"):
    size = {"binary_data_size": len(content)}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": size}, content


def right(*tensors, **fields):
    """Return a request that is right: its body, and how much of it is JSON."""
    head = json.dumps(request(*(each for each, _ in tensors), **fields)).encode()
    tail = b"".join(content for _, content in tensors)
    return head + tail, len(head) if tail else None


RIGHT = [
    right((tensor(), b"")),
    right((tensor([1.5, -2.0], "FP32"), b""), id="7", parameters={"timeout": 5, "a": "b"}),
    right((tensor(["one", "zwölf"], "BYTES"), b""), (tensor([True, False], "BOOL", name="y"), b"")),
    right(binary("FP32", [2, 3], bytes(24)), parameters={"binary_data_output": True}),
    right(binary("BYTES", [2], b"\3\0\0\0one\0\0\0\0"), (tensor(name="y"), b"")),
    right(
        binary("FP16", [3], bytes(6)),
        binary("BF16", [1, 1], bytes(2), "y"),
        outputs=[
            {"name": "y_doubled", "parameters": {"binary_data": True}},
            {"name": "x_doubled", "parameters": {"classification": 2}},
        ],
    ),
]
BODIES = [body for body, _ in RIGHT]


def length_of(chance, length, body):
    """Return what the header says of the length of the JSON; None: nothing."""
    match chance.randrange(8):
        case 0:
            return None
        case 1:
            return chance.randrange(len(body) + 3)
        case 2:
            return 0
        case 3:
            return chance.choice(["", "x", "-1", "1e3", "9" * 30, str(2**63), "0x10"])
        case _:
            return length


@pytest.mark.timeout(max(300, COUNT // 50))
def test_whatever_is_sent_gets_an_answer():
    chance = random.Random(0)  # noqa: S311 - the same requests in every run
    process = psutil.Process()
    statuses = collections.Counter()
    limits = Limits(max_body_bytes=20_000, max_json_bytes=5000, linger_s=0.05)
    with serving(limits) as served:
        served.fake.requests = collections.deque(maxlen=4)
        connection = served.connect()
        begun_bytes = 0
        for each in range(COUNT):
            if each == COUNT // 4:
                begun_bytes = process.memory_info().rss
            body, length = chance.choice(RIGHT)
            for _ in range(chance.randrange(1, 4)):
                body = blurred(chance, body, BODIES, SNIPPETS)
            length = length_of(chance, length, body)
            headers = {} if length is None else {HEADER_LENGTH: length}
            answer = served.ask("POST", chance.choice(PATHS), body, connection, **headers)
            statuses[answer.status] += 1
            assert answer.status in ALLOWED, (body, length, answer.body)
            if answer.status != 200:
                assert len(answer.error) < 2000
        connection.close()
        assert process.memory_info().rss - begun_bytes < 48 * MIB
        assert served.infer(request()).status == 200
        assert served.fake.running == 0
    assert {200, 400, 404} <= statuses.keys(), statuses


def test_what_the_document_allows_and_what_it_does_not():
    checks = [
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
    ]
    with serving() as served, requests.Session() as session:
        url = f"http://{served.url}"
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        known = {"model_name": "double", "model_version": "2"}

        def see(cases):
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(cases)
            def ask(case):
                response = case.call(base_url=url, session=session)
                assert response.status_code < 500 or response.status_code in {501, 503}
                case.validate_response(response, checks=checks)

            ask()

        for result in schema.get_all_operations():
            operation = result.ok()
            names = {each.name for each in operation.path_parameters} & known.keys()
            fixed = {name: known[name] for name in names}
            see(operation.as_strategy(path_parameters=fixed))
            if names:
                see(operation.as_strategy())
            if operation.method.upper() == "POST":
                see(operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=fixed))
        assert served.get("/v2").status == 200
