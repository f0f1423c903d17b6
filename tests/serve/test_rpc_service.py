"""The protocol over gRPC as other people's clients speak it, unchanged."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from contextlib import suppress
from pathlib import Path

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.serve.fake_server import PRIVATE
from tests.serve.rpc_tools import X, aio_client, double_of, failure, given, serve, until

KSERVE_PROGRAM = Path(__file__).with_name("kserve_program.py")

ARRAYS = [
    np.array([[True, False, True]]),
    *(np.array([[1, 2, 50]], dtype) for dtype in "bhiqBHIQ"),
    *(np.array([[1, -0.5, 3.25]], dtype) for dtype in "efd"),
    np.array([[1, -0.5, 3.25]], ml_dtypes.bfloat16),
    np.array([[b"one", "zwölf".encode(), b""]], object),
]


def test_the_blocking_client():
    def ask(url):
        with triton.InferenceServerClient(url) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("double")
            assert client.is_model_ready("double", "1")
            assert not client.is_model_ready("unready")
            server = client.get_server_metadata()
            assert (server.name, server.version) == ("atriva", "1.2.3")
            assert list(server.extensions) == ["classification", "statistics"]
            for array in ARRAYS:
                for compression in (None, "gzip"):
                    result = client.infer(
                        "double", [given(array)], request_id="7", compression_algorithm=compression
                    )
                    np.testing.assert_array_equal(result.as_numpy("x_doubled"), double_of(array))
                    assert result.get_response().id == "7"
                    assert result.get_response().model_version == "2"

    async def scenario(fake, url):
        await asyncio.to_thread(ask, url)

    serve(scenario)


def test_the_asyncio_client():
    async def scenario(fake, url):
        async with aio_client(url) as client:
            for array in ARRAYS:
                result = await client.infer("double", [given(array)], model_version="1")
                np.testing.assert_array_equal(result.as_numpy("x_doubled"), double_of(array))
            fake.is_up = False
            assert not await client.is_server_ready()

    serve(scenario)


def test_a_request_of_several_inputs_with_all_it_may_say():
    async def scenario(fake, url):
        inputs = [given(array, f"x{index}") for index, array in enumerate(ARRAYS)]
        outputs = [triton.InferRequestedOutput(f"x{index}_doubled") for index in (5, 1)]
        async with aio_client(url) as client:
            result = await client.infer(
                "double",
                inputs,
                outputs=outputs,
                priority=3,
                timeout=1_500_000,
                parameters={"who": "me", "often": 3, "exact": False},
            )
        response = result.get_response()
        assert [output.name for output in response.outputs] == ["x5_doubled", "x1_doubled"]
        np.testing.assert_array_equal(result.as_numpy("x1_doubled"), double_of(ARRAYS[1]))
        (request,) = fake.requests
        assert (request.priority, request.timeout_s) == (3, 1.5)
        assert request.parameters == {"who": "me", "often": 3, "exact": False}

    serve(scenario)


def test_classification():
    async def scenario(fake, url):
        outputs = [triton.InferRequestedOutput("x_doubled", class_count=2)]
        async with aio_client(url) as client:
            result = await client.infer("double", [given(X)], outputs=outputs)
        assert result.as_numpy("x_doubled").tolist() == [[b"8.0:1:dog", b"4.0:2"]]

    serve(scenario)


def test_typed_contents_are_answered_with_typed_contents():
    async def scenario(fake, url):
        async with grpc.aio.insecure_channel(url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            request = pb.ModelInferRequest(model_name="double")
            request.inputs.add(name="x", datatype="INT8", shape=[2]).contents.int_contents[:] = [
                1,
                -2,
            ]
            response = await stub.ModelInfer(request)
        assert list(response.outputs[0].contents.int_contents) == [2, -4]
        assert not response.raw_output_contents

    serve(scenario)


def test_a_picture_of_600_kb_and_more():
    async def scenario(fake, url):
        async with aio_client(url) as client:
            for size in (224, 1500):
                picture = np.random.default_rng(0).random((1, 3, size, size), np.float32)
                result = await client.infer("double", [given(picture)])
                np.testing.assert_array_equal(result.as_numpy("x_doubled"), 2 * picture)

    serve(scenario)


def test_descriptions_of_a_model():
    async def scenario(fake, url):
        async with aio_client(url) as client:
            metadata = await client.get_model_metadata("double", as_json=True)
            config = (await client.get_model_config("double", as_json=True))["config"]
            one = await client.get_inference_statistics("double", as_json=True)
            every = await client.get_inference_statistics()
        assert metadata == {
            "name": "double",
            "versions": ["1", "2"],
            "platform": "openvino_ir",
            "inputs": [
                {"name": "image", "datatype": "FP32", "shape": ["-1", "3", "4", "5"]},
                {"name": "text", "datatype": "BYTES", "shape": ["-1", "1"]},
                {"name": "anything", "datatype": "INT64", "shape": ["-1"]},
            ],
            "outputs": [{"name": "scores", "datatype": "FP16", "shape": ["-1", "10"]}],
        }
        assert config["max_batch_size"] == 8
        assert config["backend"] == "openvino"
        assert config["platform"] == "openvino_ir"
        assert config["version_policy"] == {"specific": {"versions": ["1", "2"]}}
        assert config["input"][:2] == [
            {
                "name": "image",
                "data_type": "TYPE_FP32",
                "format": "FORMAT_NCHW",
                "dims": ["3", "4", "5"],
            },
            {"name": "text", "data_type": "TYPE_STRING", "dims": ["1"]},
        ]
        assert config["output"] == [{"name": "scores", "data_type": "TYPE_FP16", "dims": ["10"]}]
        assert config["instance_group"] == [
            {"name": "CPU", "kind": "KIND_CPU", "count": 2},
            {"name": "NPU", "kind": "KIND_MODEL", "count": 1},
        ]
        assert config["parameters"] == {"device": {"string_value": "CPU"}}
        (statistics,) = one["model_stats"]
        assert statistics["inference_count"] == "12"
        assert statistics["last_inference"] == "1700000000000"
        assert statistics["inference_stats"] == {
            "success": {"count": "3", "ns": "30"},
            "fail": {"count": "1", "ns": "5"},
            "queue": {"count": "3", "ns": "6"},
            "compute_infer": {"count": "3", "ns": "24"},
        }
        assert [each.name for each in every.model_stats] == list(fake.names)

    serve(scenario)


def test_the_repository():
    async def scenario(fake, url):
        async with aio_client(url) as client:
            index = await client.get_model_repository_index(as_json=True)
            assert index["models"] == [
                {"name": "double", "version": "2", "state": "READY"},
                {
                    "name": "unready",
                    "version": "1",
                    "state": "LOADING",
                    "reason": "it is large",
                },
            ]
            await client.load_model("double", config="{}", files={"file:1/model.onnx": b"\0\1"})
            await client.unload_model("double")
            status, message = await failure(client.load_model("nothing"))
        assert fake.calls[:2] == [
            ("load", "double", {"config": "{}", "file:1/model.onnx": b"\0\1"}),
            ("unload", "double", {"unload_dependents": False}),
        ]
        assert status == "StatusCode.INVALID_ARGUMENT"
        assert "no such folder" in message

        async with grpc.aio.insecure_channel(url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            ready = await stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
            assert [each.name for each in ready.models] == ["double"]
            for call, code in [
                (
                    stub.RepositoryIndex(pb.RepositoryIndexRequest(repository_name="r")),
                    grpc.StatusCode.UNIMPLEMENTED,
                ),
                (
                    stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest()),
                    grpc.StatusCode.INVALID_ARGUMENT,
                ),
            ]:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == code

    serve(scenario)


@pytest.mark.parametrize(
    ("model", "version", "status", "text"),
    [
        ("nothing", "", "NOT_FOUND", "there is no model 'nothing' here"),
        ("double", "9", "NOT_FOUND", "has no version '9'"),
        ("full", "", "RESOURCE_EXHAUSTED", "try again in 2.5 s"),
        ("unready", "", "UNAVAILABLE", "is LOADING"),
        ("bad", "", "INVALID_ARGUMENT", "the input is not good"),
        ("broken", "", "INTERNAL", "something unexpected"),
        ("lost", "", "INTERNAL", "something unexpected"),
    ],
)
def test_errors(model, version, status, text, caplog):
    async def scenario(fake, url):
        async with aio_client(url) as client:
            call = client.infer(model, [given(X)], model_version=version)
            told, message = await failure(call)
            assert told == f"StatusCode.{status}"
            assert text in message
            assert PRIVATE not in message
            # Whatever happened, the next request is answered.
            await client.infer("double", [given(X)])
            if status == "INTERNAL":
                (record,) = [each for each in caplog.records if each.exc_info]
                assert message.rpartition(" ")[2] in record.getMessage()

    with caplog.at_level(logging.ERROR, "atriva_ray"):
        serve(scenario)


def test_when_to_try_again():
    async def scenario(fake, url):
        async with grpc.aio.insecure_channel(url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(pb.ModelInferRequest(model_name="full"))
            trailers = dict(caught.value.trailing_metadata())
            assert trailers["retry-after"] == "3"
            assert trailers["grpc-retry-pushback-ms"] == "2500"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(pb.ModelInferRequest(model_name="nothing"))
            assert "retry-after" not in dict(caught.value.trailing_metadata())

    serve(scenario)


def test_what_this_server_does_not_have():
    async def scenario(fake, url):
        async with aio_client(url) as client:
            for call in (
                client.get_system_shared_memory_status(),
                client.get_cuda_shared_memory_status(),
                client.get_trace_settings(),
                client.get_log_settings(),
            ):
                assert (await failure(call))[0] == "StatusCode.UNIMPLEMENTED"
            shared = triton.InferInput("x", [1, 3], "FP32").set_shared_memory("region", 12)
            status, message = await failure(client.infer("double", [shared]))
            assert status == "StatusCode.UNIMPLEMENTED"
            assert "shared memory" in message

    serve(scenario)


def test_what_is_no_message():
    async def scenario(fake, url):
        async with grpc.aio.insecure_channel(url) as channel:
            for method in ("ModelInfer", "ModelReady", "RepositoryIndex"):
                call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(b"\xff\xff\xff")
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
                assert "inference.proto" in caught.value.details()

    serve(scenario)


def test_the_deadline_of_the_call_is_that_of_the_request():
    async def scenario(fake, url):
        async with aio_client(url) as client:
            began = time.monotonic()
            status, _ = await failure(
                client.infer("slow", [given(X)], timeout=60_000_000, client_timeout=3)
            )
            assert status == "StatusCode.DEADLINE_EXCEEDED"
            assert 2.9 < time.monotonic() - began < 30
            (request,) = fake.requests
            assert 0 < request.timeout_s < 3.2  # it travels rounded up
            await until(lambda: fake.cancelled == 1)

            fake.release.set()
            await client.infer("slow", [given(X)], timeout=250_000, client_timeout=30)
            assert fake.requests[-1].timeout_s == 0.25
            await client.infer("slow", [given(X)])
            assert fake.requests[-1].timeout_s is None

    serve(scenario)


def test_a_client_that_cancels():
    async def scenario(fake, url):
        async with aio_client(url) as client:
            call = asyncio.create_task(client.infer("slow", [given(X)]))
            await until(lambda: fake.running == 1)
            call.cancel()
            with suppress(asyncio.CancelledError):
                await call
            await until(lambda: fake.cancelled == 1)
            assert fake.running == 0
            await client.infer("double", [given(X)])

    serve(scenario)


def test_a_client_that_is_gone():
    async def scenario(fake, url):
        channel = grpc.aio.insecure_channel(url)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = asyncio.ensure_future(stub.ModelInfer(pb.ModelInferRequest(model_name="slow")))
        await until(lambda: fake.running == 1)
        await channel.close(None)
        await until(lambda: fake.cancelled == 1)
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await call

    serve(scenario)


def test_the_client_of_kserve():
    """In a process of its own: its messages and Triton's have the same names."""

    async def scenario(fake, url):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(KSERVE_PROGRAM), url, stdout=-1, stderr=-1
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        told = json.loads(out.splitlines()[-1])
        assert told["errors"] == ["NOT_FOUND", "INVALID_ARGUMENT"]
        assert fake.calls == [("load", "double", {}), ("unload", "double", {})]

    serve(scenario)
