"""What is loaded and unloaded as a repository changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.serve.repository.changes import (
    Changes,
    Target,
    applied,
    difference,
    settle,
    targets,
)
from atriva_ray.serve.repository.layout import RepositoryModel, broken_model
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.version_files import ModelVersion, UnreadyVersion


def version(number, fingerprint="a"):
    return ModelVersion(number, f"/r/net/{number}", "m.onnx", ("m.onnx",), 1, fingerprint)


def model(*versions, name="net", unready=(), **settings):
    found = tuple(each if isinstance(each, ModelVersion) else version(each) for each in versions)
    waiting = tuple(UnreadyVersion(number, "half") for number in unready)
    return RepositoryModel(name, ModelSettings(**settings), found, unready=waiting)


def watched(*looks, served=None):
    """Return what is served after each look, by version; None is a look without the model."""
    served, before, seen = served or {}, (), []
    for each in looks:
        look = () if each is None else (each,)
        served = settle(look, before, served)
        before = look
        seen.append({key[1]: target.version.fingerprint for key, target in served.items()})
    return seen


# -- what differs ------------------------------------------------------------------------------


def test_the_parts_of_a_difference():
    old = targets([model(1, 2, version(3), name="a", versions="all"), model(1, name="b")])
    new = targets([model(1, version(3, "b"), 4, name="a", versions="all"), model(1, name="c")])
    changes = difference(old, new)
    assert [each.key for each in changes.load] == [("a", 4), ("c", 1)]
    assert [each.key for each in changes.reload] == [("a", 3)]
    assert changes.reload[0].version.fingerprint == "b"
    assert [each.key for each in changes.unload] == [("a", 2), ("b", 1)]
    assert changes
    assert difference(new, new) == Changes()
    assert not Changes()


def test_other_settings_are_a_reason_to_reload_and_another_policy_is_none():
    old = targets([model(1)])
    assert difference(old, targets([model(1, device="CPU")])).reload
    assert not difference(old, targets([model(1, versions="all")]))


# -- what settles ------------------------------------------------------------------------------


def test_a_version_is_taken_when_it_looks_as_it_did_before():
    growing = [model(version(1, each)) for each in "abcc"]
    assert watched(*growing) == [{}, {}, {}, {1: "c"}]


def test_the_old_version_is_served_until_the_new_one_is_whole():
    looks = [model(1), model(1), model(1, unready=[2]), model(1, version(2, "x"))]
    looks += [model(1, version(2, "y"))] * 2
    assert watched(*looks) == [{}, {1: "a"}, {1: "a"}, {1: "a"}, {1: "a"}, {2: "y"}]


def test_a_version_that_is_written_over_is_served_as_it_was():
    looks = [model(1)] * 2 + [model(unready=[1]), model(version(1, "b")), model(version(1, "b"))]
    assert watched(*looks) == [{}, {1: "a"}, {1: "a"}, {1: "a"}, {1: "b"}]


def test_settings_settle_too():
    looks = [model(1, 2)] * 2 + [model(1, 2, versions=[1])] * 2
    assert watched(*looks) == [{}, {2: "a"}, {2: "a"}, {1: "a"}]


def test_what_cannot_be_read_leaves_things_as_they_are():
    broken = broken_model("net", "line 3")
    assert watched(model(1), model(1), broken, broken) == [{}, {1: "a"}, {1: "a"}, {1: "a"}]
    assert watched(broken, broken, model(1), model(1)) == [{}, {}, {}, {1: "a"}]
    mended = watched(model(1), model(1), broken, model(2), model(2))
    assert mended[-2:] == [{1: "a"}, {2: "a"}]


def test_what_is_gone_goes_when_two_looks_agree():
    looks = [model(1)] * 2
    assert watched(*looks, None, None) == [{}, {1: "a"}, {1: "a"}, {}]
    assert watched(*looks, None, model(1), model(1))[2:] == [{1: "a"}] * 3
    assert watched(model(1, 2), model(1, 2), model(1), model(1))[1:] == [
        {2: "a"},
        {2: "a"},
        {1: "a"},
    ]
    empty = model()
    assert watched(*looks, empty, empty)[2:] == [{1: "a"}, {}]


def test_a_start_need_not_wait():
    look = [model(1, 2, unready=[3]), broken_model("bad", "x")]
    assert list(targets(look)) == [("net", 2)]
    assert settle(look, look, {}) == targets(look)


# -- whatever happens --------------------------------------------------------------------------

SETTINGS = [ModelSettings(), ModelSettings(versions="all"), ModelSettings(device="CPU")]
SETTINGS += [ModelSettings(versions=[1, 3]), ModelSettings(versions={"latest": 2})]


@st.composite
def models(draw, name):
    if draw(st.integers(0, 9)) == 0:
        return broken_model(name, "it cannot be read")
    states = draw(st.dictionaries(st.integers(1, 4), st.sampled_from(["a", "b", ""])))
    found = tuple(version(number, each) for number, each in sorted(states.items()) if each)
    unready = tuple(UnreadyVersion(number, "half") for number, each in states.items() if not each)
    return RepositoryModel(name, draw(st.sampled_from(SETTINGS)), found, unready=unready)


@st.composite
def listings(draw):
    names = draw(st.sets(st.sampled_from("xyz")))
    return tuple(draw(models(name)) for name in sorted(names))


@given(listings(), listings())
def test_applying_the_changes_gives_the_new_listing(before, after):
    old, new = targets(before), targets(after)
    changes = difference(old, new)
    assert applied(old, changes) == new
    keys = [each.key for each in (*changes.load, *changes.reload, *changes.unload)]
    assert len(set(keys)) == len(keys)
    assert bool(changes) == (old != new)


@given(st.lists(listings(), max_size=8), listings())
def test_watching_ends_at_what_is_there(looks, last):
    served, before = {}, ()
    for look in looks:
        wanted = settle(look, before, served)
        _check_step(look, before, served, wanted)
        served, before = wanted, look
    for _ in range(2):
        served, before = settle(last, before, served), last
    held = {each.name for each in last if each.is_broken or each.unready}
    expected = targets(last)
    assert {key: each for key, each in served.items() if key[0] not in held} == {
        key: each for key, each in expected.items() if key[0] not in held
    }
    assert settle(last, last, served) == served


def _check_step(look, before, served, wanted):
    """What is taken was seen twice; what is let go of was missed twice, or is not chosen."""
    now, then = ({each.name: each for each in listing} for listing in (look, before))
    for key, target in wanted.items():
        if served.get(key) != target:
            for listing in (now, then):
                assert target.version in listing[key[0]].versions
                assert target.settings == listing[key[0]].settings.with_every_version()
    for name, number in served.keys() - wanted.keys():
        is_there = any(number in _numbers(listing.get(name)) for listing in (now, then))
        assert not is_there or number not in now[name].settings.versions.choose(
            {number} | {key[1] for key in wanted if key[0] == name}
        )


def _numbers(listed):
    found = () if listed is None else (*listed.versions, *listed.unready)
    return {each.version for each in found}


@pytest.mark.parametrize("change", [{"version": version(1, "b")}, {"name": "other"}])
def test_targets_compare_by_all_they_are(change):
    target = Target("net", version(1), ModelSettings())
    assert target == replace(target)
    assert target != replace(target, **change)
