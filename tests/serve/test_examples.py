"""The programs of `examples/serve` and what the README shows, against a server that runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.conftest import EXAMPLES, ROOT
from tests.serve.serving_tools import Server, started

CURL = shutil.which("curl")
DIGITS = EXAMPLES / "models" / "digits.onnx"


@pytest.fixture(scope="module")
def plain(cluster, short_tmp):
    """The server that README and documentation start."""
    env = {"RAY_ADDRESS": cluster.address}
    with started(Server(short_tmp, str(DIGITS), env=env, name="plain")) as running:
        yield running


@pytest.mark.parametrize(
    ("program", "port", "said"),
    [
        ("http_client.py", "http_address", "recognised: "),
        ("grpc_client.py", "grpc_address", "recognised 32 of 32"),
    ],
)
def test_example_programs(plain, program, port, said):
    command = [sys.executable, EXAMPLES / "serve" / program, getattr(plain, port)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert said in result.stdout


@pytest.mark.skipif(CURL is None, reason="no curl is installed")
def test_curl_as_the_readme_has_it(plain):
    url = f"http://localhost:{plain.http_port}/v2/models/digits"
    result = subprocess.run([CURL, "-s", url], capture_output=True, check=True, timeout=20)
    assert json.loads(result.stdout)["name"] == "digits"


def test_the_serve_file_names_what_there_is():
    import yaml  # noqa: PLC0415

    from atriva_ray.serve import ServeSettings, app  # noqa: PLC0415

    content = yaml.safe_load((ROOT / "cluster" / "serve.yaml").read_text())
    (application,) = content["applications"]
    assert application["import_path"] == "atriva_ray.serve:app"
    settings = ServeSettings.model_validate(application["args"])
    assert settings.http_port == 8000
    assert app(application["args"]) is not None
