"""Many requests on one stream."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from tests.serve.fake_server import PRIVATE
from tests.serve.rpc_tools import X, aio_client, given, serve, until


def test_a_blocking_stream():
    def ask(url):
        answers = []
        with triton.InferenceServerClient(url) as client:
            client.start_stream(lambda result, error: answers.append((result, error)))
            for index in range(50):
                client.async_stream_infer(
                    "nothing" if index == 20 else "double",
                    [given(X + index)],
                    request_id=str(index),
                )
            client.stop_stream()  # waits for the answers
        return answers

    async def scenario(fake, url):
        answers = await asyncio.to_thread(ask, url)
        assert len(answers) == 50
        for index, (result, error) in enumerate(answers):
            if index == 20:
                assert "there is no model 'nothing'" in error.message()
            else:
                assert error is None
                assert result.get_response().id == str(index)
                np.testing.assert_array_equal(result.as_numpy("x_doubled"), 2 * (X + index))

    serve(scenario)


def test_a_stream_answers_in_order_and_runs_at_once():
    async def scenario(fake, url):
        async with grpc.aio.insecure_channel(url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            names = ["slow", "double", "broken", "lost", "bad", "double"]

            async def requests():
                for index, name in enumerate(names):
                    yield pb.ModelInferRequest(model_name=name, id=str(index))

            call = stub.ModelStreamInfer(requests())
            await until(lambda: len(fake.requests) == len(names))
            fake.release.set()
            answers = [answer async for answer in call]
        assert [answer.infer_response.id for answer in answers] == list("012345")
        assert [bool(answer.error_message) for answer in answers] == [
            name in ("broken", "lost", "bad") for name in names
        ]
        assert not any(PRIVATE in answer.error_message for answer in answers)

    serve(scenario)


def test_a_stream_has_a_bounded_number_of_requests_under_way():
    async def scenario(fake, url):
        async with grpc.aio.insecure_channel(url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)

            async def requests():
                for index in range(20):
                    yield pb.ModelInferRequest(model_name="slow", id=str(index))

            call = stub.ModelStreamInfer(requests())
            await until(lambda: fake.running == 4)
            for _ in range(20):  # turns in which more could begin, if it were let
                await asyncio.sleep(0.002)
            assert fake.running == 4
            fake.release.set()
            assert len([answer async for answer in call]) == 20
        assert fake.most_running == 4

    serve(scenario, stream_limit=4)


def test_a_stream_that_is_cancelled():
    async def scenario(fake, url):
        async with grpc.aio.insecure_channel(url) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            call = stub.ModelStreamInfer()
            for _ in range(3):
                await call.write(pb.ModelInferRequest(model_name="slow"))
            await until(lambda: fake.running == 3)
            call.cancel()
            await until(lambda: fake.cancelled == 3)

    serve(scenario)


@pytest.mark.parametrize("ending", ["cancel", "close", "deadline"])
def test_a_client_that_goes_without_reading_is_nothing_to_complain_about(ending, caplog):
    async def scenario(fake, url):
        request = pb.ModelInferRequest(model_name="double", raw_input_contents=[bytes(200_000)])
        request.inputs.add(name="x", datatype="UINT8", shape=[200_000])
        channel = grpc.aio.insecure_channel(url)
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        call = stub.ModelStreamInfer(timeout=3 if ending == "deadline" else None)

        async def send():
            while True:  # until flow control, and then the end, holds it back
                await call.write(request)

        sending = asyncio.create_task(send())
        await until(lambda: len(fake.requests) > 10)
        if ending == "cancel":
            call.cancel()
        if ending == "close":
            await channel.close(None)
        with suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await sending
        await channel.close()
        async with aio_client(url) as client:
            await client.infer("double", [given(X)])

    serve(scenario)
    assert not [record.getMessage() for record in caplog.records]


def test_the_last_answer_is_marked_for_clients_that_ask():
    def ask(url):
        answers = []

        def take(result, error):
            assert error is None
            answers.append(result)

        with triton.InferenceServerClient(url) as client:
            client.start_stream(take)
            for is_marked in (True, False):
                client.async_stream_infer(
                    "double", [given(X)], enable_empty_final_response=is_marked
                )
            client.stop_stream()
        return answers

    async def scenario(fake, url):
        marked, plain = await asyncio.to_thread(ask, url)
        assert marked.get_response().parameters["triton_final_response"].bool_param
        np.testing.assert_array_equal(marked.as_numpy("x_doubled"), 2 * X)
        assert not plain.get_response().parameters

    serve(scenario)
