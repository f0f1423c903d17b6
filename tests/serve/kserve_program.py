"""Speaks to a server with KServe's own client; the address is the argument."""

from __future__ import annotations

import asyncio
import json
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc

NUMBERS = {
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


async def infer(client, array, datatype, *, is_binary):
    tensor = InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=is_binary)
    request = InferRequest("double", [tensor], request_id="7", parameters={"who": "me"})
    response = await client.infer(request)
    assert (response.id, response.model_name, response.model_version) == ("7", "double", "2")
    return response.outputs[0]


async def check_datatypes(client):
    for datatype, dtype in NUMBERS.items():
        array = np.array([[1, 2, 50]], dtype)
        for is_binary in {True, datatype == "FP16"}:
            output = await infer(client, array, datatype, is_binary=is_binary)
            assert (output.name, output.datatype, output.shape) == ("x_doubled", datatype, [1, 3])
            np.testing.assert_array_equal(output.as_numpy(), 2 * array)
            # KServe's own servers answer so, and some programs look at the list itself.
            assert is_binary or output.data == [2, 4, 100]
    for is_binary in (True, False):
        truth = await infer(client, np.array([True, False]), "BOOL", is_binary=is_binary)
        assert truth.as_numpy().tolist() == [True, False]
        text = np.array([b"one", "zwölf".encode()], object)
        output = await infer(client, text, "BYTES", is_binary=is_binary)
        assert output.as_numpy().tolist() == [2 * each for each in text]


async def code_of(call):
    try:
        await call
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


async def main(url):
    client = InferenceGRPCClient(url, timeout=20)
    async with client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("double")
        assert not await client.is_model_ready("unready")
        await check_datatypes(client)
        tensor = InferInput("x", [2], "FP32", data=[1.0, 2.0, 3.0])
        errors = [
            await code_of(client.infer(InferRequest("nothing", []))),
            await code_of(client.infer(InferRequest("double", [tensor]))),
        ]
    async with grpc.aio.insecure_channel(url) as channel:
        stub = grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel)
        loaded = await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="double"))
        assert (loaded.model_name, loaded.isLoaded) == ("double", True)
        request = pb.RepositoryModelUnloadRequest(model_name="double")
        unloaded = await stub.RepositoryModelUnload(request)
        assert (unloaded.model_name, unloaded.isUnloaded) == ("double", True)
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name="double"))
        assert [each.datatype for each in metadata.inputs] == ["FP32", "BYTES", "INT64"]
    print(json.dumps({"errors": errors}))


asyncio.run(main(sys.argv[1]))
