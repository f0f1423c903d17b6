"""The order in which requests that wait have their turn."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_inference.terms import RANKS, USUAL, Priority, Terms
from atriva_inference.turns import PATIENCE
from atriva_inference.waiting_queue import WaitingQueue

LOW = Terms(priority=Priority.LOW)
HIGH = Terms(priority=Priority.HIGH)

all_terms = st.builds(
    lambda deadline_s, priority: Terms(deadline_s, deadline_s, priority),
    st.one_of(st.none(), st.integers(0, 3).map(float)),
    st.sampled_from(Priority),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), all_terms),
        st.tuples(st.just("put"), all_terms),
        st.tuples(st.just("take")),
        st.tuples(st.just("put back")),
        st.tuples(st.just("remove"), st.integers(0, 30)),
    ),
    max_size=60,
)


class Model:
    """The same queue, said plainly: one list, sorted whenever something is taken."""

    def __init__(self):
        self.waiting = []  # (rank, deadline, place, item)
        self.passed = [0] * RANKS

    def add(self, item, terms, place):
        if not any(entry[0] == terms.rank for entry in self.waiting):
            self.passed[terms.rank] = 0
        self.waiting.append((terms.rank, terms.deadline_s or 0.0, place, item))

    def take(self):
        ranks = sorted({entry[0] for entry in self.waiting})
        due = [rank for rank in ranks if self.passed[rank] >= PATIENCE]
        chosen = max(due, key=lambda rank: (self.passed[rank], -rank)) if due else ranks[0]
        if len(ranks) > 1:
            for rank in ranks:
                self.passed[rank] = 0 if rank == chosen else self.passed[rank] + 1
        entry = min(entry for entry in self.waiting if entry[0] == chosen)
        self.waiting.remove(entry)
        return entry[3]

    def remove(self, item):
        before = len(self.waiting)
        self.waiting = [entry for entry in self.waiting if entry[3] != item]
        return len(self.waiting) < before


@given(steps)
def test_it_does_as_a_sorted_list_would(steps):
    queue, model, terms_of, last = WaitingQueue(), Model(), {}, None
    for number, (step, *arguments) in enumerate(steps):
        if step == "put":
            terms_of[number] = arguments[0]
            assert queue.ahead_of(arguments[0]) == sum(
                (rank, deadline) <= (arguments[0].rank, arguments[0].deadline_s or 0.0)
                for rank, deadline, _, _ in model.waiting
            )
            queue.put(number, arguments[0])
            model.add(number, arguments[0], number)
        elif step == "put back" and last is not None:
            queue.put_back(last, terms_of[last])
            model.add(last, terms_of[last], -number)
            last = None
        elif step == "remove":
            (item,) = arguments
            assert queue.remove(item, terms_of.get(item, USUAL)) == model.remove(item)
        elif step == "take" and model.waiting:
            last = queue.take()
            assert last == model.take()
        assert len(queue) == len(model.waiting)
    assert queue.clear() == [model.take() for _ in range(len(model.waiting))]
    assert len(queue) == 0


@given(st.lists(st.lists(all_terms, min_size=1, max_size=3), min_size=40, max_size=80))
def test_no_rank_waits_for_ever(arrivals):
    """However much comes: between two turns of a rank that waits are at most so many others."""
    queue, waiting_since, number = WaitingQueue(), {}, 0
    ranks = {}
    for turn, some in enumerate(arrivals):
        for terms in some:
            number += 1
            queue.put(number, terms)
            ranks[number] = terms.rank
            waiting_since.setdefault(terms.rank, turn)
        taken = ranks.pop(queue.take())
        assert turn - waiting_since[taken] <= PATIENCE + RANKS
        waiting_since = {
            rank: turn + 1 if rank == taken else since
            for rank, since in waiting_since.items()
            if rank in ranks.values()
        }
        assert all(turn - since <= PATIENCE + RANKS for since in waiting_since.values())


def test_a_batch_job_keeps_nobody_waiting():
    queue = WaitingQueue()
    for number in range(1000):
        queue.put(number, LOW)
    assert [queue.take() for _ in range(3)] == [0, 1, 2]
    queue.put("usual")
    queue.put("urgent", HIGH)
    assert [queue.take(), queue.take(), queue.take()] == ["urgent", "usual", 3]


def test_low_has_its_share_while_others_come_without_end():
    queue = WaitingQueue()
    queue.put("first", LOW)
    queue.put("second", LOW)
    taken = []
    for number in range(40):
        queue.put(number)
        taken.append(queue.take())
    assert [taken.index("first"), taken.index("second")] == [PATIENCE, 2 * PATIENCE + 1]


def test_the_earliest_deadline_goes_first_and_equal_ones_in_order():
    queue = WaitingQueue()
    for name, deadline_s in {"late": 9.0, "early": 1.0, "early too": 1.0}.items():
        queue.put(name, Terms(1.0, deadline_s))
    queue.put("whenever")
    assert queue.clear() == ["early", "early too", "late", "whenever"]


def test_nothing_can_be_taken_of_nothing():
    with pytest.raises(IndexError):
        WaitingQueue().take()
