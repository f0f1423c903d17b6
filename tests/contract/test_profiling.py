"""Profiling: where the time of one inference goes, as a table and as data."""

from __future__ import annotations

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def profile(conv):
    return conv.get_profiling()


def test_it_prints_as_a_table(profile):
    head, titles, rule, *rows = str(profile).splitlines()

    assert head == f"conv on {profile.device}, mean of 10 runs"
    assert titles.split() == ["layer", "kind", "implementation", "time", "µs"]
    assert set(rule) == {"─", " "}
    assert len(rows) == len(profile.layers) + 3
    assert len({len(row) for row in (titles, rule, *rows)}) == 1
    for title, row in zip(("memory transfers", "device overhead", "total"), rows[-3:], strict=True):
        assert row.startswith(title)
        assert float(row.split()[-1]) >= 0


def test_every_layer_has_a_row(profile):
    rows = str(profile).splitlines()[3:-3]
    for layer, row in zip(profile.layers, rows, strict=True):
        assert row.startswith(layer.name[:39])
        assert f"{layer.time_us:.1f}" in row


def test_layers_are_those_of_the_model(profile):
    kinds = {layer.kind.lower() for layer in profile.layers}
    assert any("conv" in kind for kind in kinds)
    assert any("softmax" in kind for kind in kinds)
    assert all(layer.implementation for layer in profile.layers)


def test_times_are_positive_and_add_up(profile):
    layers_us = sum(layer.time_us for layer in profile.layers)

    assert profile.runs == 10
    assert all(layer.time_us >= 0 for layer in profile.layers)
    assert layers_us > 0
    assert profile.transfer_us > 0
    assert profile.inference_us > 0
    assert profile.overhead_us == pytest.approx(max(0, profile.inference_us - layers_us))
    assert profile.total_us == pytest.approx(profile.inference_us + profile.transfer_us)


def test_it_becomes_json(profile):
    data = json.loads(json.dumps(profile.to_dict()))

    assert data["model"] == "conv"
    assert data["device"] == profile.device
    assert data["total_us"] == pytest.approx(profile.total_us)
    assert [layer["name"] for layer in data["layers"]] == [layer.name for layer in profile.layers]


def test_it_runs_on_the_inputs_that_are_given(runtime, dynamic):
    large = runtime.tensor_from_numpy(np.ones((1, 256, 256, 3), np.uint8), layout="NHWC")
    small = dynamic.get_profiling(runs=3)
    profile = dynamic.get_profiling({"input": large}, runs=3)

    assert profile.runs == 3
    assert profile.inference_us > small.inference_us


def test_inputs_are_made_up_where_none_are_given(multi):
    profile = multi.get_profiling(runs=1)
    assert profile.runs == 1
    assert profile.layers


def test_the_model_goes_on_afterwards(conv, profile, expected):
    output = conv.run({"input": expected["x_nchw"]})["output"].to_numpy()
    assert output == pytest.approx(expected["y"], abs=1e-5)


@pytest.mark.parametrize("runs", [0, -1])
def test_fewer_than_one_run_is_refused(package, conv, runs):
    with pytest.raises(package.OptionError, match=f"runs='{runs}'"):
        conv.get_profiling(runs=runs)


def test_inputs_are_checked(package, conv):
    with pytest.raises(package.InputShapeError):
        conv.get_profiling({"input": np.ones((1, 3, 8, 9))})


def test_a_failure_is_the_one_that_run_raises(package, data_dependent):
    bad = {"data": np.ones(4), "shape": [3, 3]}
    with pytest.raises(package.InferenceFailedError, match="data_dependent"):
        data_dependent.get_profiling(bad)
    good = {"data": np.ones(4), "shape": [2, 2]}
    assert data_dependent.get_profiling(good, runs=1).layers
