"""``atriva bench`` as people type it; that it measures, not how fast anything is."""

from __future__ import annotations

import csv
import json
import os
import subprocess

import numpy as np
import pytest

from tests.cluster.tools import BIN, TOKEN_MODE
from tests.conftest import EXAMPLES, MODELS

DIGITS = EXAMPLES / "models" / "digits.onnx"
DYNAMIC = MODELS / "onnx" / "dynamic.onnx"


def bench(*args, **env):
    return subprocess.run(
        [str(BIN / "atriva"), "bench", *map(str, args)],
        env=os.environ | {"COLUMNS": "120"} | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def joined(cluster):
    """Run the command on a cluster that is there already."""
    return lambda *args: bench(*args, RAY_ADDRESS=cluster.address, **TOKEN_MODE)


def test_on_a_cluster(joined, tmp_path):
    flags = "-niter 50 -nireq 3 -nstreams 1 -json_stats -report_type average_counters"
    result = joined("-m", DIGITS, *flags.split(), "-report_folder", tmp_path / "new")
    assert result.returncode == 0, result.stderr
    for words in ("cluster:", "3 requests under way", "50 requests", "latency, median", "FPS"):
        assert words in result.stdout
    report = json.loads((tmp_path / "new" / "benchmark_report.json").read_text())
    assert report["cmd_options"]["-niter"] == "50"
    assert report["configuration_setup"]["API"] == "async"
    assert report["execution_results"]["total number of iterations"] == "50"
    assert float(report["execution_results"]["throughput"]) > 0
    counters = tmp_path / "new" / "benchmark_average_counters_report.json"
    layers = json.loads(counters.read_text())["avg_performance"]["nodes"]
    assert {"name", "node_type", "exec_type", "real_time"} <= set(layers[0])


def test_both_places_in_turns(joined):
    result = joined(DIGITS, "--compare", "-t", "0.5", "-hint", "latency", "-api", "async")
    assert result.returncode == 0, result.stderr
    assert "cluster ÷ one process" in result.stdout
    assert result.stdout.count("FPS") == 2


def test_in_this_process(tmp_path):
    flags = "--local -hint latency -t 0.2 -d CPU -report_type detailed_counters"
    result = bench(DIGITS, *flags.split(), "-report_folder", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "one process:" in result.stdout
    assert "one at a time" in result.stdout
    with (tmp_path / "benchmark_report.csv").open() as file:
        rows = dict(row for row in csv.reader(file, delimiter=";") if len(row) == 2)
    assert rows["API"] == "sync"
    assert rows["-hint"] == "latency"
    assert float(rows["latency (ms)"]) > 0
    with (tmp_path / "benchmark_detailed_counters_report.csv").open() as file:
        table = list(csv.reader(file, delimiter=";"))
    assert table[0][0] == "layerName"
    assert "Total" in {row[0] for row in table if row}


def test_shapes_and_own_inputs(tmp_path):
    assert "-shape" in bench(DYNAMIC, "--local").stderr
    shape = ("-shape", "[1,3,20,30]")
    result = bench(DYNAMIC, "--local", "-niter", 5, *shape)
    assert result.returncode == 0, result.stderr
    np.save(tmp_path / "frame.npy", np.zeros((1, 3, 20, 30), np.float32))
    result = bench(DYNAMIC, "--local", "-niter", 5, "-i", tmp_path / "frame.npy", *shape)
    assert result.returncode == 0, result.stderr
    assert "5 requests" in result.stdout


def test_only_compiling():
    result = bench(DIGITS, "--local", "-niter", 0)
    assert result.returncode == 0, result.stderr
    assert "compile model" in result.stdout
    assert "throughput  " not in result.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "a model file"),
        ([DIGITS, "-m", DIGITS], "one model"),
        ([DIGITS, "-hint", "fast"], "-hint='fast'"),
        ([DIGITS, "-api", "both"], "-api='both'"),
        ([DIGITS, "-t", "0"], "-t='0'"),
        ([DIGITS, "-t", "soon"], "-t"),
        ([DIGITS, "-report_type", "all"], "-report_type='all'"),
        ([DIGITS, "-report_folder", DIGITS], "-report_folder="),
        ([DIGITS, "-shape", "1,3"], "-shape='1,3'"),
        ([DIGITS, "-shape", "nope[1,1,8,8]", "--local"], "'input'"),
        ([DIGITS, "-i", "none.npy"], "there is no such file"),
        ([DIGITS, "--local", "--compare"], "one of the two"),
        ([DIGITS, "-nthreads", "4"], "No such option: -nthreads"),
        ([DIGITS, "-data_shape", "[1]"], "No such option: -data_shape"),
        (["none.onnx", "--local"], "no model file"),
    ],
)
def test_bad_requests_are_one_line_and_exit_with_2(args, words):
    result = bench(*args)
    assert result.returncode == 2, result
    assert words in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


def test_help_shows_the_usual_flags():
    shown = bench("--help").stdout
    usual = "-m -d -hint -api -t -niter -nireq -nstreams -shape -i -report_type -report_folder"
    for flag in f"{usual} -json_stats --local --compare".split():
        assert f"{flag} " in shown, flag
