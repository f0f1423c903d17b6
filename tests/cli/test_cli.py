"""The command as people type it, in processes of its own."""

from __future__ import annotations

import os
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.cluster.tools import BIN, TOKEN_MODE
from tests.conftest import EXAMPLES, MODELS

DIGITS = str(EXAMPLES / "models" / "digits.onnx")


def atriva(*args, **env):
    return subprocess.run(
        [str(BIN / "atriva"), *map(str, args)],
        env=os.environ | {"COLUMNS": "120"} | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def joined(cluster):
    """Run the command on a cluster that is there already."""
    return lambda *args: atriva(*args, RAY_ADDRESS=cluster.address, **TOKEN_MODE)


@pytest.fixture(scope="module")
def digit():
    """A held-out picture and its label."""
    with np.load(EXAMPLES / "models" / "digits_heldout.npz") as data:
        return data["images"][0], int(data["labels"][0])


@pytest.fixture
def files(digit, tmp_path):
    """The picture in every format that the command reads."""
    pixels, _ = digit
    np.save(tmp_path / "digit.npy", pixels[np.newaxis])
    np.savez(tmp_path / "digit.npz", input=pixels[np.newaxis])
    return tmp_path


def test_demo_shows_figures_and_succeeds():
    result = atriva("demo")
    assert result.returncode == 0, result.stderr
    for word in (
        "accuracy",
        "images/s",
        "p50",
        "p99",
        "every answer as in one process",
        "#1",
        "#2",
    ):
        assert word in result.stdout
    assert "Traceback" not in result.stderr


def test_devices_lists_what_is_there(joined):
    result = joined("devices")
    assert result.returncode == 0, result.stderr
    assert "CPU" in result.stdout
    assert joined("devices", "--backend", "onnxruntime").returncode == 0


@pytest.mark.parametrize("name", ["digit.npy", "digit.npz"])
def test_run_reads_arrays_and_writes_outputs(joined, files, digit, name):
    output = files / "out.npz"
    result = joined("run", DIGITS, "--input", files / name, "--output", output)
    assert result.returncode == 0, result.stderr
    assert "CPU" in result.stdout
    with np.load(output) as data:
        assert int(data["output"].argmax()) == digit[1]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_run_reads_images(joined, tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    result = joined("run", MODELS / "onnx" / "conv.onnx", "-i", path, "--backend", "onnxruntime")
    assert result.returncode == 0, result.stderr
    assert "1×4" in result.stdout


def test_run_builds_preprocessing_in(joined, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    mean, scale = np.float32([123.675, 116.28, 103.53]), np.float32([58.395, 57.12, 57.375])
    normal = (pixels[..., ::-1] - mean) / scale
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    np.save(tmp_path / "normal.npy", normal.transpose(2, 0, 1)[np.newaxis])
    declared = tmp_path / "imagenet.yaml"
    declared.write_text("mean: [123.675, 116.28, 103.53]\nscale: 58.395,57.12,57.375\n")
    conv = MODELS / "onnx" / "conv.onnx"

    def answer(name, *flags):
        output = tmp_path / "out.npz"
        result = joined(
            "run", conv, "--backend", "onnxruntime", "-i", tmp_path / name, "-o", output, *flags
        )
        assert result.returncode == 0, result.stderr
        with np.load(output) as data:
            return data["output"]

    expected = pytest.approx(answer("normal.npy"), abs=1e-3)
    flags = ["--mean", "123.675,116.28,103.53", "--scale", "58.395,57.12,57.375"]
    assert answer("picture.png", *flags, "--color", "bgr", "--resize", "8x8") == expected
    assert answer("picture.png", "--preprocess", declared, "--color", "bgr") == expected
    assert answer("picture.png", "--preprocess", declared) != expected

    Image.fromarray(np.tile(pixels, (1, 2, 1))).save(tmp_path / "wide.png")
    padded = answer("wide.png", *flags, "--fit", "pad")
    assert padded != pytest.approx(answer("wide.png", *flags, "--fit", "stretch"), abs=1e-3)


def test_errors_of_the_cluster_are_one_line_too(joined, files):
    for args, words in (
        (
            ["run", DIGITS, "-i", files / "digit.npy", "-d", "GPU"],
            "no device 'GPU' on this cluster",
        ),
        (["run", MODELS / "onnx" / "multi.onnx", "-i", files / "digit.npy"], "pass a .npz"),
        (["run", DIGITS, "-i", files / "digit.npy", "--color", "bgr"], "expected gray"),
        (["run", DIGITS, "-i", files / "digit.npy", "-d", "C?U"], "is not acceptable"),
    ):
        result = joined(*args)
        assert result.returncode == 2
        assert words in result.stderr
        assert "Traceback" not in result.stderr


def test_errors_before_a_cluster_is_needed(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    (tmp_path / "x.npy").write_text("x")
    for args, words in (
        (["run", DIGITS, "--input", tmp_path / "none.npy"], "there is no such file"),
        (["run", DIGITS, "--input", tmp_path / "x.txt"], "unknown suffix"),
        (
            ["run", DIGITS, "-i", tmp_path / "x.npy", "-o", tmp_path / "no" / "y"],
            "there is no folder",
        ),
        (["run", DIGITS, "-i", tmp_path / "x.npy", "--scale", "0"], "none of them 0"),
        (
            ["run", DIGITS, "-i", tmp_path / "x.npy", "--preprocess", "x.yaml"],
            "cannot use 'x.yaml'",
        ),
        (["devices", "--backend", "nope"], "expected one of 'openvino'"),
        (["devices", "--address", "127.0.0.1:1"], "no connection to the Ray cluster"),
        (["run", DIGITS], "--input"),
        (["dance"], "No such command"),
    ):
        result = atriva(*args)
        assert result.returncode == 2, result
        assert words in result.stderr, result.stderr
        assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback():
    result = atriva("--debug", "devices", "--backend", "nope")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("broken.npy", b"\x93NUMPY nonsense", "cannot use"),
        ("pickled.npy", None, "allow_pickle"),
        ("broken.npz", b"PK nonsense", "cannot use"),
        ("broken.png", b"\x89PNG nonsense", "cannot use"),
    ],
)
def test_damaged_inputs(joined, tmp_path, name, content, words):
    path = tmp_path / name
    if content is None:
        np.save(path, np.array([{}], object), allow_pickle=True)
    else:
        path.write_bytes(content)
    result = joined("run", DIGITS, "--input", path)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_version_and_help():
    assert "atriva-ray" in atriva("--version").stdout
    shown = atriva("--help").stdout
    for command in ("devices", "run", "demo"):
        assert command in shown
