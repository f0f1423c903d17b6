"""Messages over gRPC that nobody would write, on a channel that is kept.

`ATRIVA_FUZZ_COUNT=100000` sends more of them.
"""

from __future__ import annotations

import asyncio
import collections
import os
import random
from contextlib import suppress

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2 as pb

from atriva_ray.serve.rpc.listener import RpcListener
from atriva_ray.serve.rpc.service import SERVICE, make_handler
from tests.serve.blurring import blurred
from tests.serve.fake_server import FakeServer
from tests.serve.rpc_tools import HOST, X, aio_client, given

COUNT = int(os.environ.get("ATRIVA_FUZZ_COUNT", "10000"))
ALLOWED = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"}
AT_ONCE = 8
ON_ONE_STREAM = 500
MAX_MESSAGE_BYTES = 20_000
MAX_DETAILS_BYTES = 2048 + len("…".encode())
MIB = 1 << 20

VARINT, LENGTH = 0, 2


def varint(value):
    text = bytearray()
    while value > 0x7F:
        text.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*text, value])


NUMBERS = [
    *map(varint, (0, 1, 2, 3, 127, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1))
]
TEXTS = [
    *(b"BYTES", b"BOOL", b"FP16", b"BF16", b"FP32", b"FP64", b"INT8", b"UINT16", b"INT64", b"TYPE"),
    *(b"double", b"slower", b"1", b"2", b"9", b"", b"x", b"y", b"x_doubled", b"b_doubled", b"\0"),
    *(b"classification", b"timeout", b"priority", b"triton_enable_empty_final_response"),
    *(b"shared_memory_region", b"binary_data", "zwölf".encode(), b"\3\0\0\0one", bytes(12)),
]
SNIPPETS = [
    *NUMBERS,
    *TEXTS,
    *(b"\xff" * 10, b"\xff" * 11, b"\x80" * 9 + b"\0", b"\x80", b"\0" * 8, b"\xff\xff\xff\xff"),
    *(b"\0\0\xc0\x7f", b"\0\0\xf0\x7f\0\0\xf8\x7f", b"\xed\xa0\x80", b"\xc0\x80", b"\xff\xfe"),
    *(b"\x0b" * 200, b"\x0b\x0c", b"\x0c", b"\x2a\0" * 500, b"\x3a\0" * 500, b"\1" * 3000),
    *(varint(2**40) + b"\0", "ü".encode() * 3000),
    bytes(MAX_MESSAGE_BYTES),
]


def tensor(name="x", datatype="FP32", shape=(1, 3), **contents):
    given_contents = pb.InferTensorContents(**contents)
    inputs = pb.ModelInferRequest.InferInputTensor
    if not contents:
        return inputs(name=name, datatype=datatype, shape=shape)
    return inputs(name=name, datatype=datatype, shape=shape, contents=given_contents)


def inference(*tensors, raw=(), outputs=(), **fields):
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor
    message = pb.ModelInferRequest(
        model_name="double",
        inputs=tensors,
        raw_input_contents=raw,
        outputs=[wanted(name=name) for name in outputs],
        **fields,
    )
    for output in message.outputs:
        output.parameters["classification"].int64_param = 2
    return message


def with_parameters(message):
    message.parameters["timeout"].int64_param = 60_000_000
    message.parameters["priority"].uint64_param = 3
    message.parameters["exact"].bool_param = False
    message.parameters["who"].string_param = "zwölf"
    message.parameters["much"].double_param = 1.5
    message.inputs[0].parameters["binary_data_size"].int64_param = 12
    return message


def load():
    message = pb.RepositoryModelLoadRequest(model_name="double")
    message.parameters["config"].string_param = "{}"
    message.parameters["file:1/model.onnx"].bytes_param = b"\0\1"
    return message


INFERENCES = [
    each.SerializeToString()
    for each in (
        inference(tensor(), raw=[bytes(12)]),
        inference(tensor(fp32_contents=[1, -0.5, 3.25]), id="7", model_version="2"),
        inference(tensor(), raw=[bytes(12)], outputs=["x_doubled"]),
        inference(tensor(datatype="INT8", shape=[2], int_contents=[1, -2])),
        inference(
            tensor("a", "UINT16", [3], uint_contents=[1, 2, 3]),
            tensor("b", "INT64", [2, 1], int64_contents=[-(2**62), 5]),
            tensor("c", "UINT64", [1], uint64_contents=[2**62]),
            tensor("d", "FP64", [2], fp64_contents=[0.5, -1e300]),
            tensor("e", "BOOL", [2], bool_contents=[True, False]),
            tensor("f", "BYTES", [2], bytes_contents=[b"one", "zwölf".encode()]),
            outputs=["b_doubled", "a_doubled"],
        ),
        inference(
            tensor("a", "BYTES", [2]),
            tensor("b", "FP16", [3]),
            tensor("c", "BF16", [1, 1]),
            tensor("d", "BOOL", [4]),
            raw=[b"\3\0\0\0one\0\0\0\0", bytes(6), bytes(2), b"\0\1\1\0"],
            outputs=["b_doubled", "c_doubled"],
        ),
        with_parameters(inference(tensor(), raw=[bytes(12)])),
        inference(tensor(shape=[2**40, 0]), raw=[b""], outputs=["x_doubled"]),
        pb.ModelInferRequest(model_name="nothing"),
    )
]
OTHERS = [
    (method, message.SerializeToString())
    for method, message in (
        ("ServerLive", pb.ServerLiveRequest()),
        ("ServerReady", pb.ServerReadyRequest()),
        ("ServerMetadata", pb.ServerMetadataRequest()),
        ("ModelReady", pb.ModelReadyRequest(name="double", version="2")),
        ("ModelMetadata", pb.ModelMetadataRequest(name="double", version="1")),
        ("ModelConfig", pb.ModelConfigRequest(name="double")),
        ("ModelStatistics", pb.ModelStatisticsRequest(name="double", version="1")),
        ("RepositoryIndex", pb.RepositoryIndexRequest(ready=True)),
        ("RepositoryModelLoad", load()),
        ("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="double")),
    )
]
RIGHT = [*INFERENCES, *(message for _, message in OTHERS if message)]


def read_varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7


def fields_of(data):
    """Return the fields that a message consists of: number, wire type, content; None if it is none.

    The length of a content is not part of it.
    """
    found = []
    at = 0
    try:
        while at < len(data):
            tag, at = read_varint(data, at)
            match tag & 7:
                case 0:
                    _, end = read_varint(data, at)
                case 1:
                    end = at + 8
                case 2:
                    size, at = read_varint(data, at)
                    end = at + size
                case 5:
                    end = at + 4
                case _:
                    return None
            if end > len(data):
                return None
            found.append((tag >> 3, tag & 7, data[at:end]))
            at = end
    except IndexError:
        return None
    return found


def field(number, wire_type, content, size_bytes=None):
    length = varint(len(content) if size_bytes is None else size_bytes)
    return varint(number << 3 | wire_type) + (length if wire_type == LENGTH else b"") + content


def reworked(chance, message):
    """Return a message of which one field is wrong; lengths of what is around it are right."""
    fields = fields_of(message)
    if not fields:
        return blurred(chance, message, RIGHT, SNIPPETS)
    index = chance.randrange(len(fields))
    number, wire_type, content = fields[index]
    parts = [field(*each) for each in fields]
    match chance.randrange(14):
        case 0:
            other = chance.choice([0, number + 1, chance.randrange(12), 2**29 - 1])
            parts[index] = field(other, wire_type, content)
        case 1:
            parts[index] = field(number, chance.randrange(8), content)
        case 2:
            size_bytes = chance.choice([0, len(content) + 1, 2**31, 2**63, chance.randrange(40)])
            parts[index] = field(number, LENGTH, content, size_bytes)
        case 3:
            del parts[index]
        case 4:
            parts.insert(chance.randrange(len(parts) + 1), parts[index])
        case 5:
            parts[index] = field(number, wire_type, chance.choice(SNIPPETS))
        case 6:
            others = fields_of(chance.choice(RIGHT))
            parts[index] = field(*chance.choice(others))
        case _:
            parts[index] = field(number, wire_type, other_content(chance, wire_type, content))
    return b"".join(parts)


def other_content(chance, wire_type, content):
    if wire_type == VARINT:
        return chance.choice(NUMBERS)
    if wire_type == LENGTH and fields_of(content):
        return reworked(chance, content)
    return (
        chance.choice(TEXTS) if chance.randrange(2) else blurred(chance, content, RIGHT, SNIPPETS)
    )


def wrong(chance, message):
    for _ in range(chance.choice([1, 1, 2, 3])):
        if chance.randrange(5):
            message = reworked(chance, message)
        else:
            message = blurred(chance, message, RIGHT, SNIPPETS)
    return message


def messages(chance, count):
    """Yield methods and what to send to them, mostly to the one that has most to read."""
    for _ in range(count):
        if chance.randrange(3):
            yield "ModelInfer", wrong(chance, chance.choice(INFERENCES))
        else:
            method, message = chance.choice(OTHERS)
            yield method, wrong(chance, message or chance.choice(RIGHT))


class Told:
    """What became of messages."""

    def __init__(self):
        self.statuses = collections.Counter()
        self._process = psutil.Process()
        self._begun_bytes = 0

    def note(self, status):
        self.statuses[status] += 1
        if self.statuses.total() == COUNT // 4:
            self._begun_bytes = self._process.memory_info().rss

    @property
    def grown_bytes(self):
        return self._process.memory_info().rss - self._begun_bytes


async def send_each(channel, to_send, told):
    calls = {
        method: channel.unary_unary(f"/{SERVICE}/{method}")
        for method in ("ModelInfer", *(method for method, _ in OTHERS))
    }
    for method, message in to_send:
        call = calls[method](message)
        with suppress(grpc.aio.AioRpcError):
            await call
        status, details = (await call.code()).name, await call.details()
        told.note(status)
        assert status in ALLOWED, (method, message, details)
        assert len(details.encode()) <= MAX_DETAILS_BYTES


async def send_on_a_stream(channel, to_send, told):
    """Send all on one stream, which goes on whatever was sent."""
    sent = list(to_send)
    call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter(sent))
    for message in sent:
        answer = pb.ModelStreamInferResponse.FromString(await call.read())
        told.note("failed on a stream" if answer.error_message else "OK on a stream")
        assert "unexpected" not in answer.error_message, (message, answer.error_message)
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.timeout(max(300, COUNT // 50))
def test_whatever_is_sent_gets_an_answer(record_property):
    chance = random.Random(0)  # noqa: S311 - the same messages in every run
    told = Told()

    async def run():
        fake = FakeServer()
        fake.requests, fake.calls = collections.deque(maxlen=4), collections.deque(maxlen=4)
        limit = {"max_message_bytes": MAX_MESSAGE_BYTES}
        async with RpcListener(make_handler(fake), HOST, 0, **limit) as listener:
            url = f"{HOST}:{listener.port}"
            async with grpc.aio.insecure_channel(url) as channel, asyncio.TaskGroup() as tasks:
                to_send = messages(chance, COUNT)
                for _ in range(AT_ONCE):
                    tasks.create_task(send_each(channel, to_send, told))
            async with grpc.aio.insecure_channel(url) as channel:
                for _ in range(COUNT // 10 // ON_ONE_STREAM):
                    small = (
                        message
                        for _ in range(ON_ONE_STREAM)
                        if len(message := wrong(chance, chance.choice(INFERENCES)))
                        <= MAX_MESSAGE_BYTES
                    )
                    await send_on_a_stream(channel, small, told)
            async with aio_client(url) as client:
                result = await client.infer("double", [given(X)])
                assert result.as_numpy("x_doubled").tolist() == (2 * X).tolist()
        assert fake.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    record_property("statuses", dict(told.statuses))
    record_property("grown_bytes", told.grown_bytes)
    assert told.grown_bytes < 48 * MIB
    # Every kind of answer was come by: what was sent was not all of one kind.
    assert {*ALLOWED, "OK on a stream", "failed on a stream"} == set(told.statuses), told.statuses
