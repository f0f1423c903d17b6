"""``atriva simulate`` as people type it."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.cluster.tools import BIN
from tests.conftest import EXAMPLES

MIXED = EXAMPLES / "simulate" / "mixed.yaml"
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


def test_the_example_compares_policies_and_draws_them(tmp_path):
    result = simulate(MIXED, "-p", "ours", "-p", "all-queues", "-o", tmp_path / "new")
    assert result.returncode == 0, result.stderr
    table = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in table] == ["ours", "all-queues"]
    content = json.loads((tmp_path / "new" / "mixed.json").read_text())
    assert content["scenario"]["clients"] == 20
    for row, outcome in zip(table, content["outcomes"], strict=True):
        assert outcome["policy"] == row[1].strip()
        assert float(row[3].replace(",", "")) == pytest.approx(outcome["p99_s"] * 1e3, abs=0.06)
        assert {group["name"] for group in outcome["groups"]} == {"fast", "medium", "slow"}
    assert (tmp_path / "new" / "mixed.png").read_bytes().startswith(PNG)


def test_nodes_are_counted(tmp_path):
    file = tmp_path / "node.yaml"
    file.write_text(MIXED.read_text().replace("load: 0.8", "rate_per_s: 30000"))
    result = simulate(file, "--plan", "0.05", "-p", "all-queues")
    assert result.returncode == 0, result.stderr
    table = [line.split("│") for line in result.stdout.splitlines() if line.startswith("│")]
    (first, *_) = table
    assert (first[1].strip(), first[2].strip()) == ("all-queues", "2")
    assert float(first[3]) <= 50
    assert "at most 50 ms" in result.stdout


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
