"""Who gets the free CPUs, and who gives way."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from atriva_ray.routing.placement import Placement, Seat
from atriva_ray.routing.shares import Crew, Member, share_out

ONE, TWO = Seat("n1", "one", "CPU"), Seat("n2", "two", "CPU")
GPU, GPU_TOO = Seat("n1", "one", "GPU.0"), Seat("n2", "two", "GPU.0")


def crew(key="a", held=(ONE,), wanted=1, seats=(ONE, TWO), minimum=1, size=1, **options):
    members = tuple(
        Member(f"{key}{number}", Placement(seat, size if seat.takes_cpus else 0))
        for number, seat in enumerate(held)
    )
    return Crew(key, members, tuple(seats), minimum, wanted, size, **options)


def counts(shares):
    return {key: len(placements) for key, placements in shares.added.items()}


def test_a_model_grows_onto_the_emptiest_place():
    shares = share_out([crew(wanted=4, size=2)], {"n1": 2, "n2": 5})
    assert shares.added == {
        "a": (Placement(TWO, 2), Placement(TWO, 2), Placement(ONE, 2)),
    }
    assert (shares.spared, shares.lacking, shares.promised) == ((), {}, {})


def test_what_finds_no_place_is_said():
    shares = share_out([crew(wanted=5)], {"n1": 1, "n2": 0.5})
    assert counts(shares) == {"a": 1}
    assert shares.lacking == {"a": 3}


def test_nodes_that_are_not_named_get_nothing():
    assert share_out([crew(wanted=3)], {}).lacking == {"a": 2}


def test_two_that_grow_get_the_same():
    a, b = crew("a", wanted=9), crew("b", wanted=9)
    assert counts(share_out([a, b], {"n1": 3, "n2": 3})) == {"a": 3, "b": 3}


def test_shares_are_compared_in_cpus_beyond_the_minimum():
    small = crew("a", held=[ONE] * 3, minimum=3, wanted=20)
    large = crew("b", wanted=20, size=2)
    assert counts(share_out([small, large], {"n1": 8})) == {"a": 4, "b": 2}


def test_a_device_of_its_own_takes_one_replica():
    gpus = crew(held=[GPU], wanted=4, seats=(GPU, GPU_TOO))
    shares = share_out([gpus], {"n1": 8, "n2": 8})
    assert shares.added == {"a": (Placement(GPU_TOO, 0),)}
    assert shares.lacking == {"a": 2}


def test_models_that_reserve_nothing_take_turns_on_all_cpus():
    turns = [crew(key, wanted=9, seats=[ONE], size=2, is_reserved=False) for key in "ab"]
    shares = share_out(turns, {"n1": 8})
    assert counts(shares) == {"a": 3, "b": 3}
    assert shares.lacking == {"a": 5, "b": 5}


def test_the_least_useful_replicas_go_first():
    held = [GPU, ONE, TWO, TWO, ONE, ONE]
    shares = share_out([crew(held=held, wanted=1)], {"n1": 0, "n2": 0})
    assert shares.spared == ("a3", "a2", "a5", "a4", "a1")


def test_one_that_does_not_answer_yet_goes_before_any_that_does():
    model = crew(held=[GPU, ONE, ONE], wanted=2)
    first, *others = model.members
    shares = share_out([replace(model, members=(replace(first, is_ready=False), *others))], {})
    assert shares.spared == ("a0",)


def test_nobody_goes_below_its_minimum_for_want_of_load():
    assert share_out([crew(held=[ONE] * 3, minimum=2, wanted=1)], {}).spared == ("a2",)


def test_the_one_with_more_gives_way_to_the_one_with_less():
    rich = crew("a", held=[ONE] * 4, wanted=4)
    poor = crew("b", wanted=4)
    shares = share_out([rich, poor], {"n1": 0})
    assert shares.spared == ("a3",)
    assert shares.promised == {"b": 1}
    assert shares.lacking == {"a": 1, "b": 2}
    after = crew("a", held=[ONE] * 3, wanted=4), crew("b", held=[ONE] * 2, wanted=4)
    assert share_out(after, {"n1": 0}).spared == ()


def test_several_small_ones_make_room_for_a_large_one():
    rich = crew("a", held=[ONE] * 9, wanted=9)
    poor = crew("b", wanted=2, size=3)
    shares = share_out([rich, poor], {"n1": 1})
    assert len(shares.spared) == 2
    assert shares.promised == {"b": 1}


def test_nobody_gives_way_where_that_helps_nobody():
    rich = crew("a", held=[ONE] * 9, wanted=9)
    assert share_out([rich, crew("b", wanted=2, seats=[TWO])], {"n1": 0, "n2": 0}).spared == ()
    equal = crew("b", held=[ONE] * 9, wanted=20)
    assert share_out([rich, equal], {"n1": 0}).spared == ()


def test_others_minimums_go_before_what_is_beyond_ones_own():
    one, two = crew("a", held=[ONE] * 3, wanted=3), crew("b", held=[ONE] * 5, wanted=5)
    shares = share_out([one, two], {"n1": -3})
    assert Counter(each[0] for each in shares.spared) == {"b": 3}
    assert len(share_out([one, two], {"n1": -20}).spared) == 6  # one of each is left


SEATS = st.sampled_from([ONE, TWO, GPU, GPU_TOO])


@st.composite
def clusters(draw):
    crews = []
    for key in "abc"[: draw(st.integers(1, 3))]:
        minimum = draw(st.integers(1, 3))
        held = draw(st.lists(SEATS, min_size=minimum, max_size=8))
        seats = draw(st.lists(SEATS, min_size=1, max_size=4, unique=True))
        crews.append(
            crew(
                key,
                held,
                draw(st.integers(minimum, 12)),
                seats,
                minimum,
                draw(st.integers(1, 4)),
                is_reserved=draw(st.booleans()),
            )
        )
    free = st.integers(-6, 12)
    return crews, {"n1": draw(free), "n2": draw(free)}


def settled(crews, free):
    """Do what is said, as a router would; return the crews, the free CPUs, and what was said."""
    shares = share_out(crews, free)
    free = dict(free)
    after = []
    for each in crews:
        kept = [member for member in each.members if member.replica_id not in shares.spared]
        added = shares.added.get(each.key, ())
        names = (f"{each.key}+{number}" for number in range(1_000_000))
        taken = {member.replica_id for member in kept}
        fresh = [
            Member(next(name for name in names if name not in taken), placement)
            for placement in added
        ]
        if each.is_reserved:
            for member in set(each.members) - set(kept):
                free[member.placement.seat.node_id] += member.placement.cpu_count
            for placement in added:
                free[placement.seat.node_id] -= placement.cpu_count
        after.append(replace(each, members=(*kept, *fresh)))
    return after, free, shares


@given(clusters())
def test_minimums_and_nodes_are_respected(cluster):
    crews, free = cluster
    after, left, shares = settled(crews, free)
    known = [member.replica_id for each in crews for member in each.members]
    assert len(set(shares.spared)) == len(shares.spared)
    assert set(shares.spared) <= set(known)
    for before, each in zip(crews, after, strict=True):
        assert len(each.members) >= min(each.minimum, len(before.members))
        assert len(each.members) <= max(each.wanted, len(before.members))
        for placement in shares.added.get(each.key, ()):
            assert placement.seat in each.seats
            assert free[placement.seat.node_id] > 0 or shares.spared or not placement.cpu_count
    for node_id, count in left.items():
        assert count >= min(0, free[node_id])


@settings(max_examples=200)
@given(clusters())
def test_it_comes_to_rest(cluster):
    crews, free = cluster
    for _ in range(60):
        crews, free, shares = settled(crews, free)
        if not shares.added and not shares.spared:
            break
    assert not shares.added
    assert not shares.spared


@given(st.integers(0, 30), st.integers(2, 30), st.integers(2, 30))
def test_on_one_node_shares_end_up_equal(cpus, one, other):
    crews = [crew(key, [ONE], wanted, [ONE]) for key, wanted in (("a", one), ("b", other))]
    left = {"n1": cpus}
    for _ in range(10):
        crews, left, _ = settled(crews, left)
    counts = [len(each.members) for each in crews]
    if min(one, other) - 1 > cpus // 2:
        assert abs(counts[0] - counts[1]) <= 1
    assert sum(counts) == min(cpus + 2, one + other)
