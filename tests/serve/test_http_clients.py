"""The protocol over HTTP as other people's clients speak it, unchanged."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import gevent
import ml_dtypes
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.serve.http_tools import HOST, INFER, request, serving

KSERVE_PROGRAM = Path(__file__).with_name("kserve_rest_program.py")
CURL = shutil.which("curl")

NUMBERS = [
    np.array([[True, False, True]]),
    *(np.array([[1, 2, 50]], dtype) for dtype in "bhiqBHIQ"),
    *(np.array([[1, -0.5, 3.25]], dtype) for dtype in "fd"),
]
TEXTS = np.array([b"one", "zwölf".encode(), b""], object)
ARRAYS = [
    *NUMBERS,
    np.array([[1, -0.5, 3.25]], np.float16),
    np.array([[1, -0.5, 3.25]], ml_dtypes.bfloat16),
    TEXTS,
]
X = np.array([[1.0, 4.0, 2.0]], np.float32)


@pytest.fixture(scope="module")
def running():
    with serving() as served:
        yield served


@pytest.fixture
def served(running):
    return running.renewed()


def given(array, name="x", *, is_binary=True):
    tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return tensor.set_data_from_numpy(array, binary_data=is_binary)


def double_of(array):
    if array.dtype == object:
        return np.array([2 * each for each in array.ravel()], object).reshape(array.shape)
    return array if array.dtype == bool else array + array


def failure(call, *arguments, **options):
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status(), caught.value.message()


def curl(*arguments):
    done = subprocess.run([CURL, "-sS", *arguments], capture_output=True, timeout=30, check=True)
    return done.stdout.decode()


def test_what_the_blocking_client_asks_about(served):
    with triton.InferenceServerClient(served.url) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("double")
        assert client.is_model_ready("double", "1")
        assert not client.is_model_ready("unready")
        assert not client.is_model_ready("nothing")
        server = client.get_server_metadata()
        assert (server["name"], server["version"]) == ("atriva", "1.2.3")
        for version in ("", "2"):
            metadata = client.get_model_metadata("double", version)
            assert metadata["inputs"][0] == {
                "name": "image",
                "datatype": "FP32",
                "shape": [-1, 3, 4, 5],
            }
            assert client.get_model_config("double", version)["max_batch_size"] == 8
            (one,) = client.get_inference_statistics("double", version)["model_stats"]
            assert one["inference_stats"]["success"] == {"count": 3, "ns": 30}
        every = client.get_inference_statistics()["model_stats"]
        assert [each["name"] for each in every] == list(served.fake.names)
        served.fake.is_up = False
        assert not client.is_server_ready()


def test_the_blocking_client_and_the_repository(served):
    with triton.InferenceServerClient(served.url) as client:
        assert [each["name"] for each in client.get_model_repository_index()] == [
            "double",
            "unready",
        ]
        client.load_model("double", config="{}", files={"file:1/model.onnx": b"\0\1"})
        client.unload_model("double")
        assert served.fake.calls == [
            ("load", "double", {"config": "{}", "file:1/model.onnx": b"\0\1"}),
            ("unload", "double", {"unload_dependents": False}),
        ]
        status, message = failure(client.load_model, "nothing")
        assert status == "400"
        assert "no such folder" in message


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_the_blocking_client_infers(served, compression):
    with triton.InferenceServerClient(served.url) as client:
        for array in ARRAYS:
            result = client.infer(
                "double",
                [given(array)],
                request_id="7",
                request_compression_algorithm=compression,
                response_compression_algorithm=compression,
            )
            np.testing.assert_array_equal(result.as_numpy("x_doubled"), double_of(array))
            assert result.get_response()["id"] == "7"
            assert result.get_response()["model_version"] == "2"
        for array in (*NUMBERS, TEXTS):
            result = client.infer(
                "double",
                [given(array, is_binary=False)],
                model_version="1",
                outputs=[triton.InferRequestedOutput("x_doubled", binary_data=False)],
                request_compression_algorithm=compression,
            )
            got = result.as_numpy("x_doubled")
            if array.dtype == object:
                got = np.array([each.encode() for each in got], object)
            np.testing.assert_array_equal(got, double_of(array))


def test_a_request_of_several_inputs_with_all_it_may_say(served):
    with triton.InferenceServerClient(served.url) as client:
        inputs = [given(array, f"x{index}") for index, array in enumerate(ARRAYS)]
        outputs = [triton.InferRequestedOutput(f"x{index}_doubled") for index in (5, 1)]
        result = client.infer(
            "double",
            inputs,
            outputs=outputs,
            priority=3,
            timeout=1_500_000,
            parameters={"who": "me", "often": 3, "exact": False},
        )
        names = [output["name"] for output in result.get_response()["outputs"]]
        assert names == ["x5_doubled", "x1_doubled"]
        np.testing.assert_array_equal(result.as_numpy("x1_doubled"), double_of(ARRAYS[1]))
        (asked,) = served.fake.requests
        assert (asked.priority, asked.timeout_s) == (3, 1.5)
        assert asked.parameters == {"who": "me", "often": 3, "exact": False}


def test_the_blocking_client_classifies(served):
    with triton.InferenceServerClient(served.url) as client:
        outputs = [triton.InferRequestedOutput("x_doubled", class_count=2)]
        result = client.infer("double", [given(X)], outputs=outputs)
        assert result.as_numpy("x_doubled").tolist() == [[b"8.0:1:dog", b"4.0:2"]]


def test_what_the_blocking_client_is_told(served):
    with triton.InferenceServerClient(served.url) as client:
        for model, status, text in [
            ("nothing", "404", "there is no model 'nothing' here"),
            ("bad", "400", "the input is not good"),
            ("full", "503", "try again in 2.5 s"),
            ("late", "504", "it was given up"),
            ("broken", "500", "could not be answered"),
            ("lost", "500", "could not be answered"),
        ]:
            told, message = failure(client.infer, model, [given(X)])
            assert told == status
            assert text in message
        for call in (
            client.get_system_shared_memory_status,
            client.get_cuda_shared_memory_status,
            client.get_trace_settings,
            client.get_log_settings,
        ):
            assert failure(call)[0] == "501"
        assert failure(client.get_trace_settings, "double")[0] == "501"
        assert failure(client.register_system_shared_memory, "a", "/a", 8)[0] == "501"
        shared = triton.InferInput("x", [1, 3], "FP32").set_shared_memory("region", 12)
        status, message = failure(client.infer, "double", [shared])
        assert status == "501"
        assert "shared memory" in message


def test_many_requests_at_once(served):
    with triton.InferenceServerClient(served.url, concurrency=4) as client:
        asked = [client.async_infer("slow", [given(X + each)]) for each in range(12)]
        with gevent.Timeout(10):
            while served.fake.running < 4:
                gevent.sleep(0.002)
        assert served.fake.running == 4
        served.release()
        for each, handle in enumerate(asked):
            result = handle.get_result(timeout=10)
            np.testing.assert_array_equal(result.as_numpy("x_doubled"), 2 * (X + each))
        assert served.fake.most_running == 4


def test_the_asyncio_client(served):
    async def ask(served):
        async with triton_aio.InferenceServerClient(served.url) as client:
            assert await client.is_server_live()
            assert not await client.is_model_ready("unready")
            for array in ARRAYS:
                for compression in (None, "gzip", "deflate"):
                    result = await client.infer(
                        "double",
                        [given(array)],
                        model_version="1",
                        request_compression_algorithm=compression,
                    )
                    np.testing.assert_array_equal(result.as_numpy("x_doubled"), double_of(array))
            results = await asyncio.gather(
                *(client.infer("double", [given(X + each)]) for each in range(50))
            )
            for each, result in enumerate(results):
                np.testing.assert_array_equal(result.as_numpy("x_doubled"), 2 * (X + each))
            with pytest.raises(InferenceServerException) as caught:
                await client.infer("full", [given(X)])
            assert caught.value.status() == "503"

            call = asyncio.create_task(client.infer("slow", [given(X)]))
            async with asyncio.timeout(10):
                while served.fake.running != 1:  # noqa: ASYNC110 - of another loop
                    await asyncio.sleep(0.002)
                call.cancel()
                with suppress(asyncio.CancelledError):
                    await call
                while served.fake.cancelled != 1:  # noqa: ASYNC110 - as above
                    await asyncio.sleep(0.002)

    asyncio.run(ask(served))


def test_pictures_of_600_kb_and_more(served):
    with triton.InferenceServerClient(served.url) as client:
        for size in (224, 1500):
            picture = np.random.default_rng(0).random((1, 3, size, size), np.float32)
            result = client.infer("double", [given(picture)])
            np.testing.assert_array_equal(result.as_numpy("x_doubled"), 2 * picture)


def test_the_client_of_kserve(served):
    """In a process of its own: its messages and Triton's have the same names."""
    done = subprocess.run(
        [sys.executable, str(KSERVE_PROGRAM), f"http://{served.url}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout.splitlines()[-1])["errors"]
    assert [status for status, _ in told] == [404, 400, 503]
    assert "there is no model 'nothing' here" in told[0][1]
    assert "'inputs' is missing" in told[1][1]
    assert served.fake.requests[0].parameters == {"who": "me"}


@pytest.mark.skipif(CURL is None, reason="there is no curl")
def test_curl(served, tmp_path):
    url = f"http://{HOST}:{served.port}"
    body = json.dumps(request())
    for options in (
        ["-d", body],
        ["-d", body, "--http1.0"],
        ["-d", body, "-H", "Transfer-Encoding: chunked"],
        ["-d", body, "-H", "Expect: 100-continue"],
        ["-d", body, "-H", "Connection: Upgrade", "-H", "Upgrade: h2c"],
        ["-d", body, "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"],
    ):
        answer = json.loads(curl(*options, url + INFER))
        assert answer["outputs"][0]["data"] == [2, 4]
    large = tmp_path / "request.json"
    elements = list(range(200_000))
    large.write_text(
        json.dumps(
            {"inputs": [{"name": "x", "shape": [200_000], "datatype": "INT64", "data": elements}]}
        )
    )
    answer = json.loads(curl("--data-binary", f"@{large}", url + INFER))
    assert answer["outputs"][0]["data"][-1] == 399_998
    assert curl("-I", f"{url}/v2/health/live").startswith("HTTP/1.1 200 OK")
