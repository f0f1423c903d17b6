"""The committed digits model: it is what the training script makes, and as good as it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from atriva_inference import InferenceRuntime

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def heldout():
    """Images and labels that the model was not trained on."""
    return dict(np.load(EXAMPLES / "models/digits_heldout.npz"))


@pytest.fixture(scope="module")
def retrained(tmp_path_factory):
    """What the script writes when it is run here and now."""
    folder = tmp_path_factory.mktemp("retrained")
    command = [sys.executable, str(EXAMPLES / "train_digits.py"), "--output", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def predict():
    """Class of each image, according to a model file."""

    def run(path, images, backend="openvino"):
        with InferenceRuntime(backend) as runtime, runtime.load_model(path) as model:
            output = model.run({"input": runtime.tensor_from_numpy(images)})["output"].to_numpy()
            np.testing.assert_allclose(output.sum(axis=1), 1, rtol=1e-2)
            return output.argmax(axis=1)

    return run


def test_the_held_out_images_are_those_of_the_split(heldout):
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, np.newaxis]
    _, wanted_images, _, wanted_labels = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )

    assert np.array_equal(heldout["images"], wanted_images)
    assert np.array_equal(heldout["labels"], wanted_labels)
    assert heldout["images"].dtype == np.uint8
    assert heldout["images"].shape == (360, 1, 8, 8)


def test_no_held_out_image_was_trained_on(heldout):
    digits = load_digits()
    images = digits.images.astype(np.uint8)[:, np.newaxis]
    train_images, *_ = train_test_split(
        images, digits.target, test_size=360, stratify=digits.target, random_state=0
    )
    seen = {image.tobytes() for image in train_images}
    assert not any(image.tobytes() in seen for image in heldout["images"])


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_committed_model_knows_its_digits(heldout, predict, backend):
    predicted = predict(EXAMPLES / "models/digits.onnx", heldout["images"], backend)
    assert np.mean(predicted == heldout["labels"]) >= 0.97


def test_the_committed_model_says_where_it_comes_from():
    model = onnx.load(EXAMPLES / "models/digits.onnx")
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["labels"] == '["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]'
    assert "examples/train_digits.py --epochs 40 --seed 0" in properties["provenance"]


def test_training_again_gives_a_model_that_says_the_same(retrained, heldout, predict):
    again = predict(retrained / "digits.onnx", heldout["images"])
    committed = predict(EXAMPLES / "models/digits.onnx", heldout["images"])

    assert np.mean(again == heldout["labels"]) >= 0.97
    # Sums in another order, on another processor, may tip a doubtful image or two.
    assert np.mean(again == committed) >= 0.99


def test_training_again_holds_out_the_same_images(retrained, heldout):
    again = np.load(retrained / "digits_heldout.npz")
    assert set(again) == set(heldout)
    assert all(np.array_equal(again[name], heldout[name]) for name in heldout)
