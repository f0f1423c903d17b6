"""From a model's answers to columns that people can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from atriva_inference.errors import OptionError
from atriva_inference.ports import Port, batch_axis
from atriva_inference.tensor import Array
from atriva_ray.best_entries import best_entries

__all__ = ["OutputColumns", "TopK", "answer_ports"]


def answer_ports(inputs: Sequence[Port], outputs: Sequence[Port]) -> tuple[Port, ...]:
    """Return outputs with a dimension in front that counts samples, where they have none.

    If no input's first dimension is dynamic, that of an output cannot count samples. It then counts
    what the model finds in one, boxes in a picture for example.
    """
    is_free = any(port.shape is None or port.shape[:1] == (-1,) for port in inputs)
    return tuple(
        port
        if port.shape is None or (batch_axis(port) and (is_free or port.shape[0] == 1))
        else replace(port, shape=(1, *port.shape))
        for port in outputs
    )


@dataclass(frozen=True, slots=True)
class TopK:
    """Write the best entries of an output instead of all of it.

    Attributes:
        count: how many.
        output: of which output; None: the only one.
        labels: a name for each entry; empty: entries are told by their number.
    """

    count: int
    output: str | None = None
    labels: tuple[str, ...] = ()


class OutputColumns:
    """Makes columns of answers: one per output, or ``class``, ``label``, ``score`` and their tops.

    Scores are what the model gives; nothing is normalised.
    """

    def __init__(self, ports: Sequence[Port], top_k: TopK | None = None) -> None:
        """Check what is wanted against what the model gives.

        Raises:
            OptionError: `top_k` names no output, leaves a choice, or does not fit its size.
        """
        self._ports = tuple(ports)
        self._top_k = top_k
        self._top_port = None if top_k is None else _check(top_k, self._ports)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        fields: list[pa.Field[Any]] = []
        top_k = self._top_k
        if top_k is not None:
            fields.append(pa.field("class", pa.int32()))
            if top_k.labels:
                fields.append(pa.field("label", pa.string()))
            fields.append(pa.field("score", pa.float32()))
            if top_k.count > 1:
                fields.append(pa.field("top_classes", pa.list_(pa.int32())))
                if top_k.labels:
                    fields.append(pa.field("top_labels", pa.list_(pa.string())))
                fields.append(pa.field("top_scores", pa.list_(pa.float32())))
        fields.extend(
            pa.field(port.name, _column_type(port))
            for port in self._ports
            if port is not self._top_port
        )
        return pa.schema(fields)

    def columns(self, answers: Mapping[str, Array]) -> list[pa.Array[Any]]:
        """Return columns in the order of `schema`.

        Args:
            answers: arrays by output name, samples along the first axis.
        """
        columns: list[pa.Array[Any]] = []
        if self._top_k is not None and self._top_port is not None:
            columns.extend(_top_columns(answers[self._top_port.name], self._top_k))
        columns.extend(
            _column(answers[port.name], _column_type(port))
            for port in self._ports
            if port is not self._top_port
        )
        return columns


def _check(top_k: TopK, ports: Sequence[Port]) -> Port:
    names = ", ".join(repr(port.name) for port in ports)
    if top_k.output is None and len(ports) != 1:
        raise OptionError("top_k", str(top_k.count), f"the output it is of, one of {names}")
    found = [port for port in ports if top_k.output is None or top_k.output in port.names]
    if not found:
        raise OptionError("top_k output", str(top_k.output), f"one of {names}")
    port = found[0]
    if port.dtype.kind not in "iuf":
        raise OptionError("top_k", f"{port.name!r} of {port.dtype}", "an output of numbers")
    size = _sample_size(port)
    if top_k.count < 1 or (size is not None and top_k.count > size):
        raise OptionError("top_k", str(top_k.count), f"1 to {size or 'the size of the output'}")
    if top_k.labels and size is not None and len(top_k.labels) != size:
        raise OptionError(
            "labels", f"{len(top_k.labels)} of them", f"{size}, one per entry of {port.name!r}"
        )
    return port


def _sample_shape(port: Port) -> tuple[int, ...] | None:
    if port.shape is None:
        return None
    return port.shape[1:] if batch_axis(port) else port.shape


def _sample_size(port: Port) -> int | None:
    shape = _sample_shape(port)
    if shape is None or any(dim < 0 for dim in shape):
        return None
    return int(np.prod(shape))


def _column_type(port: Port) -> pa.DataType:
    element = pa.string() if port.dtype.kind in "OSU" else pa.from_numpy_dtype(port.dtype)
    shape = _sample_shape(port)
    if shape is None:
        return _nested(element, 1)
    if all(dim == 1 for dim in shape):
        return element
    if any(dim < 0 for dim in shape) or port.dtype.kind in "OSU":
        return _nested(element, len(shape))
    return pa.fixed_shape_tensor(element, shape)


def _nested(element: pa.DataType, depth: int) -> pa.DataType:
    for _ in range(depth):
        element = pa.list_(element)
    return element


def _column(answers: Array, type_: pa.DataType) -> pa.Array[Any]:
    if isinstance(type_, pa.FixedShapeTensorType):
        # Not from_numpy_ndarray, which minds strides, those of dimensions of 1 too.
        values = pa.array(np.ascontiguousarray(answers).reshape(-1))
        storage = pa.FixedSizeListArray.from_arrays(values, int(np.prod(type_.shape)))
        return pa.ExtensionArray.from_storage(type_, storage)
    if not pa.types.is_list(type_):
        return _values(answers.reshape(len(answers)), type_)
    if not pa.types.is_list(type_.value_type):  # that is also what an output of any rank becomes
        answers = answers.reshape(len(answers), -1)
    element: Any = type_
    while pa.types.is_list(element):
        element = element.value_type
    column = _values(answers.reshape(-1), element)
    for axis in range(answers.ndim - 1, 0, -1):
        starts = np.arange(np.prod(answers.shape[:axis]) + 1, dtype=np.int32) * answers.shape[axis]
        column = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), column)
    return column


def _values(flat: Array, type_: pa.DataType) -> pa.Array[Any]:
    is_text = flat.dtype.kind in "OSU"
    column: pa.Array[Any] = pa.array(flat.tolist() if is_text else flat, type_)
    return column


def _top_columns(answers: Array, top_k: TopK) -> list[pa.Array[Any]]:
    best, scores = best_entries(answers, top_k.count)
    best_scores = scores.astype(np.float32)
    # Of a dynamic output there may be fewer entries than wanted, or none, or more than labels.
    labels = dict(enumerate(top_k.labels))
    tops: list[tuple[list[list[Any]], pa.DataType]] = [(best.tolist(), pa.int32())]
    if labels:
        tops.append(([[labels.get(index) for index in row] for row in best.tolist()], pa.string()))
    tops.append((best_scores.tolist(), pa.float32()))
    columns = [pa.array([row[0] if row else None for row in rows], type_) for rows, type_ in tops]
    if top_k.count > 1:
        columns.extend(pa.array(rows, pa.list_(type_)) for rows, type_ in tops)
    return columns
