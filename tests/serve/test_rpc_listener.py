"""How the gRPC port begins and ends, and whom it lets in."""

from __future__ import annotations

import asyncio
import subprocess

import grpc
import numpy as np
import pytest

from atriva_inference.errors import OptionError
from atriva_ray.errors import UnauthorizedError
from atriva_ray.serve.rpc.listener import RpcListener
from atriva_ray.serve.rpc.service import make_handler
from tests.serve.fake_server import PRIVATE, FakeServer
from tests.serve.rpc_tools import HOST, X, aio_client, failure, given, serve, until


def test_a_request_that_is_too_large():
    async def scenario(fake, url):
        async with aio_client(url) as client:
            big = np.zeros((1, 50_000), np.float32)
            status, _ = await failure(client.infer("double", [given(big)]))
            assert status == "StatusCode.RESOURCE_EXHAUSTED"
            await client.infer("double", [given(X)])

    serve(scenario, max_message_bytes=100_000)


def test_stopping_answers_what_runs():
    async def run():
        fake = FakeServer()
        listener = RpcListener(make_handler(fake), HOST, 0)
        await listener.stop()
        await listener.start()
        async with aio_client(f"{HOST}:{listener.port}") as client:
            call = asyncio.create_task(client.infer("slow", [given(X)]))
            await until(lambda: fake.running == 1)
            stopping = asyncio.create_task(listener.stop())
            await asyncio.sleep(0.05)
            assert not stopping.done()
            fake.release.set()
            np.testing.assert_array_equal((await call).as_numpy("x_doubled"), 2 * X)
            await stopping
        await listener.stop()

    asyncio.run(run())


def test_stopping_cancels_what_takes_too_long():
    async def run():
        fake = FakeServer()
        listener = RpcListener(make_handler(fake), HOST, 0)
        await listener.start()
        async with aio_client(f"{HOST}:{listener.port}") as client:
            call = asyncio.create_task(client.infer("slow", [given(X)]))
            await until(lambda: fake.running == 1)
            await asyncio.wait_for(listener.stop(grace_s=0.1), 5)
            await failure(call)
        await until(lambda: fake.cancelled == 1)

    asyncio.run(run())


def test_a_token_is_wanted():
    def authorize(metadata):
        if metadata.get("authorization") != "Bearer open":
            raise UnauthorizedError

    async def scenario(fake, url):
        async with aio_client(url) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            for call in (
                client.infer("double", [given(X)]),
                client.is_model_ready("double"),
                client.infer("double", [given(X)], headers={"authorization": "Bearer shut"}),
            ):
                status, message = await failure(call)
                assert status == "StatusCode.UNAUTHENTICATED"
                assert "Authorization: Bearer" in message
            headers = {"authorization": "Bearer open"}
            await client.infer("double", [given(X)], headers=headers)

            async def requests():
                yield {"model_name": "double", "inputs": [given(X)]}

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in client.stream_infer(requests()):
                    pass
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            async for result, error in client.stream_infer(requests(), headers=headers):
                assert error is None
                assert result is not None
        assert len(fake.requests) == 2

    serve(scenario, authorize=authorize)


def test_a_check_of_tokens_that_fails_lets_nobody_pass(caplog):
    def authorize(metadata):
        raise OSError(PRIVATE)

    async def scenario(fake, url):
        async with aio_client(url) as client:
            status, message = await failure(client.infer("double", [given(X)]))
            assert status == "StatusCode.INTERNAL"
            assert PRIVATE not in message
        assert not fake.requests

    serve(scenario, authorize=authorize)


@pytest.fixture
def certificate(tmp_path):
    key, path = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path, key


def test_tls(certificate):
    path, key = certificate

    async def scenario(fake, url):
        options = {"ssl": True, "root_certificates": str(path)}
        async with aio_client(url, **options) as client:
            result = await client.infer("double", [given(X)])
            np.testing.assert_array_equal(result.as_numpy("x_doubled"), 2 * X)
        async with aio_client(url) as client:
            assert (await failure(client.is_server_live()))[0] == "StatusCode.UNAVAILABLE"

    serve(scenario, tls_certificate=path, tls_key=key)


def test_what_cannot_be_listened_on(tmp_path):
    async def start(host, port, **options):
        await RpcListener(make_handler(FakeServer()), host, port, **options).start()

    with pytest.raises(OptionError, match="both of them"):
        asyncio.run(start(HOST, 0, tls_key=tmp_path))
    with pytest.raises(OptionError, match="PEM file that can be read"):
        asyncio.run(start(HOST, 0, tls_key=tmp_path / "a", tls_certificate=tmp_path / "b"))
    with pytest.raises(OptionError, match=r"192\.0\.2\.1"):
        asyncio.run(start("192.0.2.1", 0))


def test_listeners_share_a_port():
    async def run():
        fakes = [FakeServer(), FakeServer()]
        async with RpcListener(make_handler(fakes[0]), HOST, 0) as first:
            async with RpcListener(make_handler(fakes[1]), HOST, first.port) as second:
                assert first.port == second.port
            async with aio_client(f"{HOST}:{first.port}") as client:
                await client.infer("double", [given(X)])

    asyncio.run(run())
