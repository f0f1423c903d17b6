"""The protocol over HTTP, address by address, as its specification and Triton's extensions say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from atriva_ray.serve.protocol.rest_request import HEADER_LENGTH
from tests.serve.fake_server import IMAGE, SCORES, TEXT
from tests.serve.http_tools import PNG, request, serving, tensor

DOUBLE = "/v2/models/double"
X2 = {"name": "x_doubled", "datatype": "INT32", "shape": [2]}


@pytest.fixture(scope="module")
def running():
    with serving() as served:
        yield served


@pytest.fixture
def served(running):
    return running.renewed()


def test_health(served):
    for path, told in [("live", {"live": True}), ("ready", {"ready": True})]:
        answer = served.get(f"/v2/health/{path}")
        assert (answer.status, answer.json) == (200, told)
    served.fake.is_up = False
    answer = served.get("/v2/health/ready")
    assert (answer.status, answer.json) == (503, {"ready": False})
    assert served.get("/v2/health/live").status == 200
    served.fake.is_alive = False
    answer = served.get("/v2/health/live")
    assert (answer.status, answer.json) == (503, {"live": False})


def test_who_answers(served):
    told = {"name": "atriva", "version": "1.2.3", "extensions": ["classification", "statistics"]}
    assert served.get("/v2").json == told
    assert served.get("/v2/").json == told


def test_whether_a_model_is_ready(served):
    for path in (f"{DOUBLE}/ready", f"{DOUBLE}/versions/1/ready"):
        answer = served.get(path)
        assert (answer.status, answer.json) == (200, {"name": "double", "ready": True})
    answer = served.get("/v2/models/unready/ready")
    assert (answer.status, answer.json) == (503, {"name": "unready", "ready": False})
    for path in ("/v2/models/nothing/ready", f"{DOUBLE}/versions/9/ready"):
        answer = served.get(path)
        assert answer.status == 404
        assert "double" in answer.error


def test_what_a_model_takes_and_gives(served):
    for path in (DOUBLE, f"{DOUBLE}/versions/2"):
        assert served.get(path).json == {
            "name": "double",
            "versions": ["1", "2"],
            "platform": "openvino_ir",
            "inputs": [
                {"name": "image", "datatype": "FP32", "shape": [-1, 3, 4, 5]},
                {"name": "text", "datatype": "BYTES", "shape": [-1, 1]},
                {"name": "anything", "datatype": "INT64", "shape": [-1]},
            ],
            "outputs": [{"name": "scores", "datatype": "FP16", "shape": [-1, 10]}],
        }
    assert "no version '9'" in served.get(f"{DOUBLE}/versions/9").error


def test_how_a_model_is_served(served):
    for path in (f"{DOUBLE}/config", f"{DOUBLE}/versions/1/config"):
        config = served.get(path).json
        assert (config["name"], config["max_batch_size"]) == ("double", 8)
        assert (config["platform"], config["backend"]) == ("openvino_ir", "openvino")
        assert config["version_policy"] == {"specific": {"versions": [1, 2]}}
        assert config["input"][0] == {
            "name": "image",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NCHW",
            "dims": [3, 4, 5],
        }
        assert config["output"] == [{"name": "scores", "data_type": "TYPE_FP16", "dims": [10]}]
        assert config["instance_group"] == [
            {"name": "CPU", "kind": "KIND_CPU", "count": 2},
            {"name": "NPU", "kind": "KIND_MODEL", "count": 1},
        ]
        assert config["parameters"] == {"device": {"string_value": "CPU"}}


def test_what_models_did(served):
    for path in (f"{DOUBLE}/stats", f"{DOUBLE}/versions/2/stats"):
        (one,) = served.get(path).json["model_stats"]
        assert (one["name"], one["version"]) == ("double", "2")
        assert (one["inference_count"], one["execution_count"]) == (12, 3)
        assert one["last_inference"] == 1_700_000_000_000
        assert one["inference_stats"]["success"] == {"count": 3, "ns": 30}
        assert one["inference_stats"]["fail"] == {"count": 1, "ns": 5}
        assert one["inference_stats"]["queue"] == {"count": 3, "ns": 6}
        assert one["inference_stats"]["compute_infer"] == {"count": 3, "ns": 24}
    every = served.get("/v2/models/stats").json["model_stats"]
    assert [each["name"] for each in every] == list(served.fake.names)
    assert served.get("/v2/models/nothing/stats").status == 404


def test_the_repository(served):
    ready = {"name": "double", "version": "2", "state": "READY"}
    loading = {"name": "unready", "version": "1", "state": "LOADING", "reason": "it is large"}
    for body in (b"", {}, {"ready": False}):
        assert served.post("/v2/repository/index", body).json == [ready, loading]
    assert served.post("/v2/repository/index", {"ready": True}).json == [ready]
    path = "/v2/repository/models/double"
    for verb, body in [
        ("load", b""),
        ("load", {"parameters": {"config": "{}", "file:1/model.onnx": "AAE="}}),
        ("unload", {"parameters": {"unload_dependents": False}}),
        ("unload", {"parameters": None}),
    ]:
        answer = served.post(f"{path}/{verb}", body)
        assert (answer.status, answer.body) == (200, b"")
    assert served.fake.calls == [
        ("load", "double", {}),
        ("load", "double", {"config": "{}", "file:1/model.onnx": b"\0\1"}),
        ("unload", "double", {"unload_dependents": False}),
        ("unload", "double", {}),
    ]
    assert "no such folder" in served.post("/v2/repository/models/nothing/load").error
    assert served.post("/v2/repository/models/nothing/unload").status == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("index", b"{"),
        ("index", b"\xff\xfe"),
        ("index", b"[]"),
        ("index", b'{"ready": 1}'),
        ("index", b"[" * 100_000),
        ("models/double/load", b'{"parameters": []}'),
        ("models/double/load", b'{"parameters": {"config": {}}}'),
        ("models/double/load", b'{"parameters": {"file:a": "not base64"}}'),
        ("models/double/load", b'{"parameters": {"file:a": 1}}'),
        ("models/double/load", json.dumps({"parameters": dict.fromkeys(map(str, range(100)))})),
        ("models/double/unload", b"9" * 5000),
    ],
)
def test_what_the_repository_cannot_be_asked(served, path, body):
    content = body if isinstance(body, bytes) else body.encode()
    answer = served.post(f"/v2/repository/{path}", content)
    assert answer.status == 400
    assert len(answer.error) < 500
    assert served.fake.calls == []


def test_the_whole_answer(served):
    answer = served.infer(request(id="7"))
    assert answer.status == 200
    assert HEADER_LENGTH.lower() not in answer.headers
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.json == {
        "model_name": "double",
        "model_version": "2",
        "id": "7",
        "outputs": [X2 | {"data": [2, 4]}],
    }
    without = served.infer(request(), path=f"{DOUBLE}/versions/1/infer").json
    assert "id" not in without
    assert without["model_version"] == "1"


def test_outputs_come_as_they_were_asked_for(served):
    inputs = [tensor(name=name) for name in "abc"]
    for names in (["c_doubled", "a_doubled"], ["b_doubled"]):
        document = request(*inputs, outputs=[{"name": name} for name in names])
        outputs = served.infer(document).json["outputs"]
        assert [each["name"] for each in outputs] == names
    every = served.infer(request(*inputs, outputs=[])).json["outputs"]
    assert [each["name"] for each in every] == ["a_doubled", "b_doubled", "c_doubled"]
    refused = served.infer(request(outputs=[{"name": "y"}]))
    assert refused.status == 400
    assert "no output 'y'" in refused.error


@pytest.mark.parametrize("is_default", [True, False])
def test_the_request_says_what_is_binary_and_an_output_may_say_otherwise(served, is_default):
    inputs = [tensor(name=name) for name in "abc"]
    outputs = [
        {"name": "c_doubled"},
        {"name": "b_doubled", "parameters": {"binary_data": not is_default}},
        {"name": "a_doubled", "parameters": {"binary_data": True}},
    ]
    parameters = {"binary_data_output": is_default}
    document, tail = served.infer(request(*inputs, outputs=outputs, parameters=parameters)).parts
    first, second, third = document["outputs"]
    as_bytes, as_json = (first, second) if is_default else (second, first)
    assert as_bytes["parameters"] == third["parameters"] == {"binary_data_size": 8}
    assert "data" not in as_bytes
    assert as_json["data"] == [2, 4]
    assert "parameters" not in as_json
    assert np.frombuffer(tail, "<i4").tolist() == [2, 4, 2, 4]

    every = served.infer(request(parameters=parameters))
    assert (HEADER_LENGTH.lower() in every.headers) == is_default


def test_parameters_reach_the_model(served):
    parameters = {"timeout": 1_500_000, "priority": 3, "who": "me", "often": 3, "exact": False}
    given = tensor(parameters={"layout": "NCHW"})
    outputs = [{"name": "x_doubled", "parameters": {"note": 1.5}}]
    served.infer(request(given, outputs=outputs, parameters=parameters))
    (asked,) = served.fake.requests
    assert (asked.timeout_s, asked.priority) == (1.5, 3)
    assert asked.parameters == {"who": "me", "often": 3, "exact": False}
    assert asked.inputs[0].parameters == {"layout": "NCHW"}
    assert asked.outputs[0].parameters == {"note": 1.5}
    for none in ({}, {"timeout": 0}):
        served.infer(request(parameters=none))
        assert served.fake.requests[-1].timeout_s is None


def test_classification(served):
    scores = tensor([[0.25, 4.0, 2.5], [1.5, 0.0, -1.0]], "FP32", [2, 3])
    parameters = {"classification": 2}
    outputs = [{"name": "x_doubled", "parameters": parameters}]
    (output,) = served.infer(request(scores, outputs=outputs)).json["outputs"]
    assert output == {
        "name": "x_doubled",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["8.0:1:dog", "5.0:2", "3.0:0:cat", "0.0:1:dog"],
    }
    outputs = [{"name": "x_doubled", "parameters": parameters | {"binary_data": True}}]
    document, tail = served.infer(request(scores, outputs=outputs)).parts
    assert document["outputs"][0]["parameters"] == {"binary_data_size": len(tail)}
    assert tail.startswith(b"\x09\0\0\x008.0:1:dog\x05\0\0\x005.0:2")

    text = tensor(["a", "b"], "BYTES")
    refused = served.infer(request(text, outputs=outputs))
    assert refused.status == 400
    assert "only numbers" in refused.error


@pytest.mark.parametrize(
    ("port", "body", "shape", "elements"),
    [
        (IMAGE, np.arange(120, dtype="<f4").tobytes(), [2, 3, 4, 5], 2.0 * np.arange(120)),
        (SCORES, np.ones(10, "<f2").tobytes(), [1, 10], np.full(10, 2.0)),
    ],
)
def test_a_body_that_is_one_tensor(served, port, body, shape, elements):
    served.fake.inputs = (port,)
    answer = served.ask("POST", f"{DOUBLE}/infer", body, **{HEADER_LENGTH: 0})
    document, tail = answer.parts
    (output,) = document["outputs"]
    assert (output["name"], output["shape"]) == (f"{port.name}_doubled", shape)
    np.testing.assert_array_equal(np.frombuffer(tail, port.dtype), elements)
    (asked,) = served.fake.requests
    assert asked.inputs[0].name == port.name


def test_a_body_that_is_one_text(served):
    served.fake.inputs = (TEXT,)
    answer = served.ask("POST", f"{DOUBLE}/infer", b"what?", **{HEADER_LENGTH: 0})
    assert answer.parts[1] == b"\x0a\0\0\0what?what?"


def test_a_body_that_cannot_be_one_tensor(served):
    answer = served.ask("POST", f"{DOUBLE}/infer", b"1234", **{HEADER_LENGTH: 0})
    assert answer.status == 400
    assert "'image', 'text', 'anything'" in answer.error
    served.fake.inputs = (IMAGE,)
    answer = served.ask("POST", f"{DOUBLE}/infer", b"1234", **{HEADER_LENGTH: 0})
    assert answer.status == 400
    assert "there are 4" in answer.error


def test_a_picture(served):
    dog = {"index": 1, "score": 0.75, "label": "dog"}
    cat = {"index": 0, "score": 0.25, "label": "cat"}
    answer = served.post(f"{DOUBLE}/infer-image", PNG, content_type="image/png")
    assert answer.json == {
        "model_name": "double",
        "model_version": "2",
        "outputs": [{"name": "scores", "classes": [dog, cat]}],
    }
    answer = served.post(f"{DOUBLE}/versions/1/infer-image?top_k=3", PNG)
    assert answer.json["model_version"] == "1"
    assert answer.json["outputs"][0]["classes"] == [dog, cat, {"index": 2, "score": -1.5}]
    assert [call[-1] for call in served.fake.calls] == [None, 3]
    for query, text in [
        ("?top_k=-1", "no positive number"),
        ("?top_k=x", "no positive number"),
        ("?top_k=1e3", "no positive number"),
        ("?top_k=" + "9" * 5000, "no positive number"),
        ("?top_k=0", "at least 1"),
    ]:
        answer = served.post(f"{DOUBLE}/infer-image{query}", PNG)
        assert answer.status == 400
        assert text in answer.error
    answer = served.post(f"{DOUBLE}/infer-image", b"no picture")
    assert answer.status == 400
    assert "neither JPEG nor PNG" in answer.error
    assert served.post("/v2/models/nothing/infer-image", PNG).status == 404
