"""Who does which fragment: event by event, and under any order of events."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atriva_ray.batch.schedule import FRAGMENTS_AT_ONCE, MAX_ATTEMPTS, Schedule, feeder_count


def schedule_of(count):
    return Schedule((index, f"item {index}") for index in range(count))


def taken(schedule, feeder_id):
    """Return the indexes a feeder gets until it gets no more."""
    indexes = []
    while (found := schedule.take(feeder_id)) is not None:
        index, item = found
        assert item == f"item {index}"
        indexes.append(index)
    return indexes


@pytest.mark.parametrize(
    ("cpus", "feeders"), [(0, 1), (0.5, 1), (7, 1), (8, 1), (15.9, 1), (16, 2), (128.0, 16)]
)
def test_a_node_gets_a_feeder_for_eight_cpus(cpus, feeders):
    assert feeder_count(cpus) == feeders


def test_feeders_get_what_is_next_and_no_more_than_a_few_at_once():
    schedule = schedule_of(10)
    assert taken(schedule, "ann") == [0, 1]
    assert taken(schedule, "bob") == [2, 3]
    assert taken(schedule, "ann") == []
    schedule.done(1)
    assert taken(schedule, "ann") == [4]
    assert FRAGMENTS_AT_ONCE == 2


def test_it_is_done_when_all_are_done_and_none_is_left():
    schedule = schedule_of(2)
    assert not schedule.is_done
    assert taken(schedule, "ann") == [0, 1]
    schedule.done(1)
    assert taken(schedule, "ann") == []
    assert not schedule.is_done
    schedule.done(0)
    assert schedule.is_done
    assert schedule.take("ann") is None
    assert schedule.is_done


def test_with_nothing_to_do_it_is_done_as_soon_as_somebody_asks():
    schedule = schedule_of(0)
    assert schedule.take("ann") is None
    assert schedule.is_done


def test_items_are_not_taken_before_they_are_wanted():
    made = []

    def items():
        for index in range(1_000_000):
            made.append(index)
            yield index, f"item {index}"

    schedule = Schedule(items())
    assert made == []
    assert taken(schedule, "ann") == [0, 1]
    assert made == [0, 1]
    assert taken(schedule, "ann") == []
    assert schedule.lost("ann") == []
    assert taken(schedule, "bob") == [0, 1]
    assert made == [0, 1]


def test_an_item_that_cannot_be_made_is_told_to_whoever_asks():
    def items():
        yield 0, "item 0"
        raise OSError("the list of files is gone")

    schedule = Schedule(items())
    schedule.take("ann")
    with pytest.raises(OSError, match="is gone"):
        schedule.take("ann")
    assert not schedule.is_done


def test_indexes_may_have_gaps_and_items_need_not_be_comparable():
    schedule = Schedule(iter([(7, {"any": "thing"}), (9, {"any": "thing"})]))
    assert [schedule.take("ann"), schedule.take("ann")] == [
        (7, {"any": "thing"}),
        (9, {"any": "thing"}),
    ]
    assert schedule.lost("ann") == []
    assert schedule.take("bob") == (7, {"any": "thing"})


def test_what_a_lost_feeder_had_goes_first_to_the_others_and_nobody_elses_is_touched():
    schedule = schedule_of(10)
    assert taken(schedule, "ann") == [0, 1]
    assert taken(schedule, "bob") == [2, 3]
    assert schedule.lost("ann") == []
    assert schedule.lost("ann") == []
    assert schedule.lost("nobody") == []
    schedule.done(2)
    assert taken(schedule, "bob") == [0]
    assert taken(schedule, "cid") == [1, 4]


def test_what_was_lost_later_but_comes_earlier_goes_first():
    schedule = schedule_of(10)
    assert taken(schedule, "ann") == [0, 1]
    assert taken(schedule, "bob") == [2, 3]
    schedule.lost("bob")
    schedule.lost("ann")
    assert taken(schedule, "cid") == [0, 1]
    assert taken(schedule, "dan") == [2, 3]


def test_what_is_begun_too_often_is_given_up_and_the_rest_goes_on():
    schedule = schedule_of(3)
    assert schedule.take("feeder 1")[0] == 0
    for attempt in range(1, MAX_ATTEMPTS):
        assert schedule.lost(f"feeder {attempt}") == []
        assert schedule.take(f"feeder {attempt + 1}")[0] == 0
    assert schedule.lost(f"feeder {MAX_ATTEMPTS}") == [0]
    assert taken(schedule, "ann") == [1, 2]
    schedule.done(1)
    schedule.done(2)
    assert taken(schedule, "ann") == []
    assert schedule.is_done


@pytest.mark.parametrize("index", [0, 5])
def test_what_does_not_run_cannot_be_done(index):
    schedule = schedule_of(3)
    schedule.take("ann")
    schedule.done(0)
    with pytest.raises(KeyError):
        schedule.done(index)


FEEDERS = ("ann", "bob", "cid")


class ScheduleMachine(RuleBasedStateMachine):
    """Feeders come, work and get lost; the books are kept here as well."""

    def __init__(self):
        super().__init__()
        self.total = 12
        self.made = 0
        self.schedule = Schedule(self.items())
        self.running = {}
        self.again = set()
        self.attempts = Counter()
        self.finished = Counter()
        self.given_up = set()

    def items(self):
        for index in range(self.total):
            self.made += 1
            yield index, f"item {index}"

    def load(self, feeder):
        return sum(owner == feeder for owner in self.running.values())

    @rule(feeder=st.sampled_from(FEEDERS))
    def take(self, feeder):
        made_before = self.made
        found = self.schedule.take(feeder)
        if self.load(feeder) >= FRAGMENTS_AT_ONCE:
            assert found is None
            assert self.made == made_before
            return
        if self.again:
            expected = min(self.again)
            assert self.made == made_before
            self.again.discard(expected)
        elif made_before < self.total:
            expected = made_before
        else:
            assert found is None
            return
        assert found == (expected, f"item {expected}")
        self.running[expected] = feeder
        self.attempts[expected] += 1

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def finish(self, data):
        index = data.draw(st.sampled_from(sorted(self.running)))
        self.schedule.done(index)
        del self.running[index]
        self.finished[index] += 1

    @rule(feeder=st.sampled_from(FEEDERS))
    def lose(self, feeder):
        mine = sorted(index for index, owner in self.running.items() if owner == feeder)
        given_up = [index for index in mine if self.attempts[index] == MAX_ATTEMPTS]
        assert self.schedule.lost(feeder) == given_up
        for index in mine:
            del self.running[index]
        self.given_up.update(given_up)
        self.again.update(set(mine) - set(given_up))

    @invariant()
    def nothing_is_begun_too_often(self):
        assert all(count <= MAX_ATTEMPTS for count in self.attempts.values())
        assert all(self.load(feeder) <= FRAGMENTS_AT_ONCE for feeder in FEEDERS)

    @invariant()
    def it_is_not_done_while_something_is_left(self):
        if self.running or self.again or self.made < self.total:
            assert not self.schedule.is_done

    def teardown(self):
        for _ in range(2 * self.total):
            for feeder in FEEDERS:
                self.take(feeder)
            for index in list(self.running):
                self.schedule.done(index)
                del self.running[index]
                self.finished[index] += 1
        assert self.schedule.is_done
        assert set(self.finished.values()) <= {1}
        assert set(self.finished) | self.given_up == set(range(self.total))
        assert not set(self.finished) & self.given_up


TestAnyOrderOfEvents = ScheduleMachine.TestCase
