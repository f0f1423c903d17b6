"""A listener on a port of its own, and clients of it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from atriva_ray.serve.rpc.listener import RpcListener
from atriva_ray.serve.rpc.service import make_handler
from tests.serve.fake_server import FakeServer

HOST = "127.0.0.1"


def serve(scenario, *, stream_limit=64, **options):
    """Run a scenario against a listener on a port of its own; see that nothing runs afterwards."""

    async def run():
        fake = FakeServer()
        handler = make_handler(fake, stream_limit)
        async with RpcListener(handler, HOST, 0, **options) as listener:
            await asyncio.wait_for(scenario(fake, f"{HOST}:{listener.port}"), 30)
        assert fake.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it looks at what knows of no event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def aio_client(url, **options):
    client = triton_aio.InferenceServerClient(url, **options)
    try:
        yield client
    finally:
        await client.close()


def given(array, name="x"):
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array)


def double_of(array):
    if array.dtype == object:
        return np.array([2 * each for each in array.ravel()], object).reshape(array.shape)
    return array if array.dtype == bool else array + array


X = np.array([[1.0, 4.0, 2.0]], np.float32)


async def failure(call):
    with pytest.raises(InferenceServerException) as caught:
        await call
    return caught.value.status(), caught.value.message()
