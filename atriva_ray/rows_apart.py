"""Does a model treat every row of a request by itself? Tried, for no file says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from atriva_inference.errors import InferenceRuntimeError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array

__all__ = ["are_rows_apart", "has_rows", "is_number", "trial_rows"]

_SCALES = (1.0, 0.01, 3.0, 255.0, 0.3)
"""Sizes of the numbers of each row that is tried: pixels may be up to 1 or up to 255."""

_TOLERANCE = 0.02
"""Difference that counts as rounding, as a share of a row's largest value: with bfloat16, it may
come out this much differently in company."""


def trial_rows(inputs: Sequence[Port], outputs: Sequence[Port]) -> list[dict[str, Array]] | None:
    """Return requests of one row to try a model with.

    Returns:
        None if there can be no rows: a leading dimension is not dynamic, another one is, or an
        input takes neither floats nor pixels.
    """
    if not all(has_rows(port) and min((port.shape or ())[1:]) > 0 for port in (*inputs, *outputs)):
        return None
    if not all(map(is_number, inputs)):
        return None
    random = np.random.default_rng(0)
    return [{port.name: _row_of(port, scale, random) for port in inputs} for scale in _SCALES]


def has_rows(port: Port) -> bool:
    """Whether a port's leading dimension could count rows: it is dynamic, and not the only one."""
    shape = port.shape
    return shape is not None and len(shape) > 1 and shape[0] == -1 and 0 not in shape


def is_number(port: Port) -> bool:
    """Whether a port takes numbers of any size, floats or pixels, so that random ones will do."""
    return port.dtype.kind == "f" or port.dtype == np.uint8


def are_rows_apart(
    run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    rows: Sequence[Mapping[str, Array]],
) -> bool:
    """Whether rows come out in company as they do alone, but for rounding, and so again later.

    Args:
        run: runs one request.
        rows: from `trial_rows`. They differ by orders of magnitude, so that what one adds to
            another shows.
    """
    try:
        alone = [run(row) for row in rows]
        together = run({name: np.concatenate([row[name] for row in rows]) for name in rows[0]})
        again = run(rows[0])
    except InferenceRuntimeError:  # it does not take such inputs at all
        return False
    return all(
        _are_equal(array, [each[name] for each in alone])
        and _are_equal(again[name], [alone[0][name]])  # or it remembers what it has seen
        for name, array in together.items()
    )


def _row_of(port: Port, scale: float, random: np.random.Generator) -> Array:
    shape = (1, *(port.shape or ())[1:])
    if port.dtype == np.uint8:
        return random.integers(0, min(256, 1 + int(scale * 100)), shape).astype(np.uint8)
    return (scale * random.standard_normal(shape)).astype(port.dtype)


def _are_equal(together: Array, alone: Sequence[Array]) -> bool:
    if any(each.shape != (1, *together.shape[1:]) for each in alone):
        return False
    expected = np.concatenate(alone)
    if together.shape != expected.shape:
        return False
    if together.dtype.kind != "f":
        return bool(np.array_equal(together, expected))
    expected, together = expected.astype(np.float64), together.astype(np.float64)
    if not np.isfinite(expected).all():
        return False
    largest = np.max(np.abs(expected), axis=tuple(range(1, expected.ndim)), keepdims=True)
    return bool((np.abs(together - expected) <= _TOLERANCE * largest).all())
