"""ASGI without a server: requests, their bodies in parts, and what is sent back."""

from __future__ import annotations

import asyncio
import json

from atriva_ray.serve.limits import Limits, LimitsMiddleware, receive_body

SMALL = Limits(max_body_bytes=1000, max_json_bytes=100, max_requests=2, linger_s=0.05)


def scope_of(method="POST", **headers):
    pairs = [
        (name.replace("_", "-").encode(), str(text).encode()) for name, text in headers.items()
    ]
    return {"type": "http", "method": method, "path": "/v2", "headers": pairs}


def received(*parts):
    """Return an ASGI `receive` of a body in parts; after it, the client is gone."""
    left = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, 1)
    ]

    async def receive():
        return left.pop(0) if left else {"type": "http.disconnect"}

    return receive


def never():
    async def receive():
        await asyncio.Event().wait()

    return receive


class Sent:
    def __init__(self):
        self.messages = []

    async def __call__(self, message):
        self.messages.append(message)

    @property
    def status(self):
        return self.messages[0]["status"]

    @property
    def headers(self):
        return {name.decode(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def error(self):
        assert self.messages[-1]["more_body"] is False
        body = b"".join(message.get("body", b"") for message in self.messages[1:])
        assert self.headers["content-length"] == str(len(body))
        assert self.headers["content-type"] == "application/json"
        document = json.loads(body)
        assert list(document) == ["error"]
        return document["error"]


async def echo(scope, receive, send):
    body = await receive_body(scope, receive, SMALL)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": bytes(body), "more_body": False})


async def unasked(scope, receive, send):
    raise AssertionError


def ask(app, scope, receive, limits=SMALL):
    sent = Sent()
    asyncio.run(LimitsMiddleware(app, limits)(scope, receive, sent))
    return sent


def body_of(scope, receive, limits=SMALL):
    return asyncio.run(receive_body(scope, receive, limits))
