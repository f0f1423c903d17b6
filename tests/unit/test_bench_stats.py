from __future__ import annotations

import pytest

from atriva_ray.bench.stats import Ratio, Sample, pooled, ratio_of, summarise


def test_the_figures_of_a_sample():
    figures = summarise(Sample([0.1, 0.4, 0.1, 0.2], elapsed_s=0.5), batch_size=3)
    assert figures.count == 4
    assert figures.duration_s == 0.5
    assert figures.median_s == pytest.approx(0.15)
    assert figures.average_s == pytest.approx(0.2)
    assert (figures.min_s, figures.max_s) == (0.1, 0.4)
    assert figures.throughput == pytest.approx(24)


def test_nothing_answered():
    figures = summarise(Sample([], elapsed_s=2.0))
    assert (figures.count, figures.throughput, figures.median_s) == (0, 0, 0)
    assert Sample([], elapsed_s=0.0).rate == 0


def test_turns_are_pooled_without_the_breaks_between_them():
    joined = pooled([Sample([1.0], 2.0), Sample([2.0, 3.0], 4.0)])
    assert joined == Sample([1.0, 2.0, 3.0], 6.0)
    assert joined.rate == 0.5


def test_ratios_are_taken_round_by_round():
    ours = [Sample([0.1] * count, 1.0) for count in (10, 90, 40)]
    theirs = [Sample([0.1] * count, 1.0) for count in (20, 100, 50)]
    assert ratio_of(ours, theirs) == Ratio(0.8, 0.5, 0.9)


def test_a_round_without_answers_of_the_other_says_nothing():
    some, none = Sample([0.1], 1.0), Sample([], 1.0)
    assert ratio_of([some, some], [none, some]) == Ratio(1, 1, 1)
    assert ratio_of([some], [none]) is None
