"""From Arrow's columns to rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

from atriva_inference.errors import InputError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.batch.rows import Row
from atriva_ray.batch.sources.arrow_columns import (
    Column,
    dense,
    form_of,
    is_number,
    is_own_tensor,
    is_text,
    leaf_type,
    plain_column,
    plain_type,
    static_shape,
    tensor_of_one,
)
from atriva_ray.batch.sources.columns import Feed, Form
from atriva_ray.batch.sources.samples import cast_block, check_kind, fit_block
from atriva_ray.batch.sources.values import BadValueError, as_sample, text_sample
from atriva_ray.errors import InputFileError, PictureError
from atriva_ray.picture_port import PicturePort
from atriva_ray.pictures import require_pillow

__all__ = ["BatchRows", "check_types", "kept_fields"]

_TEXT = "OSU"


def kept_fields(schema: pa.Schema, names: Sequence[str]) -> tuple[pa.Field[Any], ...]:
    """Return names and types of columns that are kept; encodings are not."""
    return tuple(pa.field(name, plain_type(schema.field(name).type)) for name in names)


def check_types(path: str, schema: pa.Schema, ports: Sequence[Port], feeds: Sequence[Feed]) -> None:
    """Say what no row of these columns could feed.

    Raises:
        InputFileError: a column's type is not for its input.
        InputError: its shape or element type is not, where the type tells it.
        PictureError: there are pictures, and Pillow is missing.
    """
    for port, feed in zip(ports, feeds, strict=True):
        for name in feed.columns:
            type_ = schema.field(name).type
            plain = plain_type(type_)
            if port.dtype.kind in _TEXT:
                fits = is_text(plain)
            elif _feeds_picture(port, type_):
                require_pillow()
                fits = True
            else:
                fits = is_number(leaf_type(plain)) or is_own_tensor(plain)
            if not fits:
                raise InputFileError(
                    path, f"column {name!r} has {type_}, which input {port} does not take"
                )
        # A damaged file may say anything; whether it is that is seen when it is read.
        with suppress(ValueError, IndexError, NotImplementedError):
            _check_shape(port, feed, schema.field(feed.columns[0]).type)


def _check_shape(port: Port, feed: Feed, type_: pa.DataType) -> None:
    shape = (len(feed.columns),) if len(feed.columns) > 1 else static_shape(type_)
    if shape is not None:
        dtype = np.dtype(leaf_type(plain_type(type_)).to_pandas_dtype())
        check_kind(port, np.dtype("f8") if dtype.kind == "O" else dtype)  # decimals
        fit_block(port, np.broadcast_to(np.zeros(()), (1, *shape)))


class BatchRows:
    """The rows of a record batch. What can be done for all of them together is done once."""

    def __init__(
        self,
        batch: pa.RecordBatch,
        ports: Sequence[Port],
        feeds: Sequence[Feed],
        kept: Iterable[pa.Field[Any]],
        fit: str,
    ) -> None:
        """Look at the columns; nothing is raised for what is in them."""
        self._samplers = {
            port.name: _sampler(port, feed, [batch.column(name) for name in feed.columns], fit)
            for port, feed in zip(ports, feeds, strict=True)
        }
        self._kept = {field.name: _kept(batch.column(field.name), field) for field in kept}

    def row(self, index: int, identity: Mapping[str, str | int]) -> Row:
        """Return a row; decodes its pictures."""
        try:
            inputs = {name: sampler(index) for name, sampler in self._samplers.items()}
            kept = {name: values(index) for name, values in self._kept.items()}
        except BadValueError as error:
            return Row(identity, bad_because=str(error))
        return Row(identity, inputs, kept)


def _sampler(port: Port, feed: Feed, columns: Sequence[Column], fit: str) -> Callable[[int], Array]:
    """Return a function from a row's index to its sample, which raises `BadValueError`."""
    if port.dtype.kind in _TEXT:
        return lambda index: text_sample(port, feed.columns[0], _value(feed, columns[0], index))
    picture = PicturePort.of(port)
    if picture is not None and _feeds_picture(port, columns[0].type):
        return lambda index: _picture(picture, feed, columns[0], index, fit)
    blocks = [dense(column) for column in columns]
    block = None if any(each is None for each in blocks) else _together(blocks)
    if block is not None:
        try:
            block = cast_block(port, fit_block(port, block))
        except InputError:
            pass  # which row is to blame?
        else:
            return lambda index: block[index, ...]
    return lambda index: _alone(port, feed, columns, index)


def _alone(port: Port, feed: Feed, columns: Sequence[Column], index: int) -> Array:
    parts = []
    for name, column in zip(feed.columns, columns, strict=True):
        one = column.slice(index, 1)
        part = dense(one)
        if part is None:
            part = tensor_of_one(one)
        if part is None:
            _value(feed, column, index, name)
            if not is_number(leaf_type(plain_type(column.type))):
                raise BadValueError(f"column {name!r} has {column.type}, which are no numbers")
            raise BadValueError(f"column {name!r} has nulls, or lists of different lengths")
        parts.append(part)
    return as_sample(port, feed, _together(parts)[0, ...])


def _together(blocks: Sequence[Any]) -> Array:
    return np.stack(blocks, axis=1) if len(blocks) > 1 else np.asarray(blocks[0])


def _value(feed: Feed, column: Column, index: int, name: str = "") -> Any:
    value = column[index].as_py()
    if value is None:
        raise BadValueError(f"column {name or feed.columns[0]!r} has no value")
    return value


def _picture(picture: PicturePort, feed: Feed, column: Column, index: int, fit: str) -> Array:
    value = _value(feed, column, index)
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None:
        raise BadValueError(f"column {feed.columns[0]!r} has no bytes")
    try:
        return picture.decode(data, fit)
    except PictureError as error:
        raise BadValueError(f"column {feed.columns[0]!r}: {error.reason}") from error


def _kept(column: Column, field: pa.Field[Any]) -> Callable[[int], Any]:
    try:
        values = plain_column(column).cast(field.type).to_pylist()
    except (pa.ArrowException, ValueError) as error:
        reason = f"column {field.name!r}, which is kept, is not {field.type}: {error}"

        def refuse(_index: int) -> Any:
            raise BadValueError(reason)

        return refuse
    return lambda index: values[index]


def _feeds_picture(port: Port, type_: pa.DataType) -> bool:
    return form_of(type_) == Form.PICTURE and PicturePort.of(port) is not None
