"""Profiles: means, what is left over, and how they print."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.profiling import LayerProfile, Profile

LAYERS = [
    LayerProfile("conv1", "Convolution", "jit_avx512", 30.0),
    LayerProfile("a name that is much too long to be shown in full", "MatMul", "", 12.25),
]


def profile_of(layers, transfer_us, inference_us):
    return Profile.from_runs("conv", "CPU", layers, transfer_us, inference_us)


def test_times_are_means_over_the_runs():
    profile = profile_of(LAYERS, [1, 2, 3], [50, 60, 70])

    assert profile.runs == 3
    assert profile.transfer_us == 2
    assert profile.inference_us == 60
    assert profile.overhead_us == 60 - 42.25
    assert profile.total_us == 62


def test_overhead_is_never_negative():
    assert profile_of(LAYERS, [1], [40]).overhead_us == 0


times = st.lists(st.floats(0, 1e9), min_size=1, max_size=5)


@given(st.lists(st.builds(LayerProfile, st.text(), st.text(), st.text(), st.floats(0, 1e9))), times)
def test_any_profile_prints_one_line_a_row_and_becomes_json(layers, inference_us):
    profile = profile_of(layers, inference_us, inference_us)
    data = json.loads(json.dumps(profile.to_dict()))

    assert profile.overhead_us >= 0
    assert len(data["layers"]) == len(layers)
    assert data["total_us"] == pytest.approx(profile.total_us)
    assert len(str(profile).split("\n")) >= len(layers) + 6


def test_it_prints_like_this():
    # The last column is right-aligned, and long names are cut.
    assert str(profile_of(LAYERS, [2.0], [60.0])).split("\n") == [
        "conv on CPU, mean of 1 runs",
        "layer                                     kind         implementation  time µs",
        "────────────────────────────────────────  ───────────  ──────────────  ───────",
        "conv1                                     Convolution  jit_avx512         30.0",
        "a name that is much too long to be show…  MatMul                          12.2",
        "memory transfers                                                           2.0",
        "device overhead                                                           17.8",
        "total                                                                     62.0",
    ]
