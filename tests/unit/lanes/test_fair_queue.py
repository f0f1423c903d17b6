"""The fair queue: every owner in turn, and each owner's items in order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.lanes.fair_queue import FairQueue

OWNERS = "abcd"
LOOK_AHEAD = 16


class Model:
    """The same queue, said plainly: owners stand in line, whoever was served goes to its end."""

    def __init__(self):
        self.line = []
        self.items = {owner: [] for owner in OWNERS}

    def put(self, owner, item):
        self.items[owner].append(item)
        if owner not in self.line:
            self.line.append(owner)

    def serve(self, owner):
        self.line.remove(owner)
        item = self.items[owner].pop(0)
        if self.items[owner]:
            self.line.append(owner)
        return item

    def take(self):
        return self.serve(self.line[0])

    def fill(self, room, weigh):
        taken = []
        in_turn = list(self.line)
        while in_turn:
            fitting = []
            for owner in in_turn:
                near = self.items[owner][:LOOK_AHEAD]
                items = [each for each in near if 0 < weigh(each) <= room]
                if items:
                    taken.append(items[0])
                    room -= weigh(items[0])
                    fitting.append(owner)
                    if items[0] is self.items[owner][0]:
                        self.serve(owner)
                    else:
                        self.items[owner].remove(items[0])
            in_turn = [owner for owner in fitting if self.items[owner]]
        return taken

    def drop(self, owner):
        if owner in self.line:
            self.line.remove(owner)
        dropped, self.items[owner] = self.items[owner], []
        return dropped


def weigh(item):
    return item[2]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(OWNERS), st.integers(0, 3)),
        st.tuples(st.just("put"), st.sampled_from(OWNERS), st.just(1)),
        st.tuples(st.just("take")),
        st.tuples(st.just("fill"), st.integers(0, 8)),
        st.tuples(st.just("drop"), st.sampled_from(OWNERS)),
    ),
    max_size=80,
)


@given(steps)
def test_it_does_as_a_line_of_owners_would(steps):
    queue, model = FairQueue(), Model()
    for number, (step, *arguments) in enumerate(steps):
        if step == "put":
            owner, kind = arguments
            queue.put(owner, (owner, number, kind))
            model.put(owner, (owner, number, kind))
        elif step == "drop":
            assert queue.drop(*arguments) == model.drop(*arguments)
        elif step == "fill":
            assert queue.fill(*arguments, weigh) == model.fill(*arguments, weigh)
        elif not model.line:
            with pytest.raises(KeyError):
                queue.take()
        else:
            assert queue.take() == model.take()
        assert [*queue] == [each for owner in model.line for each in model.items[owner]]
        assert len(queue) == sum(map(len, model.items.values()))
        for owner in OWNERS:
            assert queue.count_of(owner) == len(model.items[owner])


puts = st.lists(st.sampled_from(OWNERS), min_size=1, max_size=60)


@given(puts, st.randoms(use_true_random=False))
def test_between_two_of_one_owner_every_other_that_waits_gets_one(puts, random):
    queue = FairQueue()
    waiting = Counter()
    served_since = {}  # owner: owners served since its last turn
    for number, owner in enumerate(puts):
        queue.put(owner, (owner, number))
        waiting[owner] += 1
        if random.random() < 0.5:
            take_and_check(queue, waiting, served_since)
    while len(queue):
        take_and_check(queue, waiting, served_since)
    assert not +waiting


def take_and_check(queue, waiting, served_since):
    owner, _ = queue.take()
    others = {each for each in +waiting if each != owner}
    waited_before = served_since.get(owner, (set(), set(OWNERS)))[0]
    served = served_since.get(owner, (set(), set(OWNERS)))[1]
    assert waited_before & others <= served
    waiting[owner] -= 1
    for _, so_far in served_since.values():
        so_far.add(owner)
    served_since[owner] = ({each for each in +waiting if each != owner}, set())


@given(puts)
def test_each_owners_items_come_in_order(puts):
    queue = FairQueue()
    for number, owner in enumerate(puts):
        queue.put(owner, (owner, number))
    taken = [queue.take() for _ in range(len(queue))]
    for owner in OWNERS:
        assert [number for each, number in taken if each == owner] == [
            number for number, each in enumerate(puts) if each == owner
        ]


def test_one_with_a_thousand_does_not_keep_one_with_one_waiting():
    queue = FairQueue()
    for number in range(1000):
        queue.put("greedy", number)
    assert queue.take() == 0
    queue.put("modest", "mine")
    assert "mine" in [queue.take(), queue.take()]


def one(_item):
    return 1


def test_what_runs_together_is_taken_from_all_in_turn():
    queue = FairQueue()
    for owner in "ab":
        for number in range(3):
            queue.put(owner, f"{owner}{number}")
    assert queue.take() == "a0"
    assert queue.fill(3, one) == ["b0", "a1", "b1"]
    assert queue.take() == "a2"


def test_what_does_not_fit_is_passed_over_and_its_turn_comes_all_the_same():
    queue = FairQueue()
    queue.put("a", "large")
    for number in range(20):
        queue.put("a", f"a{number}")
        queue.put("b", f"b{number}")

    def weigh(item):
        return 0 if item == "large" else 1

    assert queue.fill(4, weigh) == ["a0", "b0", "a1", "b1"]
    assert queue.take() == "large"  # though others of its owner went before it


def test_one_that_is_passed_over_keeps_its_place_in_the_line():
    queue = FairQueue()
    for item in ("large", "small"):
        queue.put("a", item)
    queue.put("b", "large")
    assert queue.fill(1, lambda item: int(item == "small")) == ["small"]
    assert [*queue] == ["large", "large"]
    queue.put("b", "last")
    assert [queue.take(), queue.take(), queue.take()] == ["large", "large", "last"]


def test_a_turn_passes_only_when_the_first_goes():
    queue = FairQueue()
    for owner, item in ("a0", "a1", "b0", "b1", "a0"):
        queue.put(owner, f"{owner}{item}")
    assert queue.fill(1, lambda item: int(item == "a1")) == ["a1"]
    assert queue.take() == "a0"


def test_a_long_queue_is_not_searched_to_its_end():
    queue = FairQueue()
    for number in range(10_000):
        queue.put("a", number)
    looked_at = []

    def weigh(item):
        looked_at.append(item)
        return 0

    assert queue.fill(8, weigh) == []
    assert len(looked_at) < 50


def test_what_is_taken_has_room_together():
    queue = FairQueue()
    for item in (5, 3, 4, 1):
        queue.put("a", item)
    assert queue.fill(8, lambda item: item) == [5, 3]
    assert [*queue] == [4, 1]


def test_nothing_is_left_of_one_that_is_dropped():
    queue = FairQueue()
    for number in range(3):
        queue.put("gone", number)
    queue.put("stays", "x")
    assert queue.drop("gone") == [0, 1, 2]
    assert queue.drop("gone") == []
    assert queue.drop("never there") == []
    assert len(queue) == 1
    assert queue.take() == "x"
