"""The files that ``benchmark_app`` writes, with its names and fields."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atriva_inference.errors import OptionError
from atriva_inference.profiling import Profile
from atriva_ray.bench.benchmark import BenchResult, Report
from atriva_ray.bench.options import BenchOptions

__all__ = ["check_folder", "write_reports"]

_SEPARATOR = ";"
_LAYER_FIELDS = (
    "layerName",
    "execStatus",
    "layerType",
    "execType",
    "realTime (ms)",
    "cpuTime (ms)",
)


def check_folder(folder: Path) -> None:
    """Say early that reports cannot be written there.

    Raises:
        OptionError: it is something else than a folder.
    """
    if folder.exists() and not folder.is_dir():
        raise OptionError("-report_folder", str(folder), "a folder, which may be new")


def write_reports(
    folder: Path,
    report: Report,
    options: BenchOptions,
    command_line: Mapping[str, str],
    report_type: str,
    *,
    as_json: bool,
) -> list[Path]:
    """Write the report, and the counters where they were collected; return the files.

    Of several places the first one is reported, and the other's throughput beside it. The time that
    layers took on the processor alone (``cpuTime``) is not known and left empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    result = report.results[0]
    sections = {
        ("cmd_options", "Command line parameters"): dict(command_line),
        ("configuration_setup", "Configuration setup"): _configuration(result, options),
        ("execution_results", "Execution results"): _results(report),
    }
    suffix = "json" if as_json else "csv"
    paths = [folder / f"benchmark_report.{suffix}"]
    if as_json:
        _write_json(paths[0], {key: fields for (key, _), fields in sections.items()})
    else:
        _write_sections(paths[0], {title: fields for (_, title), fields in sections.items()})
    if result.profiles:
        paths.append(folder / f"benchmark_{report_type}_report.{suffix}")
        if as_json:
            _write_json(paths[1], _counters(result.profiles, report_type))
        else:
            _write_counters(paths[1], result.profiles)
    return paths


def _configuration(result: BenchResult, options: BenchOptions) -> dict[str, str]:
    limits = options.limits
    duration = "0" if limits.time_s is None else f"{limits.time_s * 1e3:.0f}"
    return {
        "topology": options.model.stem,
        "target device": options.device,
        "API": "sync" if options.is_sync else "async",
        "inference_only": "False",  # inputs travel to the replica with every request
        "precision": "UNSPECIFIED",
        "number of iterations": str(limits.iterations),
        "number of parallel infer requests": str(result.requests),
        "duration (ms)": duration,
        "performance hint": str(options.performance_hint),
        "backend": options.backend,
        "place": str(result.place),
        "executes on": " ".join(result.executes_on),
    }


def _results(report: Report) -> dict[str, str]:
    result = report.results[0]
    fields = {"compile model time (ms)": _ms(result.load_s)}
    figures = result.figures
    if figures is None:
        return fields
    fields |= {
        "first inference time (ms)": _ms(result.first_s),
        "total execution time (ms)": _ms(figures.duration_s),
        "total number of iterations": str(figures.count),
        "latency (ms)": _ms(figures.median_s),
        "avg latency": _ms(figures.average_s),
        "min latency": _ms(figures.min_s),
        "max latency": _ms(figures.max_s),
        "throughput": f"{figures.throughput:.2f}",
    }
    for other in report.results[1:]:
        if other.figures is not None:
            fields[f"throughput ({other.place})"] = f"{other.figures.throughput:.2f}"
    if report.ratio is not None:
        fields["throughput ratio"] = f"{report.ratio.median:.4f}"
    return fields


def _counters(profiles: Sequence[Profile], report_type: str) -> dict[str, Any]:
    blocks = [
        {
            "nodes": [
                {
                    "name": layer.name,
                    "node_type": layer.kind,
                    "status": "Status.EXECUTED",
                    "real_time": _layer_ms(layer.time_us),
                    "cpu_time": "",
                    "exec_type": layer.implementation,
                }
                for layer in profile.layers
            ],
            "total_real_time": _total_ms(profile),
            "total_cpu_time": "",
        }
        for profile in profiles
    ]
    if report_type == "average_counters":
        return {"report_type": "average", "avg_performance": blocks[0]}
    return {"report_type": "detailed", "detailed_performance": blocks}


def _write_sections(path: Path, sections: Mapping[str, Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=_SEPARATOR, lineterminator="\n")
        for title, fields in sections.items():
            writer.writerow([title])
            writer.writerows(fields.items())
            writer.writerow([])


def _write_counters(path: Path, profiles: Sequence[Profile]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=_SEPARATOR, lineterminator="\n")
        for profile in profiles:
            writer.writerow(_LAYER_FIELDS)
            for layer in profile.layers:
                real_time = _layer_ms(layer.time_us)
                row = (layer.name, "Status.EXECUTED", layer.kind, layer.implementation)
                writer.writerow([*row, real_time, ""])
            writer.writerow(["Total", "", "", "", _total_ms(profile), ""])
            writer.writerow([])


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"


def _layer_ms(time_us: float) -> str:
    return f"{time_us / 1e3:.3f}"


def _total_ms(profile: Profile) -> str:
    return _layer_ms(sum(layer.time_us for layer in profile.layers))
