"""Layouts and configurations of the OpenVINO Model Server."""

from __future__ import annotations

import json

import fsspec
import pytest

from atriva_inference.model_files import ModelFiles, ModelFormat
from atriva_inference.options import PerformanceHint
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.ovms import parse_ovms
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.store import open_repository
from tests.unit.serve.repositories import by_name, put, write


def configured(folder, *configs, **more):
    document = {"model_config_list": [{"config": each} for each in configs], **more}
    return write(folder / "config.json", json.dumps(document))


def looked(place):
    return by_name(open_repository(str(place)).look().models)


def parsed(config):
    document = {"model_config_list": [{"config": {"name": "m", "base_path": "/m"} | config}]}
    (model,) = parse_ovms(json.dumps(document), "c").models
    return model


def test_any_name_does_for_the_one_model_of_a_version(tmp_path):
    put(tmp_path / "net/1", "ir", "resnet50-int8")
    put(tmp_path / "net/2", "paddle", "inference")
    (net,) = open_repository(str(tmp_path)).look().models
    assert [ModelFiles.find(each.path).format for each in net.versions] == [
        ModelFormat.OPENVINO_IR,
        ModelFormat.PADDLE,
    ]


def test_a_configuration_says_which_models_there_are(tmp_path):
    put(tmp_path / "far/away/1", "onnx")
    put(tmp_path / "repository/near/1", "ir")
    put(tmp_path / "repository/other/1", "ir")
    file = configured(
        tmp_path / "repository",
        {"name": "far", "base_path": str(tmp_path / "far/away"), "target_device": "GPU"},
        {"name": "near", "base_path": "near", "nireq": 4},
        {"name": "up", "base_path": "../far/away"},
        {"name": "url", "base_path": (tmp_path / "far/away").as_uri()},
        {"name": "gone", "base_path": "nowhere"},
        {"name": "a b", "base_path": "near"},
    )
    for place in (tmp_path / "repository", file):
        models = looked(place)
        assert sorted(models) == ["a b", "far", "gone", "near", "up", "url"]
        for name in ("far", "near", "up", "url"):
            assert [each.version for each in models[name].versions] == [1]
            assert ModelFiles.find(models[name].versions[0].path)
        assert models["far"].settings.device == "GPU"
        assert "'near': 'nireq' is not honoured" in models["near"].warnings[0]
        assert "No such file" in models["gone"].problems[0]
        assert "no name for a model" in models["a b"].problems[0]


def test_settings_beside_the_versions_have_the_last_word(tmp_path):
    put(tmp_path / "net/1", "onnx")
    write(tmp_path / "net/model.yaml", "top_k: 2")
    write(tmp_path / "net/config.pbtxt", "backend: 'python'")
    configured(tmp_path, {"name": "m", "base_path": "net", "target_device": "CPU"})
    model = looked(tmp_path)["m"]
    assert model.settings == ModelSettings(device="CPU", top_k=2)
    assert "config.pbtxt is not read" in model.warnings[0]


@pytest.mark.parametrize(
    ("config", "changed"),
    [
        ({}, {}),
        ({"target_device": "MULTI:CPU,GPU"}, {"device": "MULTI:CPU,GPU"}),
        (
            {"plugin_config": {"NUM_STREAMS": "2", "PERFORMANCE_HINT": "LATENCY"}},
            {"config": {"NUM_STREAMS": "2"}, "hint": PerformanceHint.LATENCY},
        ),
        ({"model_version_policy": {"all": {}}}, {"versions": "all"}),
        ({"model_version_policy": {"latest": {"num_versions": 3}}}, {"versions": {"latest": 3}}),
        ({"model_version_policy": {"latest": {}}}, {}),
        ({"model_version_policy": {"specific": {"versions": [1, 4]}}}, {"versions": [1, 4]}),
        ({"stateful": False}, {}),
    ],
)
def test_what_is_honoured(config, changed):
    model = parsed(config)
    assert (model.problem, model.warnings) == ("", ())
    assert model.settings == ModelSettings(**changed)


@pytest.mark.parametrize("key", ["batch_size", "shape", "layout", "nireq", "allow_cache"])
def test_what_is_not_honoured_is_said(key):
    assert parsed({key: "auto"}).warnings == (f"c: 'm': {key!r} is not honoured",)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"base_path": None}, "'m' has no 'base_path'"),
        ({"base_path": "a\0b"}, "'m' has no 'base_path'"),
        ({"name": ""}, "model_config_list[0] has no 'name'"),
        ({"stateful": True}, "keeps state"),
        ({"target_device": "AUTO:"}, "device='AUTO:'"),
        ({"target_device": 3}, "device='3'"),
        ({"plugin_config": "NUM_STREAMS=2"}, "a mapping of property names"),
        ({"plugin_config": {"PERFORMANCE_HINT": "X"}}, "hint='X'"),
        ({"model_version_policy": {"first": {}}}, "versions="),
        ({"model_version_policy": {"specific": {"versions": "1"}}}, "versions="),
    ],
)
def test_one_model_that_cannot_be_served_is_no_reason_against_the_others(config, reason):
    assert reason in parsed(config).problem


def test_graphs_are_listed_with_their_problem(tmp_path):
    put(tmp_path / "net/1", "onnx")
    configured(
        tmp_path,
        {"name": "m", "base_path": "net"},
        pipeline_config_list=[{"name": "graph"}],
        mediapipe_config_list=[{"name": "media"}],
        monitoring={"metrics": {"enable": True}},
    )
    listing = open_repository(str(tmp_path)).look()
    models = by_name(listing.models)
    assert [name for name, each in models.items() if each.is_broken] == ["graph", "media"]
    assert "graph of models" in models["graph"].problems[0]
    assert listing.warnings == (f"{tmp_path / 'config.json'}: 'monitoring' is not honoured",)


def test_models_that_share_a_name_are_listed_once(tmp_path):
    put(tmp_path / "net/1", "onnx")
    configured(tmp_path, *[{"name": "m", "base_path": "net"}] * 2)
    assert "2 models are called 'm'" in looked(tmp_path)["m"].problems[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"model_config_list": [\n}', "line 2: "),
        ('{"model_config_list": {"a": 1}}', "'model_config_list' is no list"),
        ("[" * 100_000, "cannot be read"),
        ('{"model_config_list": ' + "9" * 5_000 + "}", "cannot be read"),
        (" " * 2_000_000, "larger than"),
        ("", "line 1: "),
    ],
)
def test_a_configuration_that_cannot_be_read(tmp_path, text, reason):
    put(tmp_path / "net/1", "onnx")
    write(tmp_path / "config.json", text)
    with pytest.raises(RepositoryError) as caught:
        open_repository(str(tmp_path)).look()
    assert reason in caught.value.reason


def test_other_json_is_no_configuration(tmp_path):
    put(tmp_path / "net/1", "onnx")
    file = write(tmp_path / "config.json", '{"hidden_size": 768}')
    assert sorted(looked(tmp_path)) == ["net"]
    with pytest.raises(RepositoryError, match="no 'model_config_list'"):
        open_repository(str(file)).look()


def test_entries_that_are_none(tmp_path):
    document = json.dumps({"model_config_list": [3, {}, {"config": []}]})
    problems = [each.problem for each in parse_ovms(document, "c").models]
    assert problems == [f"c: model_config_list[{i}] has no 'config'" for i in range(3)]


def test_a_configuration_elsewhere_cannot_name_folders_of_this_machine(tmp_path):
    put(tmp_path / "net/1", "onnx")
    filesystem = fsspec.filesystem("memory")
    configs = [
        {"name": "here", "base_path": "net"},
        {"name": "local", "base_path": str(tmp_path / "net")},
        {"name": "up", "base_path": "../x"},
        {"name": "file", "base_path": (tmp_path / "net").as_uri()},
        {"name": "disk", "base_path": f"local://{tmp_path}/net"},
        {"name": "url", "base_path": "memory://ovms/net"},
    ]
    document = {"model_config_list": [{"config": each} for each in configs]}
    try:
        filesystem.pipe("/ovms/config.json", json.dumps(document).encode())
        filesystem.pipe("/ovms/net/1/m.onnx", b"x")
        models = looked("memory://ovms")
        assert models["here"].versions == models["url"].versions != ()
        for name in ("local", "up", "file"):
            assert "cannot name its folders" in models[name].problems[0]
        assert "it is on this machine" in models["disk"].problems[0]
    finally:
        filesystem.rm("/ovms", recursive=True)
