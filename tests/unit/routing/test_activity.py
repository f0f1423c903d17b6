"""Who has used a replica of late."""

from __future__ import annotations

from atriva_ray.routing.activity import Activity


def test_others_are_those_that_were_seen_of_late():
    activity = Activity()
    assert activity.others("a", 0.0) == 0
    activity.seen("a", 0.0)
    assert activity.others("a", 0.0) == 0
    assert activity.others("b", 0.0) == 1
    activity.seen("b", 0.1)
    activity.seen("c", 0.2)
    assert activity.others("a", 0.2) == 2
    assert activity.others("a", 0.3) == 2
    assert activity.others("b", 0.3) == 1  # it is long since a was seen


def test_who_is_seen_again_stays():
    activity = Activity()
    activity.seen("a", 0.0)
    activity.seen("b", 0.2)
    activity.seen("a", 0.4)
    assert activity.others("c", 0.5) == 1
    assert activity.others("a", 0.5) == 0


def test_who_is_gone_is_gone_at_once():
    activity = Activity()
    activity.seen("a", 0.0)
    activity.forget("a")
    activity.forget("a")
    assert activity.others("b", 0.0) == 0
