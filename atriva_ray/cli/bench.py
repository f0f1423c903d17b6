"""``atriva bench``: one model's throughput and latency, with the flags of ``benchmark_app``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from atriva_inference.errors import OptionError
from atriva_ray.cli.notices import quiet_ray

if TYPE_CHECKING:
    from collections.abc import Callable

    from atriva_ray.bench.benchmark import BenchResult, ReadInputs, Report
    from atriva_ray.bench.options import BenchOptions
    from atriva_ray.bench.stats import Figures

__all__ = ["bench"]

_out = Console()
_MICROSECONDS_BELOW_S = 1e-3


def bench(
    ctx: typer.Context,
    model_argument: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="Model file, or SavedModel directory.")
    ] = None,
    *,
    model_option: Annotated[
        Path | None, typer.Option("-m", "--model", help="The same as MODEL.")
    ] = None,
    device: Annotated[
        str, typer.Option("-d", "--device", help="AUTO, CPU, GPU, AUTO:GPU,CPU, node/CPU, …")
    ] = "AUTO",
    hint: Annotated[
        str | None,
        typer.Option(
            "-hint",
            "--hint",
            help="latency, throughput, cumulative_throughput, or none (the device's own choice, "
            "which is latency). Default: throughput, with -api sync latency.",
        ),
    ] = None,
    api: Annotated[
        str | None,
        typer.Option("-api", help="sync or async. Default: async, with -hint latency sync."),
    ] = None,
    time_s: Annotated[
        float | None,
        typer.Option("-t", "--time", help="Seconds to measure for. Default: 10 without -niter."),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            "-niter", help="Requests to run (with -t: at least). 0 only compiles the model."
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            "-nireq",
            help="Asynchronous requests under way at once. Default: twice what runs at once.",
        ),
    ] = None,
    streams: Annotated[
        int | None, typer.Option("-nstreams", help="Streams of the device (NUM_STREAMS).")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "-shape",
            help="Shapes of dynamic inputs: 'data[1,3,224,224],mask[1,1]', or '[1,3,224,224]'. "
            "The model is compiled for them.",
        ),
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "-i", "--input", help="Input: .npy, .npz (by input name), .png, .jpg. Default: random."
        ),
    ] = None,
    report_type: Annotated[
        str | None,
        typer.Option(
            "-report_type",
            help="Write a report: no_counters, average_counters or detailed_counters (layers).",
        ),
    ] = None,
    report_folder: Annotated[
        Path | None, typer.Option("-report_folder", help="Where to. Default: the current folder.")
    ] = None,
    json_stats: Annotated[
        bool, typer.Option("-json_stats", help="Write the report as JSON instead of CSV.")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Run in this process, not on a cluster.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run on the cluster and in this process, in turns.")
    ] = False,
    backend: Annotated[str, typer.Option(help="openvino, onnxruntime or tensorrt.")] = "openvino",
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Replicas. Default: one on each device of AUTO's.")
    ] = None,
    cpus_per_replica: Annotated[
        int | None, typer.Option(min=1, help="CPUs, and threads, of each replica on a processor.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to use; see atriva run --help.")
    ] = None,
) -> None:
    """Measure a model on the cluster the way OpenVINO's benchmark_app does."""
    from atriva_ray.bench.benchmark import Place, run_benchmark  # noqa: PLC0415 - keeps --help fast
    from atriva_ray.bench.options import (  # noqa: PLC0415 - keeps --help fast
        REPORT_TYPES,
        BenchOptions,
        parse_shapes,
    )
    from atriva_ray.bench.report_files import check_folder, write_reports  # noqa: PLC0415

    if report_type is not None and report_type not in REPORT_TYPES:
        raise OptionError("-report_type", report_type, f"one of {', '.join(REPORT_TYPES)}")
    if report_type is None and (json_stats or report_folder is not None):
        report_type = REPORT_TYPES[0]
    if local and compare:
        raise OptionError("--local", "with --compare", "one of the two")
    options = BenchOptions(
        model=_model(model_argument, model_option),
        device=device,
        backend=backend,
        hint=hint,
        api=api,
        time_s=time_s,
        iterations=iterations,
        requests=requests,
        streams=streams,
        shapes=parse_shapes(shape),
        replicas=replicas,
        cpus_per_replica=cpus_per_replica,
    )
    folder = report_folder or Path()
    check_folder(folder)
    places = [Place.LOCAL if local else Place.CLUSTER, *([Place.LOCAL] if compare else [])]
    quiet_ray()
    with _progress() as (on_stage, on_progress):
        report = run_benchmark(
            options,
            places,
            read_inputs=_reader(input_file),
            address=address,
            report_type=report_type,
            on_stage=on_stage,
            on_progress=on_progress,
        )
    _show(report, options)
    if report_type is not None:
        given = _given(ctx)
        paths = write_reports(folder, report, options, given, report_type, as_json=json_stats)
        for path in paths:
            _out.print(f"wrote {path}", soft_wrap=True, highlight=False)


def _model(argument: Path | None, option: Path | None) -> Path:
    if argument is not None and option is not None:
        raise OptionError("-m", str(option), f"one model, and {str(argument)!r} is given as well")
    model = argument or option
    if model is None:
        raise OptionError("MODEL", "", "a model file, as MODEL or with -m")
    return model


def _reader(path: Path | None) -> ReadInputs | None:
    if path is None:
        return None
    from atriva_ray.cli.inputs import check_inputs, read_inputs  # noqa: PLC0415 - keeps --help fast

    check_inputs(path)  # before a cluster is started for nothing
    return partial(read_inputs, path)


def _given(ctx: typer.Context) -> dict[str, str]:
    """Return what stood on the command line, by the flag's first name."""
    given = {}
    for parameter in ctx.command.params:
        name = parameter.name or ""
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = "-m" if parameter.param_type_name == "argument" else parameter.opts[0]
            value = ctx.params[name]
            given[flag] = "" if value is True else str(value)
    return given


@contextmanager
def _progress() -> Iterator[tuple[Callable[[str], None], Callable[[float], None]]]:
    columns = (
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    # Drawing takes time from what is measured here, so it is done seldom.
    with Progress(*columns, console=_out, refresh_per_second=4, transient=True) as progress:
        task = progress.add_task("starting", total=1.0)

        def on_stage(stage: str) -> None:
            progress.update(task, description=stage)
            if not _out.is_terminal:
                _out.print(stage, highlight=False)

        yield on_stage, lambda part: progress.update(task, completed=part)


def _show(report: Report, options: BenchOptions) -> None:
    for result in report.results:
        api = "one at a time" if options.is_sync else f"{result.requests} requests under way"
        _out.print(
            f"{result.place}: {options.model.name} on {', '.join(result.executes_on)}, "
            f"{options.performance_hint.lower()}, {result.parallelism} at once, {api}",
            highlight=False,
            soft_wrap=True,
        )
    table = Table.grid(padding=(0, 2))
    if len(report.results) > 1:
        table.add_row("", *(f"[bold]{result.place}[/bold]" for result in report.results))
    for label, texts in _rows(report.results):
        table.add_row(label, *texts)
    _out.print(table, highlight=False)
    if report.ratio is not None:
        ratio = report.ratio
        _out.print(
            f"cluster ÷ one process: {ratio.median:.3f}, median of rounds from "
            f"{ratio.lowest:.3f} to {ratio.highest:.3f}",
            highlight=False,
        )


def _rows(results: Sequence[BenchResult]) -> Iterator[tuple[str, list[str]]]:
    yield "compile model", [_latency(result.load_s) for result in results]
    figures = [result.figures for result in results if result.figures is not None]
    if not figures:
        return
    yield "first inference", [_latency(result.first_s) for result in results]
    yield "count", [f"{each.count:,} requests" for each in figures]
    yield "duration", [f"{each.duration_s * 1e3:,.2f} ms" for each in figures]
    latencies: dict[str, Callable[[Figures], float]] = {
        "median": lambda each: each.median_s,
        "average": lambda each: each.average_s,
        "min": lambda each: each.min_s,
        "max": lambda each: each.max_s,
    }
    for name, of in latencies.items():
        yield f"latency, {name}", [_latency(of(each)) for each in figures]
    yield "throughput", [f"{each.throughput:,.2f} FPS" for each in figures]


def _latency(seconds: float) -> str:
    return (
        f"{seconds * 1e6:.2f} µs" if seconds < _MICROSECONDS_BELOW_S else f"{seconds * 1e3:,.2f} ms"
    )
