"""Triton's classification extension: the best entries of an output, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atriva_inference.tensor import Array
from atriva_ray.best_entries import best_entries
from atriva_ray.errors import BadRequestError
from atriva_ray.serve.protocol.messages import OutputTensor
from atriva_ray.serve.protocol.wording import shown

__all__ = ["classify"]


def classify(output: OutputTensor, class_count: int) -> OutputTensor:
    """Return the best entries of each row of an output, the best one first.

    The first axis counts rows, and all that is in a row are its classes; an output of rank 1 is
    one row, and so is its answer. Of equal entries, the first comes first; NaN comes last.

    Args:
        output: the scores, and names of the classes; classes beyond their end have none.
        class_count: how many are wanted of each row; of fewer, all.

    Returns:
        ``BYTES`` of shape [rows, classes], or [classes]: ``score:index:label``, or ``score:index``
        without a label. Scores have the digits that tell them from any other of their type.

    Raises:
        BadRequestError: the output is text, of which nothing is best.
    """
    if output.datatype == "BYTES":
        raise BadRequestError(
            f"output {shown(output.name)} is text, and only numbers can be classified; ask for it "
            "without the parameter classification"
        )
    scores = _scores(output.array)
    is_batch = scores.ndim > 1
    rows = scores if is_batch else scores.reshape(1, -1)
    if rows.size == 0:
        texts: Array = np.empty((len(rows), 0), object)
    else:
        best, values = best_entries(rows, class_count)
        entries = [
            _entry(score, index, output.labels)
            for score, index in zip(values.ravel(), best.ravel().tolist(), strict=True)
        ]
        texts = np.array(entries, object).reshape(best.shape)
    return OutputTensor(output.name, "BYTES", texts if is_batch else texts[0])


def _scores(array: Array) -> Array:
    """Return numbers that have an order and a sign; the values do not change."""
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    # The narrow floats that numpy lacks are of kind V.
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def _entry(score: object, index: int, labels: Sequence[str]) -> str:
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{score!s}:{index}{label}"
