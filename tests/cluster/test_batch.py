"""Whole data sets on real clusters: nothing lost, nothing doubled, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from tests.cluster.tools import BIN, TOKEN_MODE, Cluster, wait_until
from tests.conftest import EXAMPLES, ROOT

PACED = ROOT / "tests" / "paced"
ROWS_PER_FILE = 20


@pytest.fixture(scope="module")
def paced(short_tmp):
    """A cluster whose devices take 2 and 8 ms for a row, and the environment of its programs."""
    folder = short_tmp / "p"
    folder.mkdir()
    env = {
        "PYTHONPATH": str(PACED),
        "PACED_DEVICES": "GPU=0.002,CPU=0.008",
        "ATRIVA_MODEL_STORE": str(folder / "store"),
    }
    running = Cluster(folder, env)
    yield TOKEN_MODE | env | {"RAY_ADDRESS": running.address}
    running.stop()


@pytest.fixture
def negate(tmp_path):
    path = tmp_path / "negate.onnx"
    path.write_bytes(b"the paced devices do not look inside")
    return path


def write_rows(folder: Path, files: int, width: int = 8) -> np.ndarray:
    """Write files of rows that are all different, and return the rows in order."""
    folder.mkdir()
    rows = np.arange(files * ROWS_PER_FILE * width, dtype="f4").reshape(-1, width)
    for index in range(files):
        np.save(folder / f"{index:04d}.npy", rows[index * ROWS_PER_FILE :][:ROWS_PER_FILE])
    return rows


def command(model, data, output, *options: str) -> list[str]:
    return [str(BIN / "atriva"), "batch", str(model), str(data), str(output), *options]


def start(arguments: list[str], env: dict[str, str], log: Path) -> subprocess.Popen:
    with log.open("a") as stream:
        return subprocess.Popen(
            arguments, env=os.environ | env, stdout=stream, stderr=subprocess.STDOUT
        )


def done_fragments(output: Path) -> int:
    return len(list((output / "_atriva" / "done").glob("*.json")))


def check_rows(output: Path, rows: np.ndarray) -> None:
    """See that the output has every row once, in order, answered right."""
    table = pq.read_table(output)
    parts = [pq.ParquetFile(part).metadata.num_rows for part in sorted(output.glob("part-*"))]
    assert sum(parts) == table.num_rows == len(rows)
    assert np.array_equal(table["y"].combine_chunks().flatten().to_numpy(), -rows.reshape(-1))
    identity = list(zip(table["path"].to_pylist(), table["row"].to_pylist(), strict=True))
    assert identity == sorted(set(identity))
    assert not [path.name for path in output.iterdir() if path.name.startswith(".")]


def test_every_device_works_and_rows_stay_in_order(paced, negate, tmp_path):
    rows = write_rows(tmp_path / "in", files=30)
    output, log = tmp_path / "out", tmp_path / "log"
    arguments = command(negate, tmp_path / "in", output, "--backend", "paced")
    assert start(arguments, paced, log).wait(120) == 0, log.read_text()
    check_rows(output, rows)
    report = json.loads((output / "_atriva" / "report.json").read_text())
    shares = {label.partition("/")[2]: share for label, share in report["devices"].items()}
    assert shares["GPU"] > 0.6
    assert shares["CPU"] > 0.1
    assert report["rows_in"] == report["rows_out"] == len(rows)


@pytest.mark.timeout(900)  # twenty-one programs, one after the other
def test_a_driver_killed_twenty_times_leaves_every_row_once(paced, negate, tmp_path):
    rows = write_rows(tmp_path / "in", files=400)
    output, log = tmp_path / "out", tmp_path / "log"
    arguments = command(negate, tmp_path / "in", output, "--backend", "paced", "--resume")
    chance = random.Random(7)  # noqa: S311 - moments to kill at
    kills = 0
    while kills < 20:
        before = done_fragments(output)
        running = start(arguments, paced, log)
        wait_until(lambda before=before: done_fragments(output) > before)
        time.sleep(chance.uniform(0, 0.3))
        assert running.poll() is None, f"done after {kills} kills\n{log.read_text()}"
        running.kill()
        running.wait(10)
        kills += 1
    assert start(arguments, paced, log).wait(120) == 0, log.read_text()
    check_rows(output, rows)
    report = json.loads((output / "_atriva" / "report.json").read_text())
    assert report["rows_before"] > 0


def workers_of(env: dict[str, str]) -> list[psutil.Process]:
    """Processes of Ray workers of a cluster, told by its address in their command lines."""
    port = env["RAY_ADDRESS"].rpartition(":")[2]
    found = []
    for process in psutil.process_iter(["cmdline", "name"]):
        parent = process.parent()
        if parent is None or parent.name() != "raylet":
            continue
        if any(f":{port}" in part for part in parent.cmdline()):
            found.append(process)
    return [process for process in found if "ray::" in (process.info["cmdline"] or [""])[0]]


@pytest.mark.timeout(300)
def test_workers_killed_during_a_job_cost_no_row(paced, negate, tmp_path):
    rows = write_rows(tmp_path / "in", files=300)
    output, log = tmp_path / "out", tmp_path / "log"
    arguments = command(negate, tmp_path / "in", output, "--backend", "paced", "--resume")
    chance = random.Random(11)  # noqa: S311 - whom to kill, and when
    killed: list[str] = []
    running = start(arguments, paced, log)
    while running.poll() is None and len(killed) < 8:
        before = done_fragments(output)
        wait_until(
            lambda before=before: done_fragments(output) > before or running.poll() is not None
        )
        victims = [w for w in workers_of(paced) if re.search("Replica|Feeder", w.cmdline()[0])]
        if victims:
            victim = chance.choice(victims)
            killed.append(victim.cmdline()[0])
            victim.kill()
        time.sleep(chance.uniform(0.2, 0.8))
    assert running.wait(170) == 0, log.read_text()
    assert len(killed) >= 4
    check_rows(output, rows)


def test_a_killed_router_costs_no_row(paced, negate, tmp_path):
    rows = write_rows(tmp_path / "in", files=120)
    output, log = tmp_path / "out", tmp_path / "log"
    arguments = command(negate, tmp_path / "in", output, "--backend", "paced")
    running = start(arguments, paced, log)
    wait_until(lambda: done_fragments(output) > 2)
    (router,) = [each for each in workers_of(paced) if "Router" in each.cmdline()[0]]
    router.kill()
    assert running.wait(170) == 0, log.read_text()
    check_rows(output, rows)


def test_an_interrupt_ends_soon_and_can_be_resumed(paced, negate, tmp_path):
    rows = write_rows(tmp_path / "in", files=120)
    output, log = tmp_path / "out", tmp_path / "log"
    arguments = command(negate, tmp_path / "in", output, "--backend", "paced")
    running = start(arguments, paced, log)
    wait_until(lambda: done_fragments(output) > 2)
    running.send_signal(signal.SIGINT)
    began_s = time.monotonic()
    assert running.wait(60) == 130, log.read_text()
    assert time.monotonic() - began_s < 5
    assert "Go on with --resume" in log.read_text()
    assert "Traceback" not in log.read_text()
    again = start([*arguments, "--resume"], paced, log)
    assert again.wait(120) == 0, log.read_text()
    check_rows(output, rows)


def test_another_model_or_input_is_refused(paced, negate, tmp_path):
    write_rows(tmp_path / "in", files=2)
    output, log = tmp_path / "out", tmp_path / "log"
    arguments = command(negate, tmp_path / "in", output, "--backend", "paced")
    assert start(arguments, paced, log).wait(120) == 0, log.read_text()
    assert start(arguments, paced, log).wait(120) == 2
    assert "pass --resume" in " ".join(log.read_text().split())
    (tmp_path / "in" / "9999.npy").write_bytes((tmp_path / "in" / "0000.npy").read_bytes())
    negate.write_bytes(b"another one")
    assert start([*arguments, "--resume"], paced, log).wait(120) == 2
    shown = " ".join(log.read_text().split())
    assert "9999.npy is new" in shown
    assert "model was" in shown


def test_memory_is_bounded_whatever_the_size(short_tmp, tmp_path):
    """5 GB of float32 through a model that costs nothing: all processes together stay small."""
    rows, width = 8_300, 3 * 224 * 224
    data = tmp_path / "rows.npy"
    with data.open("wb") as stream:  # a file of holes: it takes no room on the disk
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(stream, header)
        stream.truncate(stream.tell() + rows * width * 4)
    assert data.stat().st_size > 4.9e9
    model = tmp_path / "first.onnx"
    write_first(model, width)
    env = TOKEN_MODE | {"RAY_TMPDIR": str(short_tmp / "m")}
    running = start(command(model, data, tmp_path / "out"), env, tmp_path / "log")
    largest = 0
    while running.poll() is None:
        largest = max(largest, resident_bytes(running.pid))
        time.sleep(0.1)
    assert running.returncode == 0, (tmp_path / "log").read_text()
    assert pq.read_table(tmp_path / "out").num_rows == rows
    assert 0 < largest < 4e9


def resident_bytes(pid: int) -> int:
    total = 0
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def write_first(path: Path, width: int) -> None:
    """Write a model that returns the first four numbers of a row."""
    import onnx  # noqa: PLC0415 - only here
    from onnx import TensorProto, helper  # noqa: PLC0415

    bounds = [
        helper.make_tensor("start", TensorProto.INT64, [2], [0, 0]),
        helper.make_tensor("end", TensorProto.INT64, [2], [1, 4]),
    ]
    graph = helper.make_graph(
        [helper.make_node("Slice", ["x", "start", "end"], ["y"])],
        "first",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        bounds,
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (EXAMPLES / "batch").glob("*.py")), ids=str
)
def test_example_programs(name, embedded_cluster, capsys):
    import runpy  # noqa: PLC0415 - only here

    runpy.run_path(str(EXAMPLES / "batch" / name), run_name="__main__")
    assert re.search(r"recognised (9[6-9]|100)\.\d%", capsys.readouterr().out)
