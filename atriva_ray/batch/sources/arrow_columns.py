"""What is in Arrow's columns, and their values as arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from atriva_inference.tensor import Array
from atriva_ray.batch.sources.columns import Form

__all__ = [
    "Column",
    "dense",
    "form_of",
    "is_number",
    "is_own_tensor",
    "is_text",
    "leaf_type",
    "plain_column",
    "plain_type",
    "static_shape",
    "tensor_of_one",
]

Column: TypeAlias = Any
"""An array of Arrow; its kinds have little in common for a type checker."""


def form_of(type_: pa.DataType) -> Form:
    """Tell what is in a column of a type."""
    plain = plain_type(type_)
    if pa.types.is_integer(plain) or pa.types.is_floating(plain) or pa.types.is_decimal(plain):
        return Form.NUMBER
    if is_text(plain):
        return Form.TEXT
    if _is_bytes(plain) or "bytes" in _field_names(plain):
        return Form.PICTURE
    is_list = _is_list(plain) and is_number(leaf_type(plain))
    return Form.VECTOR if is_list or is_own_tensor(plain) else Form.OTHER


def dense(column: Column) -> Array | None:
    """Return a column as an array, rows first; None if it has nulls or rows of unequal shapes."""
    type_ = column.type
    if isinstance(type_, pa.BaseExtensionType):
        return _dense_tensor(column)
    if isinstance(type_, pa.DictionaryType):
        return dense(column.dictionary_decode())
    if column.null_count:
        return None
    if _is_list(type_):
        return _dense_list(column)
    if not is_number(type_):
        return None
    plain = column.cast(pa.float64()) if pa.types.is_decimal(type_) else column
    array: Array = plain.to_numpy(zero_copy_only=False)
    return array


def _dense_tensor(column: Column) -> Array | None:
    flat = dense(column.storage)
    shape = getattr(column.type, "shape", None)
    if flat is None or shape is None:
        return flat
    shaped = flat.reshape(len(flat), *shape)
    order = getattr(column.type, "permutation", None)
    return shaped if order is None else shaped.transpose(0, *(axis + 1 for axis in order))


def _dense_list(column: Column) -> Array | None:
    count = len(column)
    items = column.flatten()
    width = len(items) // count if count else 0
    if not isinstance(column.type, pa.FixedSizeListType):
        lengths = column.value_lengths().to_numpy()
        if not (lengths == width).all():
            return None
    inner = dense(items)
    return None if inner is None else inner.reshape(count, width, *inner.shape[1:])


def tensor_of_one(one: Column) -> Array | None:
    """Return the tensor of a single row that brings its own shape, as Ray Data writes them."""
    storage = plain_column(one)
    if not is_own_tensor(storage.type) or storage.null_count:
        return None
    data, shape = dense(storage.field("data")), dense(storage.field("shape"))
    if data is None or shape is None or data.size != np.prod(shape):
        return None
    return data.reshape(1, *shape[0].tolist())


def plain_column(column: Column) -> Column:
    """Return a column without encoding and without what only its type says."""
    if isinstance(column.type, pa.BaseExtensionType):
        return plain_column(column.storage)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def plain_type(type_: pa.DataType) -> pa.DataType:
    """Return a type without encoding and without its extension."""
    if isinstance(type_, pa.BaseExtensionType):
        return plain_type(type_.storage_type)
    return type_.value_type if isinstance(type_, pa.DictionaryType) else type_


def static_shape(type_: pa.DataType) -> tuple[int, ...] | None:
    """Return the shape that all rows of a type have, None if it does not say."""
    shape = getattr(type_, "shape", None)
    if shape is not None:
        order = getattr(type_, "permutation", None) or range(len(shape))
        return tuple(shape[axis] for axis in order)
    if isinstance(type_, pa.FixedSizeListType):
        inner = static_shape(type_.value_type)
        return None if inner is None else (type_.list_size, *inner)
    return () if is_number(type_) else None


def leaf_type(type_: pa.DataType) -> pa.DataType:
    """Return what nested lists, or a tensor, are made of."""
    plain = plain_type(type_)
    inner: Any = plain
    return leaf_type(inner.value_type) if _is_list(plain) else plain


def is_own_tensor(type_: pa.DataType) -> bool:
    """Whether it is the kind of tensor whose rows bring their own shape, as Ray Data has it."""
    return _field_names(type_) == {"data", "shape"}


def is_number(type_: pa.DataType) -> bool:
    """Whether it is a number or a truth value."""
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_boolean)
    return any(is_kind(type_) for is_kind in kinds)


def _is_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)


def is_text(type_: pa.DataType) -> bool:
    """Whether it is text."""
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(type_) for is_kind in kinds)


def _is_bytes(type_: pa.DataType) -> bool:
    kinds = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return any(is_kind(type_) for is_kind in kinds)


def _field_names(type_: pa.DataType) -> set[str]:
    return {field.name for field in type_.fields} if isinstance(type_, pa.StructType) else set()
