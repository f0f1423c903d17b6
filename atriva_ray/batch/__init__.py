"""Whole data sets through a model, on every device of the cluster, each row exactly once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from atriva_ray.batch.report import BatchReport, JobProgress
from atriva_ray.errors import ExtraNotInstalledError

if TYPE_CHECKING:
    from atriva_ray.batch.launch import run
    from atriva_ray.batch.outputs import TopK

__all__ = ["BatchReport", "JobProgress", "TopK", "run"]

_NEEDS_EXTRA = {"TopK": "atriva_ray.batch.outputs", "run": "atriva_ray.batch.launch"}
"""Names whose modules need what the extra ``batch`` installs."""


def __getattr__(name: str) -> Any:
    """Import what needs the extra when it is first asked for.

    Raises:
        ExtraNotInstalledError: it is not installed; the message says how to.
    """
    if name not in _NEEDS_EXTRA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_NEEDS_EXTRA[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("atriva"):
            raise
        raise ExtraNotInstalledError("whole data sets", error.name, "batch") from error
    globals()[name] = value
    return value
