"""How busy slots are."""

from __future__ import annotations

import pytest

from atriva_ray.lanes.busy import BusyTime


def test_slots_side_by_side_add_up():
    busy = BusyTime()
    busy.began(10.0)
    busy.began(11.0)
    busy.ended(13.0)
    busy.ended(14.0, answered=8)
    assert busy.total_s(20.0) == 3 + 3
    assert busy.answered == 9


def test_what_still_runs_counts_up_to_now():
    busy = BusyTime()
    busy.began(10.0)
    assert busy.total_s(12.0) == 2
    assert busy.total_s(15.0) == 5


def test_clocks_that_come_out_of_order_take_nothing_off():
    busy = BusyTime()
    busy.began(10.0)
    busy.began(9.0)
    assert busy.total_s(11.0) == 2


def test_the_average_moves_towards_what_is_new():
    busy = BusyTime()
    assert busy.service_time_s is None
    busy.took(0.0)
    assert busy.service_time_s is None
    busy.took(1.0)
    busy.took(2.0)
    assert busy.service_time_s == pytest.approx(1.2)
