"""A row of a data set on its way to the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from atriva_inference.tensor import Array

__all__ = ["Row"]


@dataclass(slots=True)
class Row:
    """One sample, or why there is none.

    Attributes:
        identity: what tells it from every other row: ``path``, and ``row`` or ``frame``.
        inputs: one array per input of the model, without the batch dimension; pixels are
            H×W×C uint8. They may be views of memory that the reader owns and does not change.
        kept: further columns that go to the output as they are.
        bad_because: why it cannot be used; None if it can.
    """

    identity: Mapping[str, str | int]
    inputs: Mapping[str, Array] = field(default_factory=dict)
    kept: Mapping[str, Any] = field(default_factory=dict)
    bad_because: str | None = None
