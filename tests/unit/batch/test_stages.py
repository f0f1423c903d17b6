"""Where the time of a job goes, told by a clock that only moves when it is told to."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atriva_ray.batch import stages
from atriva_ray.batch.report import BatchReport
from atriva_ray.batch.stages import Stage, StageTimes

PATIENCE_S = 30


class Clock:
    """Every thread has a time of its own, so that tests need not wait for each other."""

    def __init__(self):
        self._own = threading.local()

    def now(self):
        return getattr(self._own, "seconds", 100.0)

    def pass_by(self, seconds):
        self._own.seconds = self.now() + seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(stages, "time", SimpleNamespace(perf_counter=clock.now))
    return clock


def told(times):
    """Return the stages that took any time."""
    return {stage: seconds for stage, seconds in times.seconds().items() if seconds}


def test_stages_that_never_began_have_nothing():
    assert StageTimes().seconds() == dict.fromkeys(("read", "decode", "wait", "infer", "write"), 0)


def test_blocks_of_one_stage_add_up(clock):
    times = StageTimes()
    for seconds in (1, 2, 4):
        with times.during(Stage.READ):
            clock.pass_by(seconds)
        clock.pass_by(1000)  # belongs to nobody
    assert told(times) == {"read": 7}


def test_a_stage_inside_another_is_not_counted_twice(clock):
    times = StageTimes()
    with times.during(Stage.WAIT):
        clock.pass_by(1)
        with times.during(Stage.READ):
            clock.pass_by(10)
            with times.during(Stage.DECODE):
                clock.pass_by(100)
            clock.pass_by(20)
        clock.pass_by(2)
        with times.during(Stage.DECODE):
            clock.pass_by(200)
        clock.pass_by(4)
    with times.during(Stage.WAIT):
        clock.pass_by(1000)
    assert told(times) == {"wait": 1007, "read": 30, "decode": 300}


def test_a_stage_inside_itself_counts_once(clock):
    times = StageTimes()
    with times.during(Stage.READ):
        clock.pass_by(1)
        with times.during(Stage.READ):
            clock.pass_by(2)
    assert told(times) == {"read": 3}


trees = st.recursive(
    st.builds(lambda stage, own: (stage, own, []), st.sampled_from(Stage), st.integers(0, 9)),
    lambda inner: st.tuples(st.sampled_from(Stage), st.integers(0, 9), st.lists(inner, max_size=3)),
)


@given(st.lists(trees, max_size=4))
def test_however_stages_are_nested_they_add_up_to_the_clock(forest):
    clock, times = Clock(), StageTimes()
    expected = dict.fromkeys(map(str, Stage), 0)

    def live(stage, own, inner):
        expected[stage] += own
        with times.during(stage):
            clock.pass_by(own)
            for each in inner:
                live(*each)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "time", SimpleNamespace(perf_counter=clock.now))
        for tree in forest:
            live(*tree)
    assert times.seconds() == expected
    assert sum(expected.values()) == clock.now() - 100


def test_what_fails_has_taken_its_time_too(clock):
    times = StageTimes()

    def read():
        with times.during(Stage.READ):
            clock.pass_by(2)
            raise OSError("gone")

    with times.during(Stage.WAIT):
        clock.pass_by(1)
        with pytest.raises(OSError, match="gone"):
            read()
        clock.pass_by(4)
    with times.during(Stage.WAIT):
        clock.pass_by(8)
    assert told(times) == {"wait": 13, "read": 2}


def test_threads_at_work_at_once_add_up_to_more_than_the_clock(clock):
    times, inside = StageTimes(), threading.Barrier(3)

    def work(stage, seconds):
        with times.during(stage):
            inside.wait(PATIENCE_S)
            clock.pass_by(seconds)

    with ThreadPoolExecutor(3) as threads:
        working = [
            threads.submit(work, stage, seconds)
            for stage, seconds in ((Stage.DECODE, 1), (Stage.DECODE, 2), (Stage.READ, 4))
        ]
        for each in working:
            each.result(PATIENCE_S)
    assert told(times) == {"decode": 3, "read": 4}


def test_a_stage_on_another_thread_is_not_inside(clock):
    times = StageTimes()

    def decode():
        with times.during(Stage.DECODE):
            clock.pass_by(5)

    with ThreadPoolExecutor(1) as threads, times.during(Stage.WAIT):
        threads.submit(decode).result(PATIENCE_S)
        clock.pass_by(3)
    assert told(times) == {"wait": 3, "decode": 5}


def test_nothing_gets_lost_between_threads():
    times, begun = StageTimes(), threading.Barrier(8)

    def add():
        begun.wait(PATIENCE_S)
        for _ in range(2_000):
            times.add(Stage.WRITE, 0.5)

    with ThreadPoolExecutor(8) as threads:
        for each in [threads.submit(add) for _ in range(8)]:
            each.result(PATIENCE_S)
    assert times.seconds()["write"] == 8_000


def test_what_was_told_does_not_change_later():
    times = StageTimes()
    before = times.seconds()
    times.add(Stage.INFER, 1)
    assert before["infer"] == 0
    before["infer"] = 7
    assert times.seconds()["infer"] == 1


@pytest.mark.parametrize(
    ("seconds", "slowest"), [({"read": 1.0, "infer": 3.0, "write": 2.0}, "infer"), ({}, "")]
)
def test_a_report_names_the_stage_that_took_longest(seconds, slowest):
    report = BatchReport(
        output="out",
        rows_in=0,
        rows_out=0,
        rows_bad=0,
        rows_before=0,
        fragments=0,
        seconds=0.0,
        infer_seconds=0.0,
        rows_per_s=0.0,
        stages=seconds,
        devices={},
    )
    assert report.bound_by == slowest
    assert report.as_json()["stages"] == seconds
