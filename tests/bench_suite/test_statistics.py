from __future__ import annotations

import pytest

from benchmarks import statistics
from benchmarks.goals import GOALS, judge
from benchmarks.models import digits
from benchmarks.peers.benchmark_app import parse_throughput
from benchmarks.results import MemoryResult, Results, RowResult, ScenarioResult
from benchmarks.scenarios import Row, make_scenarios
from benchmarks.suite import Plan, turns_of


def test_percentiles_are_values_that_were_measured():
    values = [float(value) for value in range(100, 0, -1)]
    assert statistics.percentile(values, 50) == 50
    assert statistics.percentile(values, 99) == 99
    assert statistics.percentile([7.0], 1) == 7
    with pytest.raises(ValueError, match="no values"):
        statistics.percentile([], 50)


def test_programs_together_add_up_over_the_time_of_the_slowest():
    turns = [[(10, 1.0), (20, 1.0)], [(30, 2.0), (40, 2.5)]]
    assert statistics.together(turns) == pytest.approx(100 / 3.5)
    assert statistics.together([]) == 0


def test_medians_of_round_by_round_comparisons():
    scenario = ScenarioResult(
        "s",
        "S",
        "flow",
        "bare",
        [RowResult("bare", "bare", 1, [10, 100, 50]), RowResult("ours", "ours", 1, [9, 50, 40])],
    )
    assert scenario.ratio("ours") == pytest.approx(0.8)
    assert scenario.ratio("bare", "ours") == pytest.approx(1.25)
    assert scenario.ratio("nobody") is None
    assert scenario.added_ms("ours") is None


def test_every_row_is_visited_equally_often_and_begins_a_turn_in_its_time():
    rows = [Row(name, name, (name,)) for name in "abc"]
    turns = list(turns_of(rows, Plan(rounds=2, turns=3, seconds=1, threads=1)))
    assert len(turns) == 18
    assert [row.name for _, row in turns[::3]] == list("abcabc")
    assert [index for index, _ in turns] == [0] * 9 + [1] * 9


def test_goals_know_met_short_and_not_measured():
    base, ours, four = (RowResult(name, name, 1) for name in ("bare", "ours", "ours_4"))
    base.rates, ours.rates, four.rates = [100.0], [98.0], [90.0]
    results = Results({}, memory=MemoryResult([{"uss": 50_000_000}], [{"uss": 25_000_000}]))
    results.scenarios["squeezenet"] = ScenarioResult("", "", "flow", "bare", [base, ours, four])
    verdicts = {verdict.goal.text: verdict for verdict in judge(results)}
    assert len(verdicts) == len(GOALS)
    assert verdicts["SqueezeNet, one client, of AsyncInferQueue"].word == "met"
    assert verdicts["SqueezeNet, four clients together"].word == "short"
    assert verdicts["ResNet-50, one client, of AsyncInferQueue"].word == "not measured"
    assert verdicts["extra memory of a replica over a bare actor (USS)"].measured == "25.0 MB"


@pytest.mark.parametrize(
    ("rate", "in_process", "is_met"), [(11_000, 50_000, True), (4_000, 7_000, True), (1, 9, False)]
)
def test_the_goal_for_digits_has_two_ways(rate, in_process, is_met):
    rows = [
        RowResult("in_process", "", 1, [float(in_process)]),
        RowResult("ours", "", 1, [float(rate)]),
    ]
    results = Results({}, {"digits": ScenarioResult("digits", "", "flow", "bare", rows)})
    (verdict,) = [each for each in judge(results) if each.is_met is not None]
    assert verdict.is_met is is_met


def test_the_throughput_of_benchmark_app():
    assert parse_throughput("[ INFO ] Throughput:   180.38 FPS\n") == 180.38
    with pytest.raises(ValueError, match="no throughput"):
        parse_throughput("[ ERROR ] Input input is dynamic")


def test_scenarios_hold_together(tmp_path):
    for scenario in make_scenarios(tmp_path):
        known = {program.name for program in scenario.programs}
        used = {name for row in scenario.rows for name in row.programs}
        assert used == known, scenario.name
        names = [row.name for row in scenario.rows]
        assert len(set(names)) == len(names)
        assert scenario.model.path.is_file()
        for program in scenario.programs:
            job = scenario.job(program, 2)
            assert type(job).from_json(job.to_json()) == job
    assert digits().path.is_file()
