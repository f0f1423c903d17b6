"""What is known of the ingresses."""

from __future__ import annotations

from atriva_ray.serve.followers import Followers
from atriva_ray.serve.table import TableVersion
from atriva_ray.serve.tally import Tally

OLD, NEW = TableVersion(7, 1), TableVersion(7, 2)


def test_a_table_is_known_when_the_last_ingress_has_it():
    followers = Followers()
    assert followers.have(NEW, 0.0)  # nobody is there who lacks it
    followers.asked("a", NEW, 0.0)
    followers.asked("b", OLD, 0.0)
    assert followers.have(OLD, 1.0)
    assert not followers.have(NEW, 1.0)
    followers.asked("b", NEW, 1.0)
    assert followers.have(NEW, 1.0)


def test_who_was_silent_for_long_is_waited_for_no_more():
    followers = Followers()
    followers.asked("a", OLD, 0.0)
    assert not followers.have(NEW, 15.0)
    assert followers.have(NEW, 15.1)
    followers.asked("a", OLD, 16.0)
    assert not followers.have(NEW, 16.0)


def test_what_ingresses_counted_is_added_up_also_of_those_that_ended():
    followers = Followers()
    followers.counted("a", {("m", "1"): Tally(success_count=2)})
    followers.asked("b", NEW, 0.0)
    followers.counted("b", {("m", "1"): Tally(success_count=1), ("gone", "1"): Tally()})
    followers.counted("b", {("m", "1"): Tally(success_count=3), ("gone", "1"): Tally()})
    assert followers.have(NEW, 100.0)
    assert followers.totals([("m", "1"), ("n", "1")]) == {
        ("m", "1"): Tally(success_count=5),
        ("n", "1"): Tally(),
    }
