"""``config.pbtxt``: the text format, and what is honoured of what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.options import PerformanceHint
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.pbtxt import Message, parse_text_format
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.store import open_repository
from atriva_ray.serve.repository.triton import parse_triton
from atriva_ray.serve.repository.versions import VersionPolicy
from tests.unit.serve.repositories import put, write

USUAL = """
# as it is usually written
name: "net"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "input", data_type: TYPE_FP32, format: FORMAT_NONE, dims: [ 3, 8, -1 ] }
]
output [
  {
    name: "output"
    data_type: TYPE_FP32
    dims: [ 4 ]
    label_filename: "labels.txt"
  }
]
version_policy: { latest { num_versions: 2 } }
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching { default_queue_policy { max_queue_size: 50 } }
parameters { key: "intra_op_thread_count" value: { string_value: "3" } }
default_model_filename: "net.onnx"
"""


def parsed(text):
    return parse_triton(text, "/r/net/config.pbtxt", "net", lambda name: (name, "b"))


def settings(text):
    config = parsed(text)
    assert config.warnings == ()
    return config.settings


def warned(text):
    return [each.removeprefix("/r/net/config.pbtxt: ") for each in parsed(text).warnings]


# -- the format --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("", {}),
        ("a: 1 a: -2.5e+3", {"a": ["1", "-2.5e+3"]}),
        ("a: 'it''s' \"\" # no", {"a": ["its"]}),
        (r'a: "\x41\102\n\"\\\303\244"', {"a": ['AB\n"\\ä']}),
        ("a: [1, 2, ] b: []", {"a": ["1", "2"], "b": []}),
        ("a: true; b: KIND_CPU, c: 3", {"a": ["true"], "b": ["KIND_CPU"], "c": ["3"]}),
        ("[x.y]: 1", {"[x.y]": ["1"]}),
        ('a: "}"', {"a": ["}"]}),
    ],
)
def test_values(text, fields):
    assert parse_text_format(text, "f").fields == fields


@pytest.mark.parametrize(
    "text", ["a { b: 1 }", "a: { b: 1 }", "a < b: 1 >", "a [ { b: 1 } ]", "a: [ < b: 1 > ]"]
)
def test_messages(text):
    (message,) = parse_text_format(text, "f").messages("a")
    assert message.fields == {"b": ["1"]}


def test_messages_of_one_field_can_be_taken_together():
    root = parse_text_format("a { b: 1 }\na { b: 2 c: 3 }", "f")
    assert root.message("a").words("b") == ["1", "2"]
    assert root.message("a").word("c") == "3"
    assert root.message("z") == Message(1)
    assert root.word("z", "default") == "default"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "line 1: expected ':'"),
        ("a:\n\n}", "line 3: expected a value, found '}'"),
        ("a { b: 1", "line 1: expected a field's name, found the end"),
        ("a { b: 1 >", "expected a field's name, found '>'"),
        ("\na: [1 2]", "line 2: expected ',' or ']'"),
        ('a: "x\n"', "line 1: cannot make sense of"),
        ("[a: 1", "expected ']'"),
        ("ä: 1", "cannot make sense of"),
        ("}", "expected a field's name"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, reason):
    with pytest.raises(RepositoryError) as caught:
        parse_text_format(text, "f")
    assert reason in caught.value.reason


@given(st.text(max_size=60) | st.text("{}[]<>:,;-'\"\\# \nab1.", max_size=40))
def test_no_text_does_harm(text):
    try:
        message = parse_text_format(text, "f")
    except RepositoryError:
        return
    assert isinstance(message, Message)


# -- the configuration -------------------------------------------------------------------------


def test_the_usual_configuration_is_honoured_as_a_whole():
    config = parsed(USUAL)
    assert config.warnings == ()
    assert config.default_name == "net.onnx"
    assert config.settings == ModelSettings(
        backend="onnxruntime",
        max_batch_size=8,
        labels={"output": ("labels.txt", "b")},
        versions=VersionPolicy(latest=2),
        device="CPU",
        replicas=2,
        max_waiting=50,
        config={"intra_op_num_threads": 3},
    )


def test_nothing_said_is_nothing_asked_for():
    assert settings("") == ModelSettings()


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("max_batch_size: 0", {"batching": "off"}),
        ("max_batch_size: 4", {"max_batch_size": 4}),
        ("backend: 'openvino'", {}),
        ("version_policy: { all { } }", {"versions": "all"}),
        ("version_policy: { all: {} }", {"versions": "all"}),
        ("version_policy { specific { versions: [1, 3] } }", {"versions": [1, 3]}),
        ("version_policy { specific { versions: 1 versions: 3 } }", {"versions": [1, 3]}),
        ("version_policy { latest { } }", {}),
        ("instance_group { kind: KIND_GPU }", {"device": "GPU"}),
        ("instance_group { kind: KIND_GPU gpus: [1] }", {"device": "GPU.1"}),
        (
            "instance_group { count: 2 gpus: [0, 1] }",
            {"device": "AUTO:GPU.0,GPU.1", "replicas": 4},
        ),
        ("instance_group { count: 3 }", {"replicas": 3}),
        (
            "parameters { key: 'PERFORMANCE_HINT' value { string_value: 'latency' } }"
            "parameters [ { key: 'NUM_STREAMS' value { string_value: '2' } },"
            "             { key: 'TARGET_DEVICE' value { string_value: 'CPU' } } ]",
            {"hint": PerformanceHint.LATENCY, "config": {"NUM_STREAMS": "2"}, "device": "CPU"},
        ),
        (
            "backend: 'onnxruntime' optimization { execution_accelerators {"
            " gpu_execution_accelerator: [ { name: 'tensorrt' } ] } }",
            {"backend": "tensorrt"},
        ),
        (
            "backend: 'onnxruntime' optimization { execution_accelerators {"
            " cpu_execution_accelerator { name: 'openvino' } } }",
            {"backend": "openvino"},
        ),
        ("model_transaction_policy { decoupled: false }", {}),
    ],
)
def test_what_is_honoured(text, changed):
    assert settings(text) == ModelSettings(**changed)


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("name: 'other'", "it calls the model 'other'; it is served by its folder's name"),
        ("platform: 'tensorflow_savedmodel'", "TensorFlow models are run by OpenVINO"),
        ("model_warmup [ { name: 'x' } ]", "model_warmup is not honoured"),
        ("response_cache { enable: true }", "response_cache is not honoured"),
        ("zzz: 3", "zzz is not honoured"),
        ("dynamic_batching { max_queue_delay_microseconds: 100 }",
         "dynamic_batching.max_queue_delay_microseconds is not honoured"),
        ("dynamic_batching { default_queue_policy { timeout_action: DELAY } }",
         "dynamic_batching.default_queue_policy.timeout_action is not honoured"),
        ("instance_group { rate_limiter { } }", "instance_group.rate_limiter is not honoured"),
        ("instance_group { kind: KIND_MODEL }", "instance_group kind KIND_MODEL is not honoured"),
        ("input { name: 'x' reshape { shape: [1] } }", "input 'x' reshape is not honoured"),
        ("input { name: 'x' format: FORMAT_NHWC }", "input 'x' format is not honoured"),
        ("optimization { priority: PRIORITY_MAX }", "optimization.priority is not honoured"),
        ("parameters { key: 'X' value { string_value: 'y' } }",
         "the parameter 'X' is not honoured"),
        ("optimization { execution_accelerators { gpu_execution_accelerator {"
         " name: 'tensorrt' } } }", "the accelerator 'tensorrt' is not honoured"),
        ("instance_group [ { kind: KIND_CPU }, { kind: KIND_GPU } ]",
         "how many instances of which instance_group, beyond their sum, is not honoured"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_said(text, warning):
    assert warned(text) == [warning]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("platform: 'ensemble' ensemble_scheduling { step [ { } ] }", "ensemble of models"),
        ("ensemble_scheduling { step [ { } ] }", "ensemble of models"),
        ("backend: 'python'", "'python' can be run here; there are openvino"),
        ("platform: 'tensorrt_plan'", "'tensorrt_plan' can be run here"),
        ("platform: 'pytorch_libtorch'", "'pytorch_libtorch' can be run here"),
        ("sequence_batching { oldest { } }", "keeps state"),
        ("model_transaction_policy { decoupled: True }", "any number of answers"),
        ("max_batch_size: 1.5", "'1.5' is no whole number"),
        ("version_policy { specific { } }", "versions='[]'"),
        ("parameters { key: 'TARGET_DEVICE' value { string_value: 'AUTO:' } }", "device='AUTO:'"),
        ("instance_group { count: 100000 }", "replicas='100000'"),
    ],
)
def test_what_cannot_be_served(text, reason):
    with pytest.raises(RepositoryError) as caught:
        parsed(text)
    assert caught.value.path == "/r/net/config.pbtxt"
    assert reason in caught.value.reason


def test_a_repository_of_triton_is_served(tmp_path):
    put(tmp_path / "net/1", "onnx", "net")
    put(tmp_path / "net/1", "tflite", "other")
    write(tmp_path / "net/config.pbtxt", USUAL)
    write(tmp_path / "net/labels.txt", "a\nb\nc\nd\n")
    write(tmp_path / "graph/config.pbtxt", "platform: 'ensemble'")
    (tmp_path / "graph/1").mkdir()
    graph, net = open_repository(str(tmp_path)).look().models
    assert graph.is_broken
    assert "ensemble" in graph.problems[0]
    assert net.versions[0].entry == "net.onnx"
    assert net.settings.labels_of("output") == ("a", "b", "c", "d")
    write(tmp_path / "net/model.yaml", "device: GPU\nreplicas: auto")
    _, net = open_repository(str(tmp_path)).look().models
    assert (net.settings.device, net.settings.replicas) == ("GPU", "auto")
    assert net.settings.max_batch_size == 8


@pytest.mark.parametrize("name", ["gone.onnx", "../../net/1/net.onnx", "/etc/passwd"])
def test_a_default_model_file_is_one_of_the_version(tmp_path, name):
    put(tmp_path / "net/1", "onnx")
    write(tmp_path / "net/config.pbtxt", f'default_model_filename: "{name}"')
    (net,) = open_repository(str(tmp_path)).look().models
    assert net.versions == ()
    assert repr(name) in net.unready[0].reason
