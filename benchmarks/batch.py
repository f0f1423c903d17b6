"""Whole data sets: ours beside bare OpenVINO and beside plain Ray Data, in turns.

``python -m benchmarks.batch [--only arrays,jpeg,devices] [--rounds 3] [--seconds 20]`` starts a Ray
node of its own, prints a table, and writes JSON, Markdown and a plot.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import openvino as ov
import ray
import typer
from PIL import Image
from rich.console import Console
from sklearn.datasets import load_sample_images

from atriva_inference.preprocess import Preprocessing
from atriva_ray import InferenceRuntime
from atriva_ray.batch.launch import run
from atriva_ray.batch.report import BatchReport, JobProgress
from atriva_ray.pictures import decode_picture
from benchmarks.figures import Figures, show, write
from benchmarks.models import light
from benchmarks.peers.ray_data import run_ray_data
from benchmarks.ray_node import RayNode

__all__ = ["main", "native_rate"]

_ROOT = Path(__file__).parent.parent
_PACED = _ROOT / "tests" / "paced"
_ROWS_PER_FILE = 64
_DISTINCT_FILES = 4
_FAST_S, _SLOW_S = 0.005, 0.02
_LAST_SHARE = 0.05
_CPUS = 4
"""Logical ones: Ray Data's readers and its actor each want one beside the model."""

_out = Console()


# -- float32 arrays --------------------------------------------------------------------------


def native_rate(model: Path, arrays: Sequence[Any], rows: int, properties: dict[str, Any]) -> float:
    """Rows per second of `AsyncInferQueue` over arrays in memory."""
    core = ov.Core()
    queue = ov.AsyncInferQueue(core.compile_model(core.read_model(model), "CPU", properties))
    answers: list[Any] = []
    queue.set_callback(
        lambda request, _: answers.append(np.array(request.get_output_tensor(0).data))
    )
    for array in arrays[:4]:
        queue.start_async({0: array})
    queue.wait_all()
    began_s = time.perf_counter()
    for index in range(rows):
        queue.start_async({0: arrays[index % len(arrays)]})
    queue.wait_all()
    return rows / (time.perf_counter() - began_s)


def _arrays(figures: Figures, folder: Path, name: str, rounds: int, seconds: float) -> None:
    model = light(name)
    threads = os.cpu_count() or 1
    properties = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads}
    generator = np.random.default_rng(1)
    samples = [generator.random(model.shape, "f4") for _ in range(_ROWS_PER_FILE)]
    rate = native_rate(model.path, samples, 100, properties)
    files = folder / name
    _write_arrays(files, samples, max(2, int(rate * seconds / _ROWS_PER_FILE)))
    rows = _ROWS_PER_FILE * len(list(files.iterdir()))
    _out.print(f"{name}: {rows:,} rows of {samples[0].nbytes:,} bytes")
    goals = {"squeezenet": 0.92, "resnet50": 0.97}
    for number in range(rounds):
        # Native before and after each: the machine may be another one a minute later.
        first = native_rate(model.path, samples, rows // 2, properties)
        report, ours_s = _ours(model.path, files, folder / f"out-{name}-{number}")
        second = native_rate(model.path, samples, rows // 2, properties)
        peer = run_ray_data(model.path, files, folder / f"peer-{name}-{number}", threads)
        third = native_rate(model.path, samples, rows // 2, properties)
        shutil.rmtree(folder / f"peer-{name}-{number}")
        native, beside_peer = (first + second) / 2, (second + third) / 2
        figures.add(f"{name}: native, rows/s", native)
        figures.add(f"{name}: ours, steady, of native", report.rows_per_s / native, goals[name])
        figures.add(f"{name}: Ray Data, steady, of native", peer.steady_rows_per_s / beside_peer)
        figures.add(f"{name}: ours with start-up, of native", rows / ours_s / native)
        figures.add(f"{name}: Ray Data with start-up, of native", rows / peer.seconds / beside_peer)
        figures.add(f"{name}: ours ÷ Ray Data, with start-up", peer.seconds / ours_s, 1.4)
    shutil.rmtree(files)


def _write_arrays(folder: Path, samples: Sequence[Any], count: int) -> None:
    """Write files of which most are links: what is read is in the page cache anyway."""
    folder.mkdir()
    content = np.concatenate(samples)
    for index in range(count):
        path = folder / f"rows-{index:05d}.npy"
        if index < _DISTINCT_FILES:
            np.save(path, np.roll(content, index, axis=0))
        else:
            os.link(folder / f"rows-{index % _DISTINCT_FILES:05d}.npy", path)


def _ours(model: Path, data: Path, output: Path, **options: Any) -> tuple[BatchReport, float]:
    began_s = time.perf_counter()
    report = run(model, data, output, **options)
    seconds = time.perf_counter() - began_s
    shutil.rmtree(output)
    return report, seconds


# -- pictures --------------------------------------------------------------------------------


def _jpeg(figures: Figures, folder: Path, rounds: int, seconds: float) -> None:
    model = light("resnet50")
    preprocessing = Preprocessing(mean=(123.7, 116.3, 103.5), scale=(58.4, 57.1, 57.4))
    threads = os.cpu_count() or 1
    properties = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads}
    sample = np.zeros(model.shape, "f4")
    rate = native_rate(model.path, [sample], 40, properties)
    pictures = folder / "pictures"
    _write_pictures(pictures, max(64, int(rate * seconds)))
    files = sorted(pictures.iterdir())
    _out.print(f"jpeg: {len(files):,} pictures of 640×480")
    for number in range(rounds):
        half = len(files) // 2
        before = native_rate(model.path, [sample], half, properties)
        decode_s = _decoded_s(files, threads)
        output = folder / f"out-jpeg-{number}"
        report, ours_s = _ours(model.path, pictures, output, preprocessing=preprocessing, top_k=5)
        after = native_rate(model.path, [sample], half, properties)
        infer_s = len(files) / ((before + after) / 2)
        ideal_s = infer_s + decode_s  # on the same cores, both cost what they cost alone
        figures.add("jpeg: decoding alone, pictures/s", len(files) / decode_s)
        figures.add("jpeg: inference alone, pictures/s", len(files) / infer_s)
        figures.add("jpeg: ours, of the sum of both", ideal_s / report.infer_seconds, 0.90)
        figures.add("jpeg: ours with start-up, of the sum of both", ideal_s / ours_s)
    shutil.rmtree(pictures)


def _write_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    originals = [Image.fromarray(each).resize((640, 480)) for each in load_sample_images().images]
    for index in range(count):
        path = folder / f"picture-{index:05d}.jpg"
        if index < len(originals):
            originals[index].save(path, quality=90)
        else:
            os.link(folder / f"picture-{index % len(originals):05d}.jpg", path)


def _decoded_s(files: Sequence[Path], threads: int) -> float:
    began_s = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda path: decode_picture(path.read_bytes(), 224, 224, 3), files):
            pass
    return time.perf_counter() - began_s


# -- two devices -----------------------------------------------------------------------------


def _devices(figures: Figures, folder: Path, rounds: int, seconds: float) -> None:
    """One device that is four times as fast as the other, each alone as fast as its clock."""
    both = 1 / _FAST_S + 1 / _SLOW_S
    rows = int(both * seconds)
    data, model = folder / "rows.npy", folder / "negate.onnx"
    np.save(data, np.arange(rows * 8, dtype="f4").reshape(rows, 8))
    model.write_bytes(b"the paced devices do not look inside")
    for number in range(rounds):
        alone = []
        for device in ("GPU", "CPU"):
            part = folder / f"part-{device}.npy"
            np.save(part, np.load(data, mmap_mode="r")[: rows // 8])
            output = folder / f"out-{device}-{number}"
            report, _ = _ours(model, part, output, backend="paced", device=device)
            alone.append(report.rows_per_s)
        seen: list[tuple[float, int]] = []

        def on_progress(progress: JobProgress, seen: list[tuple[float, int]] = seen) -> None:
            seen.append((time.perf_counter(), progress.rows))

        output = folder / f"out-both-{number}"
        report, _ = _ours(model, data, output, backend="paced", on_progress=on_progress)
        figures.add("devices 1 : 4: ours, of the sum", report.rows_per_s / sum(alone), 0.95)
        figures.add("devices 1 : 4: last 5 %, of the rest", _last_speed(seen, rows), 1.0)


def _last_speed(seen: Sequence[tuple[float, int]], rows: int) -> float:
    """Speed over the last rows as a share of the speed before them."""
    running = [(when_s, count) for when_s, count in seen if count > 0]
    times_s, counts = zip(*running, strict=True)
    turn = rows * (1 - _LAST_SHARE)
    turn_s = float(np.interp(turn, counts, times_s))
    before = (turn - counts[0]) / (turn_s - times_s[0])
    return (rows - turn) / (times_s[counts.index(rows)] - turn_s) / before


# -- the run ---------------------------------------------------------------------------------


_INSIDE = "ATRIVA_BENCHMARK_FOLDER"
"""Set in the program that measures, which has joined the node that the first one started."""


def _in_cluster() -> int:
    """Start a node, run this program again inside of its cluster, and return how it ended.

    Ray reads its token when it is imported, which is before a node could be started here.
    """
    with tempfile.TemporaryDirectory(prefix="atriva-") as folder:
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(_PACED), os.environ.get("PYTHONPATH")])
        )
        os.environ["PACED_DEVICES"] = f"GPU={_FAST_S},CPU={_SLOW_S}"
        node = RayNode(Path(folder), _CPUS)
        try:
            return subprocess.call(
                [sys.executable, "-m", "benchmarks.batch", *sys.argv[1:]],
                env=os.environ | node.env | {_INSIDE: folder},
                cwd=_ROOT,
            )
        finally:
            node.stop()


def main(
    only: Annotated[str, typer.Option(metavar="NAME[,NAME]", help="Only these.")] = (
        "squeezenet,resnet50,jpeg,devices"
    ),
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seconds: Annotated[float, typer.Option(min=0.5, help="Work per round.")] = 20.0,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = (
        Path(__file__).parent / "results"
    ),
) -> None:
    """Measure whole data sets beside OpenVINO and Ray Data, and write the results."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    figures = Figures()
    scenarios: dict[str, Callable[[Path], None]] = {
        "squeezenet": lambda at: _arrays(figures, at, "squeezenet", rounds, seconds),
        "resnet50": lambda at: _arrays(figures, at, "resnet50", rounds, seconds),
        "jpeg": lambda at: _jpeg(figures, at, rounds, seconds),
        "devices": lambda at: _devices(figures, at, rounds, seconds),
    }
    if _INSIDE not in os.environ:
        raise typer.Exit(_in_cluster())
    with InferenceRuntime():  # so that every job finds the router there
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name in only.split(","):
            scenarios[name](Path(os.environ[_INSIDE]))
    found = list(figures.found.values())
    show(found)
    write(found, output, "batch", "Whole data sets", lambda each: "s/s" not in each.name)


if __name__ == "__main__":
    typer.run(main)
