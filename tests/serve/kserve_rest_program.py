"""Speaks to a server over HTTP with KServe's own client; the address is the argument."""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

DTYPES = {
    "BOOL": bool,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


async def infer(client, url, array, datatype, *, is_binary, wants_binary):
    tensor = InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=is_binary)
    request = InferRequest(
        "double",
        [tensor],
        request_id="7",
        parameters={"who": "me"},
        request_outputs=[RequestedOutput("x_doubled", {"binary_data": wants_binary})],
    )
    response = await client.infer(url, request, model_name="double")
    assert (response.id, response.model_name) == ("7", "double")
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == (
        "x_doubled",
        datatype,
        list(array.shape),
    )
    return output.as_numpy()


async def check_datatypes(client, url):
    for is_binary in (True, False):
        for wants_binary in (True, False):
            ways = {"is_binary": is_binary, "wants_binary": wants_binary}
            for datatype, dtype in DTYPES.items():
                if datatype == "FP16" and not (is_binary and wants_binary):
                    continue
                array = np.array([[0, 1, 50]], dtype)
                got = await infer(client, url, array, datatype, **ways)
                np.testing.assert_array_equal(got, array if dtype is bool else 2 * array)
                assert got.dtype == dtype
            text = np.array([b"one", "zwölf".encode()], object)
            got = await infer(client, url, text, "BYTES", **ways)
            assert [each if isinstance(each, bytes) else each.encode() for each in got] == [
                2 * each for each in text
            ]


async def status_of(call):
    try:
        await call
    except httpx.HTTPStatusError as error:
        return error.response.status_code, str(error)
    return 200, ""


async def main(url):
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=20)) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "double")
        assert not await client.is_model_ready(url, "unready")
        assert not await client.is_model_ready(url, "nothing")
        await check_datatypes(client, url)
        plain = {"inputs": [{"name": "x", "shape": [1], "datatype": "INT32", "data": [4]}]}
        response = await client.infer(url, plain, model_name="double")
        assert response.outputs[0].data == [8]
        errors = [
            await status_of(client.infer(url, {"inputs": []}, model_name="nothing")),
            await status_of(client.infer(url, {}, model_name="double")),
            await status_of(client.infer(url, plain, model_name="full")),
        ]
    print(json.dumps({"errors": errors}))


asyncio.run(main(sys.argv[1]))
