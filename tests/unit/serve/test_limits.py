from __future__ import annotations

import asyncio

import pytest

from atriva_inference.errors import OptionError
from atriva_ray.errors import BadRequestError, UnauthorizedError
from atriva_ray.serve.http_errors import SlowClientError
from atriva_ray.serve.limits import Limits, LimitsMiddleware, receive_body
from tests.unit.serve.asgi import (
    SMALL,
    Sent,
    ask,
    echo,
    never,
    received,
    scope_of,
    unasked,
)


def test_nobody_is_told_of_an_error_who_is_gone():
    async def receive():
        return {"type": "http.disconnect"}

    assert ask(echo, scope_of(content_length=5), receive).messages == []


def test_what_is_within_the_limits_goes_through():
    sent = ask(echo, scope_of(content_length=3), received(b"abc"))
    assert sent.status == 200
    assert sent.messages[1]["body"] == b"abc"


def test_a_body_is_refused_by_its_length_before_it_is_received():
    sent = ask(unasked, scope_of(content_length=1001), never())
    assert sent.status == 413
    assert sent.headers["connection"] == "close"
    assert "1,001" in sent.error
    assert "1,000" in sent.error


def test_a_body_without_a_length_is_refused_when_it_is_too_large():
    sent = ask(echo, scope_of(transfer_encoding="chunked"), received(b"a" * 600, b"b" * 600, b"c"))
    assert sent.status == 413
    assert sent.headers["connection"] == "close"


def test_a_refused_client_is_listened_to_for_a_while():
    asked = []

    async def receive():
        asked.append(1)
        return {"type": "http.request", "body": b"a" * 100, "more_body": True}

    sent = ask(unasked, scope_of(content_length=5000), receive)
    assert sent.status == 413
    assert len(asked) == 11  # until it has sent as much as a body may have
    assert [message.get("more_body") for message in sent.messages] == [None, True, False]


@pytest.mark.parametrize("length", ["-1", "1e3", "", "9" * 5000, "\u0661"])
def test_a_length_that_is_none_is_refused(length):
    for name in ("content_length", "inference_header_content_length"):
        sent = ask(unasked, scope_of(**{name: length}), never())
        assert sent.status == 400
        assert len(sent.error) < 200


def test_the_length_of_the_json_has_a_limit_of_its_own():
    headers = {"inference_header_content_length": 101, "content_length": 500}
    assert ask(unasked, scope_of(**headers), never()).status == 413
    headers = {"inference_header_content_length": 60, "content_length": 50}
    sent = ask(unasked, scope_of(**headers), received(b"a" * 50))
    assert sent.status == 400
    assert "whole body has 50 bytes" in sent.error


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "QUERY", "get"])
def test_an_unknown_method_is_refused(method):
    sent = ask(unasked, scope_of(method), never())
    assert sent.status == 405
    assert sent.headers["allow"] == "GET, HEAD, POST"
    assert method in sent.error


def test_a_client_that_stops_sending_is_cut_off():
    limits = Limits(max_idle_s=0.05)
    parts = [b"abc"]

    async def receive():
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": True}
        return await never()()

    sent = ask(echo, scope_of(content_length=100), receive, limits)
    assert sent.status == 408
    assert sent.headers["connection"] == "close"
    assert "3 bytes" in sent.error


def test_time_that_the_server_takes_is_not_the_clients():
    async def app(scope, receive, send):
        await receive()
        await asyncio.sleep(0.15)
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": []})

    limits = Limits(max_idle_s=0.05, body_grace_s=0.1)
    assert ask(app, scope_of(), received(b"a", b"b"), limits).status == 204


def test_who_waits_for_the_client_to_go_away_may_wait_long():
    async def app(scope, receive, send):
        await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.15)
        await send({"type": "http.response.start", "status": 204, "headers": []})

    messages = [{"type": "http.request", "body": b"a", "more_body": False}]

    async def receive():
        return messages.pop() if messages else await never()()

    assert ask(app, scope_of(), receive, Limits(max_idle_s=0.05)).status == 204


def test_no_timer_stays_behind():
    async def run():
        loop = asyncio.get_running_loop()
        app = LimitsMiddleware(echo, SMALL)
        for receive in (received(b"a"), received(b"a" * 2000, b"b")):
            await app(scope_of(), receive, Sent())
        with pytest.raises(BadRequestError):
            await receive_body(scope_of(content_length=3), received(b"a", b"aaaa", b""), SMALL)
        assert all(timer.cancelled() for timer in loop._scheduled)

    asyncio.run(run())


def test_too_many_requests_at_once_are_told_to_come_again_and_health_is_always_told():
    async def run():
        may_end = asyncio.Event()

        async def app(scope, receive, send):
            if scope["method"] == "POST":
                await may_end.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        middleware = LimitsMiddleware(app, SMALL)
        tasks = [
            asyncio.create_task(middleware(scope_of(), received(b""), Sent())) for _ in range(2)
        ]
        await asyncio.sleep(0)
        assert middleware.running_count == 2
        refused, health, later = Sent(), Sent(), Sent()
        await middleware(scope_of(), received(b""), refused)
        await middleware(scope_of("GET"), received(b""), health)
        may_end.set()
        await asyncio.gather(*tasks)
        await middleware(scope_of(), received(b""), later)
        assert middleware.running_count == 0
        return refused, health, later

    refused, health, later = asyncio.run(run())
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert "at most 2" in refused.error
    assert (health.status, later.status) == (200, 200)


def test_what_nobody_expected_is_told_to_the_log_only(caplog):
    async def app(scope, receive, send):
        raise ValueError("the secret of the house")

    sent = ask(app, scope_of(), received(b""))
    assert sent.status == 500
    assert "secret" not in sent.error
    reference = sent.error.split()[-1]
    assert f"reference {reference}" in caplog.text
    assert "the secret of the house" in caplog.text


def test_an_error_that_a_client_is_to_be_told_keeps_its_words():
    async def app(scope, receive, send):
        raise UnauthorizedError

    sent = ask(app, scope_of(), received(b""))
    assert sent.status == 401
    assert sent.headers["www-authenticate"].startswith("Bearer")
    assert "Authorization" in sent.error


def test_a_connection_goes_on_after_an_error_only_if_its_end_is_known():
    async def app(scope, receive, send):
        raise UnauthorizedError

    assert "connection" not in ask(app, scope_of(content_length=5), never()).headers
    chunked = ask(app, scope_of(transfer_encoding="chunked"), never())
    assert chunked.headers["connection"] == "close"


def test_an_answer_that_has_begun_is_not_begun_again(caplog):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("late")

    sent = ask(app, scope_of(), received(b""))
    assert len(sent.messages) == 1
    assert "late" in caplog.text


def test_the_lifespan_goes_through():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(LimitsMiddleware(app)({"type": "lifespan"}, never(), Sent()))
    assert seen == ["lifespan"]


def test_limits_are_positive():
    with pytest.raises(OptionError, match="max_idle_s"):
        Limits(max_idle_s=0)


def test_a_cause_of_its_own_stays_when_the_app_catches_it():
    async def app(scope, receive, send):
        with pytest.raises(SlowClientError):
            await receive()
        assert asyncio.current_task().cancelling() == 0
        await send({"type": "http.response.start", "status": 202, "headers": []})

    assert ask(app, scope_of(), never(), Limits(max_idle_s=0.02)).status == 202
