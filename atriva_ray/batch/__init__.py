"""Whole data sets through a model, on every device of the cluster, each row exactly once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from atriva_ray.batch.report import BatchReport, JobProgress

if TYPE_CHECKING:
    from atriva_ray.batch.launch import run
    from atriva_ray.batch.outputs import TopK

__all__ = ["BatchReport", "JobProgress", "TopK", "run"]

_NEEDS_EXTRA = {"TopK": "atriva_ray.batch.outputs", "run": "atriva_ray.batch.launch"}
"""Names whose modules need what the extra ``batch`` installs."""


def __getattr__(name: str) -> Any:
    """Import what needs the extra when it is first asked for.

    Raises:
        ImportError: it is not installed; the message says how to.
    """
    if name not in _NEEDS_EXTRA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_NEEDS_EXTRA[name]), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"whole data sets need {error.name}: pip install 'atriva-ray[batch]'"
        ) from error
    globals()[name] = value
    return value
