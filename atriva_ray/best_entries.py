"""The best entries of a model's answers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atriva_inference.tensor import Array

__all__ = ["best_entries"]


def best_entries(answers: Array, count: int) -> tuple[npt.NDArray[np.int64], Array]:
    """Return the highest entries of each sample, highest first.

    Args:
        answers: numbers, samples along the first axis; further axes count as one.
        count: how many; of fewer entries, all.

    Returns:
        Their places and their values, samples × count. Of equal ones the first comes first, so that
        two runs give the same.
    """
    scores = answers.reshape(len(answers), -1)
    # ~ turns the order of integers round, also of the smallest, whose negative does not exist.
    falling = ~scores if scores.dtype.kind in "iu" else -scores
    best = np.argsort(falling, axis=1, kind="stable")[:, :count]
    return best, np.take_along_axis(scores, best, axis=1)
