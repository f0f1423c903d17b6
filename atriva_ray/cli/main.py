"""The command line: ``atriva devices``, ``atriva run``, ``atriva batch``, …."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from atriva_inference.errors import InferenceRuntimeError, format_shape
from atriva_inference.tensor import Tensor
from atriva_ray.cli.batch import batch
from atriva_ray.cli.bench import bench
from atriva_ray.cli.long_flags import LongFlagCommand
from atriva_ray.cli.notices import quiet_ray
from atriva_ray.cli.preprocessing import (
    Color,
    Fit,
    Layout,
    Mean,
    Preprocess,
    Resize,
    Scale,
    read_preprocessing,
)
from atriva_ray.cli.serve import serve, token
from atriva_ray.cli.simulate import simulate_command

if TYPE_CHECKING:
    from atriva_ray.runtime import InferenceRuntime

__all__ = ["app", "main"]

app = typer.Typer(
    name="atriva",
    help="Inference on every CPU, GPU and NPU of a Ray cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_out = Console()
_err = Console(stderr=True)

Backend = Annotated[str, typer.Option(help="openvino, onnxruntime or tensorrt.")]
Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to use. Default: RAY_ADDRESS, else one that runs on this machine, else "
        "an embedded one."
    ),
]

_EXIT_FAILED = 1
_EXIT_BAD_INPUT = 2
_TOP_ENTRIES = 5


def _show_version(wanted: bool) -> None:
    if wanted:
        _out.print(f"atriva-ray {metadata.version('atriva-ray')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug logs.")] = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
    )


@app.command()
def devices(backend: Backend = "openvino", address: Address = None) -> None:
    """List the devices that the nodes of the cluster really have."""
    with _runtime(backend, address) as runtime:
        table = Table("node", "device", "name", "capabilities", "memory")
        for device in runtime.devices():
            memory = "" if not device.memory_bytes else f"{device.memory_bytes / 2**30:.1f} GiB"
            table.add_row(
                device.node, device.name, device.full_name, " ".join(device.capabilities), memory
            )
        _out.print(table)
        _out.print(f"cluster: {runtime.cluster}, backend: {backend}; AUTO takes the topmost device")


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help="Model file, or SavedModel directory.")],
    *,
    input_file: Annotated[
        Path, typer.Option("--input", "-i", help="Input: .npy, .npz (by input name), .png, .jpg.")
    ],
    device: Annotated[
        str, typer.Option("--device", "-d", help="AUTO, CPU, GPU, NPU, AUTO:GPU,CPU, node/CPU, …")
    ] = "AUTO",
    backend: Backend = "openvino",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all outputs to this .npz file.")
    ] = None,
    address: Address = None,
    preprocess: Preprocess = None,
    resize: Resize = None,
    layout: Layout = None,
    mean: Mean = None,
    scale: Scale = None,
    color: Color = None,
    fit: Fit = None,
) -> None:
    """Run a model once on one input and show what came out."""
    from atriva_ray.cli.inputs import check_inputs, npz_target, read_inputs  # noqa: PLC0415 - keeps --help fast

    check_inputs(input_file)  # before a cluster is started for nothing
    target = None if output is None else npz_target(output)
    preprocessing = read_preprocessing(
        preprocess, resize=resize, layout=layout, mean=mean, scale=scale, color=color, fit=fit
    )
    with _runtime(backend, address) as runtime:
        loaded = runtime.load_model(
            model, device=device, performance_hint="LATENCY", preprocessing=preprocessing
        )
        how = "stretch" if preprocessing is None else preprocessing.fit
        inputs = read_inputs(input_file, loaded.inputs, how)
        started_s = time.perf_counter()
        outputs = loaded.run(inputs)
        elapsed_s = time.perf_counter() - started_s
        ran_on = ", ".join(use.route.label for use in loaded.replicas)
    table = Table("output", "dtype", "shape", "largest values (index: value)")
    for name, tensor in outputs.items():
        table.add_row(name, str(tensor.dtype), format_shape(tensor.shape), _top(tensor))
    _out.print(table)
    _out.print(f"{model.name} on {ran_on}, first run {elapsed_s * 1e3:.1f} ms")
    if target is not None:
        arrays: dict[str, Any] = {name: tensor.to_numpy() for name, tensor in outputs.items()}
        np.savez(target, **arrays)
        _out.print(f"wrote {target}")


app.command()(batch)
app.command()(serve)
app.command()(token)
app.command("simulate")(simulate_command)
app.command(cls=LongFlagCommand)(bench)


@app.command()
def demo(
    replicas: Annotated[int, typer.Option(min=2, help="Replicas to spread the requests over.")] = 2,
) -> None:
    """Classify real images on an embedded cluster and check every answer."""
    from atriva_ray.demo.digits import run_demo  # noqa: PLC0415 - keeps --help fast

    quiet_ray()
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_out) as progress:
        task = progress.add_task("starting", total=360)

        def on_stage(stage: str) -> None:
            progress.update(task, description=stage)
            if not _out.is_terminal:
                _out.print(stage)

        report = run_demo(replicas, on_stage=on_stage, on_answer=lambda: progress.advance(task))
        progress.update(task, description="done")
    table = Table("replica", "device", "requests")
    for replica_id, count in report.answers.items():
        table.add_row(replica_id, report.devices[replica_id], str(count))
    _out.print(table)
    figures = Table.grid(padding=(0, 2))
    figures.add_row("accuracy", f"{report.accuracy:.4f} on {report.images} held-out images")
    figures.add_row("throughput", f"{report.throughput:,.0f} images/s, one image per request")
    figures.add_row(
        "latency",
        f"p50 {report.latency_s(50) * 1e3:.1f} ms, p99 {report.latency_s(99) * 1e3:.1f} ms, "
        "with 16 requests in flight",
    )
    figures.add_row(
        "check",
        f"every answer as in one process (difference at most {report.largest_difference:.1g})",
    )
    if not report.failures:
        _out.print(figures, highlight=False)
        return
    for failure in report.failures:
        _err.print(f"[red]failed[/red] {failure}")
    raise typer.Exit(_EXIT_FAILED)


@contextmanager
def _runtime(backend: str, address: str | None) -> Iterator[InferenceRuntime]:
    from atriva_ray.runtime import InferenceRuntime  # noqa: PLC0415 - keeps --help fast

    quiet_ray()
    with _out.status("connecting to Ray …") if _out.is_terminal else nullcontext():
        runtime = InferenceRuntime(backend, address=address)
    with runtime:
        yield runtime


def _top(tensor: Tensor) -> str:
    values = tensor.to_numpy().reshape(-1)
    if values.dtype.kind not in "biuf":
        return str(values[:_TOP_ENTRIES].tolist())
    order = np.argsort(values)[::-1][:_TOP_ENTRIES]
    return "  ".join(f"{index}: {values[index]:.4g}" for index in order)


def main() -> None:
    """Run the command line; exits with 2 for bad input and 1 for a failed check."""
    try:
        app()
    except (InferenceRuntimeError, OSError) as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        message = " ".join(str(error).split())
        _err.print(f"[red]error[/red] {escape(message)}", soft_wrap=True, highlight=False)
        sys.exit(_EXIT_BAD_INPUT)
