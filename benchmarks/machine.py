"""Where and with what was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

__all__ = ["about_machine", "commit", "physical_cores"]

_ROOT = Path(__file__).parent.parent
_PACKAGES = ("openvino", "ray", "numpy", "onnx", "atriva-ray")


def physical_cores() -> int:
    """Return the physical cores that this process may use."""
    usable = len(os.sched_getaffinity(0))
    return min(psutil.cpu_count(logical=False) or usable, usable)


def commit() -> str:
    """Return the commit of the working tree, with ``+`` if it was changed since."""
    described = _git("rev-parse", "--short", "HEAD") or "unknown"
    return described + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def about_machine() -> dict[str, Any]:
    """Return processor, memory, systems and versions."""
    return {
        "processor": _processor(),
        "cores": physical_cores(),
        "logical_cpus": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in _PACKAGES},
        "commit": commit(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
