"""Where the time of one inference goes: plain data that prints as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["LayerProfile", "Profile"]


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """One executed layer.

    Attributes:
        name: the layer's name in the model.
        kind: operation type, ``Convolution`` for example.
        implementation: the kernel that the device chose, where it tells.
        time_us: time per inference in microseconds.
    """

    name: str
    kind: str
    implementation: str
    time_us: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Mean times of one inference, measured on a profiled twin of the model.

    Attributes:
        model: the model's name.
        device: the device it ran on.
        runs: how many inferences the means are over.
        layers: executed layers in the order they ran.
        transfer_us: copying inputs in and outputs out, on the host.
        inference_us: wall time of the device's part.
        overhead_us: `inference_us` minus the layers' sum, at least 0. With several threads layers
            may overlap, and then this is a lower bound.
    """

    model: str
    device: str
    runs: int
    layers: tuple[LayerProfile, ...]
    transfer_us: float
    inference_us: float
    overhead_us: float

    @classmethod
    def from_runs(
        cls,
        model: str,
        device: str,
        layers: Sequence[LayerProfile],
        transfer_us: Sequence[float],
        inference_us: Sequence[float],
    ) -> Profile:
        """Build a profile from per-layer means and one transfer and inference time per run."""
        inference = _mean(inference_us)
        return cls(
            model=model,
            device=device,
            runs=len(inference_us),
            layers=tuple(layers),
            transfer_us=_mean(transfer_us),
            inference_us=inference,
            overhead_us=max(0.0, inference - sum(layer.time_us for layer in layers)),
        )

    @property
    def total_us(self) -> float:
        """One inference including its transfers."""
        return self.inference_us + self.transfer_us

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts, lists, strings and numbers (ready for JSON)."""
        return asdict(self) | {"total_us": self.total_us}

    def __str__(self) -> str:
        rows = [
            (layer.name, layer.kind, layer.implementation, f"{layer.time_us:.1f}")
            for layer in self.layers
        ]
        rows += [
            ("memory transfers", "", "", f"{self.transfer_us:.1f}"),
            ("device overhead", "", "", f"{self.overhead_us:.1f}"),
            ("total", "", "", f"{self.total_us:.1f}"),
        ]
        head = f"{self.model} on {self.device}, mean of {self.runs} runs"
        return "\n".join([head, *_table(("layer", "kind", "implementation", "time µs"), rows)])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    clipped = [tuple(_clip(cell) for cell in row) for row in rows]
    widths = [max(len(row[column]) for row in [header, *clipped]) for column in range(len(header))]
    lines = []
    for row in [header, *clipped]:
        texts = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        lines.append("  ".join([*texts, row[-1].rjust(widths[-1])]))
    return [lines[0], "  ".join("─" * width for width in widths), *lines[1:]]


_CELL_WIDTH = 40


def _clip(text: str) -> str:
    return text if len(text) <= _CELL_WIDTH else text[: _CELL_WIDTH - 1] + "…"
