"""``atriva batch``: a whole data set through a model, with a progress bar and a summary."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from atriva_ray.cli.labels import read_labels
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

if TYPE_CHECKING:
    from atriva_ray.batch.report import BatchReport, JobProgress

__all__ = ["batch"]

_out = Console()
_err = Console(stderr=True)

_LINE_EVERY_S = 10.0
_EXIT_INTERRUPTED = 130


def batch(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Model file, or SavedModel folder.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="File, folder, glob or URL: images, Parquet, .npy, .npz, CSV, JSON lines, video.",
        ),
    ],
    output: Annotated[str, typer.Argument(metavar="OUTPUT", help="Folder or URL for the answers.")],
    *,
    device: Annotated[
        str, typer.Option("--device", "-d", help="AUTO uses every device at once; or CPU, GPU, …")
    ] = "AUTO",
    backend: Annotated[str, typer.Option(help="openvino, onnxruntime or tensorrt.")] = "openvino",
    replicas: Annotated[str, typer.Option(help="A number, or auto: one per device.")] = "auto",
    batch_size: Annotated[
        str, typer.Option(help="Rows per request, or auto: what the model's shape allows.")
    ] = "auto",
    columns: Annotated[
        str,
        typer.Option(
            metavar="[INPUT=]COLUMN,…", help="Which column of a table feeds which model input."
        ),
    ] = "",
    keep: Annotated[
        str, typer.Option(metavar="COLUMN,…", help="Columns to copy to the output.")
    ] = "",
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Write the best K classes instead of all scores.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Text file with one class name per line.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="parquet, jsonl or npy. [default: parquet]")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="images, parquet, npy, npz, csv, jsonl or video, where file names do not tell.",
        ),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Of a video, every n-th frame.")] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a job that was stopped.")
    ] = False,
    max_bad: Annotated[
        int | None, typer.Option(min=0, help="Stop when more rows than this cannot be used.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to use. Default: RAY_ADDRESS, else one that runs on this machine, "
            "else an embedded one."
        ),
    ] = None,
    preprocess: Preprocess = None,
    resize: Resize = None,
    layout: Layout = None,
    mean: Mean = None,
    scale: Scale = None,
    color: Color = None,
    fit: Fit = None,
) -> None:
    """Push a whole data set through a model, on every device of the cluster.

    Rows that cannot be used go to quarantine with the reason; a job that was stopped or killed is
    gone on with by --resume.
    """
    from atriva_ray.batch import run  # noqa: PLC0415 - keeps --help fast

    quiet_ray()
    names = [] if labels is None else read_labels(labels)
    preprocessing = read_preprocessing(
        preprocess, resize=resize, layout=layout, mean=mean, scale=scale, color=color, fit=fit
    )
    try:
        with _shown() as on_progress:
            report = run(
                model,
                data,
                output,
                backend=backend,
                address=address,
                device=device,
                replicas=_number(replicas),
                preprocessing=preprocessing,
                columns=_pairs(columns),
                keep=_listed(keep),
                batch_size=_number(batch_size),
                top_k=top_k,
                labels=names,
                format=format_,
                kind=kind,
                every=every,
                resume=resume,
                max_bad=max_bad,
                on_progress=on_progress,
            )
    except KeyboardInterrupt:
        _err.print(f"stopped; {output} keeps what is done. Go on with --resume", soft_wrap=True)
        raise typer.Exit(_EXIT_INTERRUPTED) from None
    _show(report)


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _pairs(text: str) -> dict[str, str]:
    """Read ``input=column,…``; a column alone feeds the only input, told by an empty name."""
    pairs = {}
    for part in _listed(text):
        name, separator, column = part.rpartition("=")
        pairs[name.strip() if separator else ""] = column.strip()
    return pairs


@contextmanager
def _shown() -> Iterator[Any]:
    """Show progress as a bar, or as a line now and then where nobody looks on."""
    if not _out.is_terminal:
        yield _Lines().tell
        return
    bar = Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}"),
        console=_out,
    )
    with bar:
        task = bar.add_task("connecting to Ray", total=None, told="")

        def tell(progress: JobProgress) -> None:
            _update(bar, task, progress)

        yield tell


def _update(bar: Progress, task: TaskID, progress: JobProgress) -> None:
    bar.update(
        task,
        description=progress.stage,
        completed=progress.rows,
        total=progress.total_rows,
        told=_told(progress) if progress.rows else "",
    )


def _told(progress: JobProgress) -> str:
    of, left = "", ""
    if progress.total_rows is not None:
        of = f" of {progress.total_rows:,}"
        rows_left = progress.total_rows - progress.rows
        if rows_left and progress.rows_per_s > 0:
            left = f", {timedelta(seconds=round(rows_left / progress.rows_per_s))} left"
    bad = f"; {progress.bad_rows:,} bad" if progress.bad_rows else ""
    return (
        f"{progress.rows:,}{of} rows, {progress.rows_per_s:,.0f} rows/s{left}; "
        f"{_devices(progress.devices)}; {progress.waiting:,} waiting{bad}"
    )


class _Lines:
    """Prints a line every ten seconds."""

    def __init__(self) -> None:
        self._told_s = -_LINE_EVERY_S
        self._stage = ""

    def tell(self, progress: JobProgress) -> None:
        now_s = time.monotonic()
        is_new = progress.stage != self._stage
        if not is_new and now_s - self._told_s < _LINE_EVERY_S:
            return
        self._told_s, self._stage = now_s, progress.stage
        if not progress.rows:
            _out.print(progress.stage, soft_wrap=True)
            return
        _out.print(f"{progress.stage}: {_told(progress)}", soft_wrap=True, highlight=False)


def _devices(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{label} {share:.0%}" for label, share in shares.items()) or "–"


def _show(report: BatchReport) -> None:
    before = f" ({report.rows_before:,} by earlier runs)" if report.rows_before else ""
    lines = {
        "rows": f"{report.rows_in:,} in{before} = {report.rows_out:,} out "
        f"+ {report.rows_bad:,} in quarantine",
        "speed": f"{report.rows_per_s:,.1f} rows/s for {report.infer_seconds:.1f} s; "
        f"{report.seconds:.1f} s with start-up",
        "devices": _devices(report.devices),
        "threads": ", ".join(
            f"{stage} {seconds:.1f} s" for stage, seconds in report.stages.items()
        ),
        "output": f"{report.output} ({report.fragments:,} parts)",
    }
    if report.quarantine is not None:
        lines["quarantine"] = report.quarantine
    if report.files_ignored:
        lines["left out"] = f"{report.files_ignored:,} files of other kinds"
    for name, text in lines.items():
        _out.print(f"{name:<12}{text}", highlight=False, soft_wrap=True)
