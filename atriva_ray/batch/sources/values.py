"""From the values of a row, as Python has them, to a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from atriva_inference.errors import InputError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.batch.sources.columns import Feed
from atriva_ray.batch.sources.samples import cast_block, fit_block

__all__ = ["BadValueError", "as_sample", "checked_text", "sample_of", "text_sample"]

_TEXT_WIDTH = 64


class BadValueError(ValueError):
    """A value is not what an input takes; the message says which column it is in."""


def sample_of(
    port: Port, feed: Feed, record: Mapping[str, Any], number: Callable[[Any], Any]
) -> Array:
    """Return what an input gets of a row.

    Args:
        port: the input.
        feed: which columns it gets.
        record: values by column.
        number: makes a number, or nested lists of numbers, of a value; raises `ValueError`.

    Raises:
        BadValueError: a value is missing, no number, or does not fit.
    """
    values = []
    for column in feed.columns:
        value = record.get(column)
        if value is None:
            raise BadValueError(f"column {column!r} has no value")
        if port.dtype.kind in "OSU":
            return text_sample(port, column, value)
        try:
            values.append(number(value))
        except ValueError as error:
            raise BadValueError(f"column {column!r} {error}") from None
    try:
        array = np.asarray(values if len(values) > 1 else values[0])
    except (ValueError, OverflowError):
        raise BadValueError(f"column {feed.columns[0]!r} has lists of different lengths") from None
    return as_sample(port, feed, array)


def as_sample(port: Port, feed: Feed, array: Array) -> Array:
    """Bring an array to the shape and element type of a sample.

    Raises:
        BadValueError: that cannot be done.
    """
    if array.dtype.kind not in "biuf":
        raise BadValueError(f"column {feed.columns[0]!r} has values that are not numbers")
    try:
        return cast_block(port, fit_block(port, array[np.newaxis]))[0, ...]
    except InputError as error:
        raise BadValueError(f"column {feed.columns[0]!r} does not fit: {error}") from None


def text_sample(port: Port, column: str, value: Any) -> Array:
    """Return text as a sample.

    Raises:
        BadValueError: it is none.
    """
    if not isinstance(value, str):
        raise BadValueError(f"column {column!r} has {type(value).__name__}, the model takes text")
    try:
        checked_text(value)
    except ValueError as error:
        raise BadValueError(f"column {column!r} {error}") from None
    # Texts of like lengths get one element type, so that they can be in one request.
    width = max(_TEXT_WIDTH, 1 << (max(1, len(value)) - 1).bit_length())
    array: Array = np.array([value], f"U{width}")
    try:
        return fit_block(port, array)[0, ...]
    except InputError as error:
        raise BadValueError(f"column {column!r} does not fit: {error}") from None


def checked_text(value: str) -> str:
    """Return text that can be written.

    Raises:
        ValueError: it has halves of characters, which JSON can say and no file can hold.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("has text that is not valid Unicode") from None
    return value
