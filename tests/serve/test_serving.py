"""What clients get of a real server: the answers of one process, whatever they ask in."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from PIL import Image
from tritonclient.utils import InferenceServerException

from atriva_inference import InferenceRuntime, Tensor
from tests.cluster.tools import wait_until
from tests.conftest import MODELS
from tests.serve.serving_tools import DIGITS, HELDOUT, NAMES, SCALE, digit_preprocessing

DIRECT = {
    "conv": ("onnxruntime", MODELS / "onnx" / "conv.onnx"),
    "net": ("openvino", MODELS / "ir" / "model.xml"),
    "flat": ("openvino", MODELS / "tflite" / "model.tflite"),
}


@pytest.fixture(scope="module")
def over_http(server):
    client = triton_http.InferenceServerClient(server.http_address)
    yield client
    client.close()


@pytest.fixture(scope="module")
def over_grpc(server):
    client = triton_grpc.InferenceServerClient(server.grpc_address)
    yield client
    client.close()


def test_both_ports_say_the_same_of_the_server_and_its_models(over_http, over_grpc):
    for client in (over_http, over_grpc):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.is_model_ready("digits", "1")
        assert not client.is_model_ready("broken")
    about = over_http.get_server_metadata()
    told = over_grpc.get_server_metadata(as_json=True)
    assert about["name"] == told["name"] == "atriva-ray"
    assert set(about["extensions"]) == set(told["extensions"])
    assert over_http.get_model_metadata("digits") == {
        "name": "digits",
        "versions": ["1"],
        "platform": "openvino_onnx",
        "inputs": [{"name": "input", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 10]}],
    }
    digits = over_grpc.get_model_metadata("digits")
    assert (digits.platform, list(digits.inputs[0].shape)) == ("openvino_onnx", [-1, 8, 8, 1])


@pytest.mark.parametrize("name", DIRECT)
def test_answers_are_those_of_one_process(over_http, over_grpc, name):
    backend, path = DIRECT[name]
    with InferenceRuntime(backend) as runtime, runtime.load_model(path, "CPU") as model:
        (port,) = model.inputs
        shape = tuple(max(size, 1) for size in port.shape)
        array = np.random.default_rng(3).random(shape, np.float32)
        outputs = model.run({port.name: Tensor.from_numpy(array, layout=None)})
        expected = {name: tensor.to_numpy() for name, tensor in outputs.items()}
    ways = [(over_http, triton_http, {"binary_data": is_binary}) for is_binary in (True, False)]
    for client, module, options in [*ways, (over_grpc, triton_grpc, {})]:
        tensor = module.InferInput(port.name, list(shape), "FP32")
        tensor.set_data_from_numpy(array, **options)
        result = client.infer(name, [tensor])
        for output, wanted in expected.items():
            np.testing.assert_allclose(result.as_numpy(output), wanted, rtol=1e-4, atol=1e-6)


def test_a_picture_is_answered_with_labels(server):
    with np.load(HELDOUT) as heldout:
        images, labels = heldout["images"][:8], heldout["labels"][:8]
    right = 0
    with (
        InferenceRuntime() as runtime,
        runtime.load_model(DIGITS, "CPU", preprocessing=digit_preprocessing()) as model,
    ):
        for image, label in zip(images, labels, strict=True):
            pixels = np.rint(image[0] * SCALE).astype(np.uint8)
            png = io.BytesIO()
            Image.fromarray(pixels).save(png, "png")
            path = "/v2/models/digits/infer-image"
            status, answer = server.ask("POST", path, png.getvalue())
            assert status == 200, answer
            (output,) = answer["outputs"]
            given = Tensor.from_numpy(pixels[np.newaxis, ..., np.newaxis], layout=None)
            scores = model.run({"input": given})["output"].to_numpy().ravel()
            best = np.argsort(scores)[::-1][:3]
            assert [each["index"] for each in output["classes"]] == best.tolist()
            assert [each["label"] for each in output["classes"]] == [NAMES[each] for each in best]
            np.testing.assert_allclose(
                [each["score"] for each in output["classes"]], scores[best], rtol=1e-4, atol=1e-4
            )
            right += output["classes"][0]["label"] == NAMES[label]
    assert right >= 7
    status, answer = server.ask("POST", f"{path}?top_k=1", png.getvalue())
    assert (status, len(answer["outputs"][0]["classes"])) == (200, 1)
    status, answer = server.ask("POST", path, b"no picture")
    assert status == 400
    assert "picture" in answer["error"]


def test_statistics_count_what_all_ingresses_answer(server, repository, nodes):
    assert len(nodes.serving("Ingress")) == 2
    repository.add_plus("counted", 1)
    assert server.load("counted") == (200, None)

    def timings():
        status, answer = server.ask("GET", "/v2/models/counted/stats")
        assert status == 200
        (stats,) = answer["model_stats"]
        return stats["inference_stats"]

    def counted():
        return timings()["success"]["count"]

    for _ in range(40):  # each over a connection of its own: the kernel spreads them
        assert server.plus("counted") == (200, "1", [1, 1])
    wait_until(lambda: counted() == 40, timeout_s=20, what=counted)
    told = timings()
    success, queue, compute = (told[each]["ns"] for each in ("success", "queue", "compute_infer"))
    assert 0 < compute < success
    assert queue + compute == success
    assert server.unload("counted") == (200, None)
    assert server.ask("GET", "/v2/models/counted/stats")[0] == 404


def test_the_configuration_names_the_device(server, over_grpc):
    status, config = server.ask("GET", "/v2/models/conv/config")
    assert status == 200
    assert (config["name"], config["backend"]) == ("conv", "onnxruntime")
    (group,) = config["instance_group"]
    assert group["name"].endswith("/CPU")
    assert group["kind"] == "KIND_CPU"
    assert config["parameters"]["device"] == {"string_value": "CPU"}
    assert over_grpc.get_model_config("conv").config.instance_group[0].name == group["name"]


def test_what_cannot_be_answered_is_told(server, over_http, over_grpc):
    status, answer = server.ask("GET", "/v2/models/nothing")
    assert status == 404
    assert "'nothing'" in answer["error"]
    assert "'digits'" in answer["error"]
    assert server.plus("step", "7")[0] == 404
    status, answer, _ = server.plus("broken")
    assert status == 503
    assert "broken" in answer
    for client, module in ((over_http, triton_http), (over_grpc, triton_grpc)):
        tensor = module.InferInput("x", [1, 3], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 3), np.float32))
        with pytest.raises(InferenceServerException, match="x") as caught:
            client.infer("step", [tensor])
        assert caught.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
