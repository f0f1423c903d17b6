import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.errors import ModelUnavailableError, UnknownModelError
from atriva_ray.serve.table import Offer, OfferState, Table, TableVersion, version_order

VERSIONS = st.integers(1, 30).map(str)
STATES = st.sampled_from(OfferState)


ORIGIN = "where it is from"


def offer(name="m", version="1", state=OfferState.READY, reason="", origin=None):
    load_id = f"{name}/{version}"
    return Offer(name, version, "f", state, load_id=load_id, reason=reason, origin=origin)


def table(*offers):
    made = Table(TableVersion(7))
    for name in {each.name for each in offers}:
        made = made.with_offers(name, [each for each in offers if each.name == name])
    return made


def test_the_highest_version_that_answers_is_found_whatever_the_order():
    made = table(offer(version="10"), offer(version="9"), offer(version="11", state="LOADING"))
    assert made.find("m").version == "10"
    assert made.find("m", "9").version == "9"
    assert made.versions("m") == ("9", "10")


def test_a_version_that_does_not_answer_says_why():
    made = table(offer(state=OfferState.UNAVAILABLE, reason="its file is broken"))
    with pytest.raises(ModelUnavailableError, match="unavailable: its file is broken"):
        made.find("m")
    with pytest.raises(ModelUnavailableError, match="version 1 is unavailable"):
        made.find("m", "1")


def test_unknown_names_and_versions_are_told_with_those_that_are_known():
    made = table(offer(), offer("other"))
    with pytest.raises(UnknownModelError, match="no model 'x' here; there are 'm', 'other'"):
        made.find("x")
    with pytest.raises(UnknownModelError, match="no version '2'; its versions are '1'"):
        made.find("m", "2")


def test_a_model_without_offers_is_gone():
    made = table(offer()).with_offers("m", ())
    assert made.models == {}


def test_what_cannot_be_opened_is_unavailable_in_the_same_table():
    good, bad = offer(), offer(version="2")
    made = table(good, bad)
    seen = made.without({bad: "no lane"})
    assert seen.version == made.version
    assert seen.find("m") is good
    with pytest.raises(ModelUnavailableError, match="no lane"):
        seen.find("m", "2")


def test_tables_of_a_later_catalog_are_newer():
    assert TableVersion(8, 0) > TableVersion(7, 99) > TableVersion(7, 98)
    assert Table().version < TableVersion(1)


@given(st.lists(st.tuples(VERSIONS, STATES), unique_by=lambda each: each[0]))
def test_what_is_found_is_ready_and_no_ready_one_is_higher(found):
    made = table(*(offer(version=version, state=state) for version, state in found))
    ready = sorted((version for version, state in found if state is OfferState.READY), key=int)
    if not ready:
        with pytest.raises((UnknownModelError, ModelUnavailableError)):
            made.find("m")
    else:
        assert made.find("m").version == ready[-1]


@given(st.lists(VERSIONS | st.text(max_size=3)))
def test_versions_are_ordered_by_number_and_other_names_come_first(versions):
    ordered = sorted(versions, key=version_order)
    numbers = [int(each) for each in ordered if each.isdecimal()]
    assert numbers == sorted(numbers)
    assert all(each.isdecimal() for each in ordered[len(ordered) - len(numbers) :])


def test_a_change_counts_the_tables():
    made = table(offer())
    assert made.with_offers("n", [offer("n")]).version == made.version.next()
    assert made.settled().version == made.version.next()
    assert made.settled().is_settled


def test_what_is_lost_stays_known_and_can_be_loaded_again():
    good, other = offer(origin=ORIGIN), offer("n", origin=ORIGIN)
    made = table(good, other)
    lost = made.with_lost({good: "its router died"})
    assert lost.version == made.version.next()
    assert lost.find("n") is other
    with pytest.raises(ModelUnavailableError, match="unavailable: its router died"):
        lost.find("m")
    found = lost.lost("m/1")
    assert found.is_lost
    assert not found.is_broken
    assert (found.origin, found.settings, found.fingerprint) == (ORIGIN, good.settings, "f")
    again = lost.with_offer(found.ready("next", found.origin))
    assert again.version == lost.version.next()
    assert (again.find("m").load_id, again.find("m").reason) == ("next", "")
    assert again.lost("m/1") is None


def test_nothing_lost_is_no_change():
    made = table(offer())
    assert made.with_lost({}) is made
    assert made.lost("m/1") is None


def test_a_version_that_never_was_loaded_is_broken_and_one_that_is_loading_neither():
    broken = offer(state=OfferState.UNAVAILABLE)
    assert broken.is_broken
    assert not broken.is_lost
    assert table(broken).lost("m/1") is None
    loading = offer(state=OfferState.LOADING)
    assert [loading.is_broken, loading.is_lost, loading.was_loaded] == [False] * 3


def test_one_version_is_exchanged_and_the_others_stay():
    first, second = offer(), offer(version="2")
    made = table(first, second)
    changed = made.with_offer(first.unavailable("it is gone"))
    assert [each.version for each in changed.models["m"]] == ["1", "2"]
    assert changed.find("m") is second
    assert not changed.models["m"][0].is_ready
