"""Numbers of replicas and times that may be asked for."""

from __future__ import annotations

import numpy as np
import pytest

from atriva_inference.errors import OptionError
from atriva_ray.counts import check_count, check_idle, check_replicas


@pytest.mark.parametrize(
    ("value", "limits"),
    [("auto", (None, None)), (3, (3, None)), ((1, 4), (1, 4)), ([2, 2], (2, 2))],
)
def test_replicas(value, limits):
    assert check_replicas(value) == limits


@pytest.mark.parametrize(
    "value", ["many", 0, -1, True, 1.5, None, (4, 1), (0, 4), (1, 2, 3), (1,), ("1", "4"), 10_001]
)
def test_what_is_no_number_of_replicas(value):
    with pytest.raises(
        OptionError, match=r"replicas=.*'auto', a number from 1 to 10,000, or a pai"
    ):
        check_replicas(value)


def test_counts():
    assert check_count("cpus_per_replica", None) is None
    assert check_count("cpus_per_replica", 4) == 4
    with pytest.raises(OptionError, match="cpus_per_replica='0'"):
        check_count("cpus_per_replica", 0)


def test_idle_times():
    assert check_idle(None) is None
    assert check_idle(60) == 60.0


@pytest.mark.parametrize("value", [0, 0.5, -1, True, "60", float("nan"), float("inf"), np.zeros(2)])
def test_what_is_no_idle_time(value):
    with pytest.raises(OptionError, match=r"idle_s=.*seconds from 1 on"):
        check_idle(value)
