"""``atriva simulate`` as people type it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.cluster.tools import BIN
from tests.conftest import EXAMPLES

MIXED = EXAMPLES / "simulate" / "mixed.yaml"
FAULTS = EXAMPLES / "simulate" / "faults.yaml"
NAMES = ("faults", "without")
PNG = b"\x89PNG\r\n\x1a\n"


def simulate(*args):
    return subprocess.run(
        [str(BIN / "atriva"), "simulate", *map(str, args)],
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def shown(cell):
    return float(cell.replace(",", ""))


def test_the_example_compares_policies_and_draws_them(tmp_path):
    result = simulate(MIXED, "-p", "ours", "-p", "all-queues", "-o", tmp_path / "new")
    assert result.returncode == 0, result.stderr
    table = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in table] == ["ours", "all-queues"]
    content = json.loads((tmp_path / "new" / "mixed.json").read_text())
    assert content["scenario"]["clients"] == 20
    for row, outcome in zip(table, content["outcomes"], strict=True):
        assert outcome["policy"] == row[1].strip()
        assert shown(row[3]) == pytest.approx(outcome["p99_s"] * 1e3, abs=0.5)
        assert shown(row[4]) == pytest.approx(outcome["p99.9_s"] * 1e3, abs=0.5)
        assert shown(row[5]) == pytest.approx(outcome["in_time_per_s"], abs=0.5)
        assert shown(row[6]) == pytest.approx(outcome["idle_while_waiting"], abs=0.5)
        assert outcome["good_per_s"] is None
        assert {group["name"] for group in outcome["groups"]} == {"fast", "medium", "slow"}
    assert (tmp_path / "new" / "mixed.png").read_bytes().startswith(PNG)


def test_faults_are_in_the_figures_and_in_the_picture(tmp_path):
    without = FAULTS.read_text().partition("faults:")[0] + "seed: 1\n"
    (tmp_path / "without.yaml").write_text(without)
    for file in (FAULTS, tmp_path / "without.yaml"):
        result = simulate(file, "-p", "two-choices", "-o", tmp_path)
        assert result.returncode == 0, result.stderr
        assert "within 100 ms" in result.stdout
    contents = [json.loads((tmp_path / f"{name}.json").read_text()) for name in NAMES]
    assert [fault["slowdown"] for fault in contents[0]["scenario"]["faults"]] == [10, None, None]
    for with_faults, healthy in zip(*(each["outcomes"] for each in contents), strict=True):
        assert with_faults["p99.9_s"] > healthy["p99.9_s"]
        assert with_faults["idle_while_waiting"] > healthy["idle_while_waiting"]
        assert 0 < with_faults["good_per_s"] <= healthy["good_per_s"]
    heights = [(tmp_path / f"{name}.png").read_bytes()[20:24] for name in NAMES]
    assert heights[0] > heights[1]  # one panel more


def test_what_nobody_answers_is_counted(tmp_path):
    file = tmp_path / "dead.yaml"
    forever = "faults: [{at_s: 1, share: 1, dies: true}]"
    file.write_text(MIXED.read_text() + forever)
    result = simulate(file, "-p", "all-queues", "-p", "random", "-o", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "never" in result.stdout
    for outcome in json.loads((tmp_path / "dead.json").read_text())["outcomes"]:
        assert outcome["p99_s"] is None
        assert outcome["unanswered"] > outcome["requests"] / 2


def test_requests_come_as_a_file_beside_the_scenario_says(tmp_path):
    (tmp_path / "day.csv").write_text("time_s\n" + "\n".join(f"{i / 500}" for i in range(1_000)))
    file = tmp_path / "replayed.yaml"
    file.write_text("replicas: [{name: one, count: 10, service_time_s: 0.01}]\narrivals: day.csv\n")
    result = simulate(file, "-p", "two-choices", "-o", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "1,000 requests, 501 per second" in result.stdout
    content = json.loads((tmp_path / "replayed.json").read_text())
    assert content["scenario"]["arrivals"] == str(tmp_path / "day.csv")
    assert content["outcomes"][0]["requests"] == 1_000

    result = simulate(file, "--plan", "0.02", "-p", "all-queues")
    assert result.returncode == 0, result.stderr
    (tmp_path / "day.csv").write_text("time_s\n1\nnoon\n")
    result = simulate(file)
    assert result.returncode != 0
    assert "line 3" in result.stderr
    assert "Traceback" not in result.stderr


def test_nodes_are_counted(tmp_path):
    file = tmp_path / "node.yaml"
    file.write_text(MIXED.read_text().replace("load: 0.8", "rate_per_s: 30000"))
    result = simulate(
        file, "--plan", "0.05", "-p", "all-queues", "-p", "two-choices", "-o", tmp_path / "new"
    )
    assert result.returncode == 0, result.stderr
    table = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│")]
    (first, *_) = table
    assert (first[1].strip(), first[2].strip()) == ("all-queues", "2")
    assert float(first[3]) <= 50
    assert "at most 50 ms" in result.stdout
    content = json.loads((tmp_path / "new" / "node-plan.json").read_text())
    assert content["goal_p99_s"] == 0.05
    assert content["scenario"]["rate_per_s"] == 30_000
    found = [
        [policy["policy"], f"{each['nodes']:,}"]
        for policy in content["policies"]
        for each in policy["tries"]
    ]
    assert found == [[cell.strip() for cell in row[1:3]] for row in table]
    for policy in content["policies"]:
        tries = {each["nodes"]: each for each in policy["tries"]}
        assert tries[policy["nodes"]]["p99_s"] <= 0.05
        assert all(each["p99_s"] > 0.05 for n, each in tries.items() if n < policy["nodes"])
    assert (tmp_path / "new" / "node-plan.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, [], "No such file"),
        ("replicas: [", [], "scenario.yaml"),
        ("replicas: []\nload: 1", [], "at least one group"),
        ("load: 1", ["-p", "best"], "replicas"),
        (MIXED.read_text(), ["-p", "best"], "policy='best'"),
        (MIXED.read_text(), ["--plan", "1"], "rate_per_s"),
        (MIXED.read_text(), ["-p", "oracle", "-o", "/dev/null/there"], "cannot be written"),
        (MIXED.read_text() + "faults: [{at_s: 1}]", [], "share or count"),
        (MIXED.read_text() + "arrivals: day.csv", [], "No such file"),
    ],
)
def test_what_cannot_be_simulated_is_told(tmp_path, content, options, message):
    file = tmp_path / "scenario.yaml"
    if content is not None:
        file.write_text(content)
    result = simulate(file, *options)
    assert result.returncode != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr
