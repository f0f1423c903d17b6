"""What a server can be told in a file of Ray Serve, checked before anything is started."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from atriva_inference import OptionError
from atriva_ray.errors import InputFileError
from atriva_ray.serve import ServeSettings, app
from atriva_ray.serve.shelf import open_shelf

BAD = {
    "nothing to serve": {},
    "an unknown word": {"models": ["a.onnx"], "modles": []},
    "a port that is none": {"models": ["a.onnx"], "http_port": 0},
    "a port too high": {"models": ["a.onnx"], "grpc_port": 65_536},
    "no ingress": {"models": ["a.onnx"], "ingresses": 0},
    "half of TLS": {"models": ["a.onnx"], "tls_key": "key.pem"},
    "a pause of nothing": {"models": ["a.onnx"], "watch_s": 0},
}


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD)
def test_settings_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValidationError):
        ServeSettings(**arguments)
    with pytest.raises(ValidationError):
        app(arguments)


def test_an_application_is_built_of_a_document_too():
    document = {"models": ["a.onnx", "b=c.onnx"], "http_port": None, "insecure": True}
    assert app(document) is not None
    assert app(ServeSettings(**document)) is not None


def test_one_that_others_reach_needs_tokens(tmp_path):
    settings = {"models": ("a.onnx",), "host": "::"}
    with pytest.raises(OptionError, match="host='::'"):
        app(ServeSettings(**settings))
    assert app(ServeSettings(**settings, insecure=True)) is not None
    with pytest.raises(InputFileError, match="nothing"):
        app(ServeSettings(**settings, tokens=tmp_path / "nothing"))


def test_settings_of_the_models_are_checked():
    with pytest.raises(OptionError, match="hint"):
        open_shelf(ServeSettings(models=("a.onnx",), model={"hint": "fast"}))
    with pytest.raises(OptionError, match="settings of a model"):
        open_shelf(ServeSettings(models=("a.onnx",), model={"hnit": "latency"}))
