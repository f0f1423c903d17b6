from __future__ import annotations

from pathlib import Path

import pytest

from atriva_inference.errors import OptionError
from atriva_ray.bench.options import DEFAULT_TIME_S, BenchOptions, Limits, parse_shapes

MODEL = Path("model.onnx")


@pytest.mark.parametrize(
    ("given", "is_sync", "hint"),
    [
        ({}, False, "THROUGHPUT"),
        ({"hint": "latency"}, True, "LATENCY"),
        ({"hint": "latency", "api": "async"}, False, "LATENCY"),
        ({"api": "sync"}, True, "LATENCY"),
        ({"api": "sync", "hint": "tput"}, True, "THROUGHPUT"),
        ({"hint": "ctput"}, False, "CUMULATIVE_THROUGHPUT"),
        ({"hint": "none"}, False, "LATENCY"),
    ],
)
def test_api_and_hint_choose_each_other(given, is_sync, hint):
    options = BenchOptions(MODEL, **given)
    assert (options.is_sync, options.performance_hint) == (is_sync, hint)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"hint": "fast"}, "-hint='fast'.*latency"),
        ({"api": "both"}, "-api='both'.*sync, async"),
        ({"time_s": 0.0}, "-t='0'"),
        ({"time_s": float("nan")}, "-t='nan'"),
        ({"iterations": -1}, "-niter='-1'"),
        ({"requests": 0}, "-nireq='0'"),
        ({"streams": 0}, "-nstreams='0'"),
    ],
)
def test_bad_values(given, words):
    with pytest.raises(OptionError, match=words):
        BenchOptions(MODEL, **given)


def test_streams_are_a_property():
    assert BenchOptions(MODEL, streams=3).config == {"NUM_STREAMS": 3}
    assert BenchOptions(MODEL).config == {}


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (None, {}),
        ("", {}),
        ("[1,3,224,224]", {"": (1, 3, 224, 224)}),
        ("data[1, 3],mask[4]", {"data": (1, 3), "mask": (4,)}),
        ("a:0[1] , b/c[2,2]", {"a:0": (1,), "b/c": (2, 2)}),
    ],
)
def test_shapes(text, shapes):
    assert parse_shapes(text) == shapes


@pytest.mark.parametrize(
    "text", ["1,3", "[", "[]", "[1,?]", "[-1,3]", "[0]", "a[1]a[2]", "a[1],a[2]", "a[1]b", "[1.5]"]
)
def test_bad_shapes(text):
    with pytest.raises(OptionError, match="-shape"):
        parse_shapes(text)


def test_limits_end_when_all_of_them_are_reached():
    limits = Limits(time_s=2.0, iterations=10)
    assert not limits.reached(3.0, 9)
    assert not limits.reached(1.0, 10)
    assert limits.reached(2.0, 10)
    assert limits.progress(1.0, 10) == 0.5
    assert Limits(iterations=4).progress(100.0, 1) == 0.25


def test_limits_by_default_and_in_rounds():
    assert BenchOptions(MODEL).limits == Limits(DEFAULT_TIME_S)
    assert BenchOptions(MODEL, iterations=5).limits == Limits(None, 5)
    assert Limits(10.0, 12).split(5) == Limits(2.0, 3)
