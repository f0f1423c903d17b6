"""What an installation from the wheel has."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("atriva_ray-*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.mark.parametrize(
    "name",
    [
        "atriva_ray/__init__.py",
        "atriva_ray/py.typed",
        "atriva_inference/__init__.py",
        "atriva_inference/py.typed",
        "atriva_ray/serve/page/page.css",
        "atriva_ray/serve/page/page.js",
        "atriva_ray/serve/rpc/inference.binpb",
        "atriva_ray/serve/rpc/messages.pyi",
        "atriva_ray/demo/data/digits.onnx",
        "atriva_ray/demo/data/digits_heldout.npz",
    ],
)
def test_files(wheel, name):
    assert name in wheel.namelist()


def test_the_command_and_no_stray_packages(wheel):
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert b"atriva = atriva_ray.cli.main:main" in wheel.read(entry_points)
    packages = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in packages if not name.endswith(".dist-info")} == {
        "atriva_ray",
        "atriva_inference",
    }
