"""Rows that are told apart by their file and their number in it."""

from __future__ import annotations

import pyarrow as pa

from atriva_ray.batch.rows import Row

__all__ = ["NUMBERED", "WHOLE_FILE", "bad_row", "row_identity"]

_FIELDS: dict[str, pa.DataType] = {"path": pa.string(), "row": pa.int64()}

NUMBERED = pa.schema(_FIELDS)
"""Names and types of the columns that tell rows apart."""

WHOLE_FILE = -1
"""The number of the bad row that stands for a file that cannot be read."""


def row_identity(path: str, number: int) -> dict[str, str | int]:
    """Return what tells a row from every other one."""
    return {"path": path, "row": number}


def bad_row(path: str, number: int, reason: str) -> Row:
    """Return a row that cannot be used."""
    return Row(row_identity(path, number), bad_because=reason)
