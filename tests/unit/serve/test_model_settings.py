"""`model.yaml`: what a model's settings may be, and what is said of those that may not."""

from __future__ import annotations

import pickle
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.errors import OptionError
from atriva_inference.options import PerformanceHint
from atriva_inference.preprocess import Preprocessing
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.settings_file import MAX_DOCUMENT_BYTES, parse_settings
from atriva_ray.serve.repository.versions import VersionPolicy, version_number

EVERYTHING = """
device: AUTO:GPU,CPU
backend: onnxruntime
replicas: 3
idle_s: 90
hint: latency
config:
  NUM_STREAMS: 4
  dotted.key: [1, 2]
preprocessing: {resize: 224x224, mean: [123.7, 116.3, 103.5], scale: 58}
labels: [cat, no, 1.0, "dog"]
top_k: 3
max_waiting: 64
max_batch_size: 8
cpus_per_replica: 2
versions: {latest: 2}
batching: off
"""


def parsed(text, base=None, labels=()):
    return parse_settings(text, "/r/m/model.yaml", lambda _name: tuple(labels), base)


def refused(text):
    with pytest.raises(RepositoryError) as caught:
        parsed(text)
    assert caught.value.path == "/r/m/model.yaml"
    return caught.value.reason


def test_all_of_it():
    assert parsed(EVERYTHING) == ModelSettings(
        device="AUTO:GPU,CPU",
        backend="onnxruntime",
        replicas=3,
        idle_s=90.0,
        hint=PerformanceHint.LATENCY,
        config={"NUM_STREAMS": 4, "dotted.key": [1, 2]},
        preprocessing=Preprocessing(resize=(224, 224), mean=(123.7, 116.3, 103.5), scale=(58,)),
        labels={"": ("cat", "no", "1.0", "dog")},
        top_k=3,
        max_waiting=64,
        max_batch_size=8,
        cpus_per_replica=2,
        versions=VersionPolicy(latest=2),
        batching="off",
    )


@pytest.mark.parametrize("text", ["1-4", "' 1 - 4 '", "[1, 4]"])
def test_a_range_of_replicas(text):
    assert parsed(f"replicas: {text}").replicas == (1, 4)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null"])
def test_nothing_means_the_defaults_or_what_was_said_before(text):
    assert parsed(text) == ModelSettings()
    assert parsed(text, ModelSettings(top_k=1)) == ModelSettings(top_k=1)


def test_a_document_overrides_only_what_it_names():
    base = ModelSettings(device="CPU", top_k=7)
    assert parsed("device: GPU", base) == ModelSettings(device="GPU", top_k=7)


def test_settings_travel():
    settings = parsed(EVERYTHING)
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("device: CPU\nreplica: 2", 2, ["unknown key 'replica'", "did you mean 'replicas'?"]),
        ("Devcie: CPU", 1, ["did you mean 'device'?"]),
        ("zzz: 1", 1, ["unknown key 'zzz'", "known are device, backend, replicas"]),
        ("\nreplicas: two", 2, ["replicas='two'", "'auto' or a whole number from 1 to"]),
        ("replicas: 0", 1, ["'auto' or a whole number"]),
        ("replicas: true", 1, ["'auto' or a whole number"]),
        ("replicas: 1.5", 1, ["'auto' or a whole number"]),
        ("replicas:", 1, ["replicas='None'"]),
        ("replicas: 4-1", 1, ["replicas='4-1'", "the least and the most: 1-4"]),
        ("replicas: [1, 2, 3]", 1, ["the least and the most"]),
        ("replicas: [0, 2]", 1, ["the least and the most"]),
        ("idle_s: 0", 1, ["idle_s='0'", "seconds from 1 on"]),
        ("idle_s: soon", 1, ["seconds from 1 on"]),
        ("idle_s: true", 1, ["seconds from 1 on"]),
        ("idle_s: .nan", 1, ["seconds from 1 on"]),
        ("backend: torch", 1, ["openvino, onnxruntime, tensorrt"]),
        ("device: 'AUTO:'", 1, ["device='AUTO:'"]),
        ("device: 3", 1, ["device='3'"]),
        ("hint: fast", 1, ["hint='fast'", "LATENCY"]),
        ("config: [1]", 1, ["a mapping of property names"]),
        ("config: {1: 2}", 1, ["a mapping of property names"]),
        ("config: {a: 2026-01-01}", 1, ["plain values"]),
        ("config: {a: .nan}", 1, ["plain values"]),
        ("preprocessing: {sizes: 3}", 1, ["sizes", "resize"]),
        ("preprocessing: 224x224", 1, ["a mapping of resize"]),
        ("preprocessing: {scale: 0}", 1, ["none of them 0"]),
        ("labels: [[a]]", 1, ["one name a line"]),
        ("labels: {out: {a: b}}", 1, ["one name a line"]),
        ("top_k: 0", 1, ["a whole number from 1 to"]),
        ("max_waiting: -1", 1, ["a whole number from 1 to"]),
        ("cpus_per_replica: many", 1, ["a whole number from 1 to"]),
        ("versions: newest", 1, ["'all', 'latest'"]),
        ("versions: [1, 0]", 1, ["'all', 'latest'"]),
        ("versions: {latest: 0}", 1, ["'all', 'latest'"]),
        ("versions: []", 1, ["'all', 'latest'"]),
        ("batching: sometimes", 1, ["auto, off"]),
        ("device: CPU\ndevice: GPU", 2, ["'device' is given twice"]),
        ("config:\n  a: 1\n  a: 2", 2, ["given twice"]),
        ("device: [CPU", 1, ["expected"]),
        ("device: !!python/object/apply:os.system [ls]", 1, ["could not determine a constructor"]),
        ("config: {? [1] : 2}", 1, ["unhashable"]),
        ("a: b: c", 1, ["mapping values are not allowed"]),
        ("config: &a {x: 1}\npreprocessing: *a", 2, ["alias"]),
        ("device: CPU\n---\ndevice: GPU", 2, ["document"]),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, line, parts):
    reason = refused(text)
    assert reason.startswith(f"line {line}: ")
    for part in parts:
        assert part in reason


@pytest.mark.parametrize("text", ["- 1\n- 2", "text", "3"])
def test_it_must_be_a_mapping(text):
    assert "no mapping" in refused(text)


def test_what_is_no_text_is_refused():
    assert "cannot be read" in refused("device: \x00")


@pytest.mark.parametrize("text", ["config: " + "[" * 5_000, "config: " + "{a: " * 5_000])
def test_what_is_nested_too_deeply_is_refused(text):
    assert "nested too deeply" in refused(text)


def test_what_is_too_large_is_not_even_read():
    started = time.monotonic()
    assert "larger than" in refused("#" * (MAX_DOCUMENT_BYTES + 1))
    assert time.monotonic() - started < 1


def test_a_few_lines_cannot_stand_for_gigabytes():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "alias" in refused("config:\n" + "\n".join(f"  {line}" for line in lines))


@pytest.mark.parametrize(
    ("text", "batching"),
    [("off", "off"), ("OFF", "off"), ("'off'", "off"), ("auto", "auto"), ("Auto", "auto")],
)
def test_batching_needs_no_quotes(text, batching):
    assert parsed(f"batching: {text}").batching == batching


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("all", VersionPolicy(None)),
        ("latest", VersionPolicy(1)),
        ("{latest: 3}", VersionPolicy(3)),
        ("[3, 1, 3]", VersionPolicy(numbers=(1, 3))),
        ("2", VersionPolicy(numbers=(2,))),
    ],
)
def test_version_policies(text, policy):
    assert parsed(f"versions: {text}").versions == policy


def test_a_policy_chooses():
    there = [10, 9, 2, 1]
    assert VersionPolicy().choose(there) == (10,)
    assert VersionPolicy(2).choose(there) == (9, 10)
    assert VersionPolicy(9).choose(there) == (1, 2, 9, 10)
    assert VersionPolicy(None).choose(there) == (1, 2, 9, 10)
    assert VersionPolicy(numbers=(2, 3)).choose(there) == (2,)
    assert VersionPolicy().choose([]) == ()


@pytest.mark.parametrize(
    ("name", "number"),
    [("1", 1), ("10", 10), ("9" * 18, int("9" * 18)), ("0", None), ("01", None), ("-1", None),
     ("1.0", None), ("²", None), ("١", None), ("9" * 19, None), ("", None), ("v1", None)],
)  # fmt: skip
def test_version_numbers(name, number):
    assert version_number(name) == number


def test_labels_come_from_a_file_or_belong_to_an_output():
    assert parsed("labels: a.txt", labels=["x", "y"]).labels_of("any") == ("x", "y")
    settings = parsed("labels: {kind: [a, b], colour: c.txt}", labels=["red"])
    assert settings.labels_of("kind") == ("a", "b")
    assert settings.labels_of("colour") == ("red",)
    assert settings.labels_of("other") == ()
    assert parsed("labels:").labels == {}


def test_a_file_of_labels_that_cannot_be_read_is_told_with_its_line():
    def read(name):
        raise RepositoryError("/r/m", f"the labels {name!r}: there is no such file")

    with pytest.raises(RepositoryError, match=r"line 2: the labels 'a\.txt'"):
        parse_settings("device: CPU\nlabels: a.txt", "/r/m/model.yaml", read)


def test_settings_of_a_program_are_checked_alike():
    assert ModelSettings(hint="latency", versions="all", backend="OpenVINO").backend == "openvino"
    with pytest.raises(OptionError, match="top_k"):
        ModelSettings(top_k=0)
    with pytest.raises(OptionError, match="labels"):
        ModelSettings(labels={"a": [1]})


@given(st.text(max_size=60) | st.text("{}[]:,-&*!|>'\"#%@ \nab1.\t", max_size=40))
def test_no_text_does_harm(text):
    with suppress(RepositoryError):
        parsed(text)
