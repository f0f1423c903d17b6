"""What a model takes and gives: `Port`, one per input and output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from atriva_inference.errors import InputNameError, format_shape

__all__ = ["Port", "batch_axis", "guess_image_layout", "match_names"]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of a model.

    Attributes:
        name: the name that results are keyed by.
        names: every name by which the port may be addressed, `name` first.
        dtype: element type as numpy has it.
        shape: sizes, -1 for a dynamic dimension; None when even the rank is dynamic.
        layout: one letter per axis where the model says so or its shape leaves no doubt.
    """

    name: str
    names: tuple[str, ...]
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    layout: str | None = field(default=None)

    @property
    def is_dynamic(self) -> bool:
        """Whether any dimension is only known when a request comes."""
        return self.shape is None or any(dim < 0 for dim in self.shape)

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            mine in (-1, theirs) for mine, theirs in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        shape = "any rank" if self.shape is None else format_shape(self.shape)
        layout = f" {self.layout}" if self.layout else ""
        return f"{self.name}: {self.dtype} {shape}{layout}"


def batch_axis(port: Port) -> bool:
    """Whether the first dimension of a port counts samples: it is dynamic, or 1 of several."""
    return port.shape is not None and len(port.shape) > 0 and port.shape[0] in (-1, 1)


def match_names(ports: Sequence[Port], values: Mapping[str, Value]) -> dict[str, Value]:
    """Key values by each port's primary name, whichever of its names the caller used.

    Raises:
        InputNameError: a name is no port's, two names mean one port, or a port has no value.
    """
    primary = {alias: port.name for port in ports for alias in port.names}
    matched: dict[str, Value] = {}
    unknown: list[str] = []
    for name, value in values.items():
        port_name = primary.get(name)
        if port_name is None or port_name in matched:
            unknown.append(str(name))
        else:
            matched[port_name] = value
    missing = [port.name for port in ports if port.name not in matched]
    if unknown or missing:
        raise InputNameError(unknown, missing, [port.name for port in ports])
    return matched


_CHANNEL_COUNTS = (1, 3, 4)
_IMAGE_RANK = 4


def guess_image_layout(shape: Sequence[int] | None) -> str | None:
    """Return ``NCHW`` or ``NHWC`` where a shape of rank 4 leaves no doubt, else None.

    There is no doubt when exactly one of the two possible channel axes has 1, 3 or 4 entries.
    """
    if shape is None or len(shape) != _IMAGE_RANK:
        return None
    is_channels_first = shape[1] in _CHANNEL_COUNTS
    is_channels_last = shape[3] in _CHANNEL_COUNTS
    if is_channels_first == is_channels_last:
        return None
    return "NCHW" if is_channels_first else "NHWC"
