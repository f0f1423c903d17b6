"""A picture of how long requests took under each policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from atriva_ray.simulation.simulate import Outcome

mpl.use("Agg")  # no screen is needed

from matplotlib import pyplot as plt

__all__ = ["draw"]

_QUANTILES = 1 - np.geomspace(1, 1e-4, 400)
_OURS = "#1f6feb"
_LINES = ("-", "--", "-.", ":")


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a PNG: which latency how many requests exceed, one line per policy; both axes log."""
    figure, axis = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for number, outcome in enumerate(outcomes):
        if not len(outcome.latencies_s):
            continue
        latencies_ms = np.quantile(outcome.latencies_s, _QUANTILES) * 1e3
        is_ours = outcome.policy == "ours"
        axis.plot(
            latencies_ms,
            1 - _QUANTILES,
            linestyle=_LINES[number % len(_LINES)],
            label=outcome.policy,
            color=_OURS if is_ours else None,
            linewidth=2.5 if is_ours else 1.5,
        )
    axis.axhline(0.01, color="#9aa4af", linewidth=0.8)
    axis.annotate("p99", (0.995, 0.01), xycoords=("axes fraction", "data"), ha="right", va="bottom")
    axis.set(xscale="log", yscale="log", xlabel="latency, ms", ylabel="part of requests above it")
    axis.spines[["top", "right"]].set_visible(False)
    if outcomes:
        axis.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
