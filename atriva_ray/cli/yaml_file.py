"""YAML files that are named on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from atriva_ray.errors import ExtraNotInstalledError, InputFileError

__all__ = ["read_yaml"]


def read_yaml(file: Path, extra: str) -> Any:
    """Return what a YAML (or JSON) file says.

    Args:
        file: which one.
        extra: of this package, that installs the library.

    Raises:
        InputFileError: it cannot be read.
        ExtraNotInstalledError: the library is missing.
    """
    try:
        import yaml  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise ExtraNotInstalledError("YAML files", "pyyaml", extra) from error
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError, RecursionError) as error:
        raise InputFileError(str(file), str(error)) from error
