"""CSV files: a line of names, then one row per record, which may have newlines between quotes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from atriva_ray.batch.sources.columns import Form
from atriva_ray.batch.sources.records import MAX_RECORD_BYTES, TextShape, first_record
from atriva_ray.batch.sources.text_tables import TextTable

__all__ = ["CsvSource"]

_LONGEST_INTEGER = 18
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class CsvSource(TextTable):
    """Files of values between commas, in UTF-8, that begin with the names of the columns.

    A quote that never ends makes one record of all that follows, as for any reader of CSV. What is
    kept is kept as text.
    """

    shape: ClassVar[TextShape] = TextShape(has_quotes=True, blank=b"\r\n")

    @property
    def kind(self) -> str:
        """What people call it."""
        return "csv"

    def header(self, stream: Any, start: int) -> tuple[tuple[str, ...], int]:
        """Return the names of columns, and where rows begin.

        Raises:
            ValueError: there are none, two are equal, or they are no text.
        """
        record, end = first_record(stream, start, self.shape)
        names = tuple(_fields(record))
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"two columns have the name {twice[0]!r}")
        return names, end

    def parse(self, record: bytes, names: tuple[str, ...]) -> Mapping[str, Any]:
        """Return a record's fields by column.

        Raises:
            ValueError: there are more or fewer than in the header, or it is no text.
        """
        fields = _fields(record)
        if len(fields) != len(names):
            raise ValueError(f"it has {len(fields)} fields, the header has {len(names)}")
        return dict(zip(names, fields, strict=True))

    def number(self, value: str) -> int | float:
        """Return a field as a number.

        Raises:
            ValueError: it is none.
        """
        text = value.strip()
        if not text:
            raise ValueError("has no value")
        try:
            if len(text) <= _LONGEST_INTEGER and text.lstrip("+-").isdigit():
                return int(text)
            if "_" not in text:  # which only Python takes for a part of a number
                return float(text)
        except ValueError:
            pass
        raise ValueError(f"has {value[:_SHOWN]!r}, which is no number")

    def form(self, values: Sequence[str]) -> Form:
        """Tell numbers from text by what most fields are."""
        given = [value for value in values if value.strip()]
        numbers = sum(self._is_number(value) for value in given)
        return Form.NUMBER if given and 2 * numbers > len(given) else Form.TEXT

    def kept_type(self, values: Sequence[Any]) -> pa.DataType:  # noqa: ARG002
        """Return text."""
        return pa.string()

    def keep(self, value: str, type_: pa.DataType) -> str:  # noqa: ARG002
        """Return a field as it is."""
        return value

    def _is_number(self, value: str) -> bool:
        try:
            self.number(value)
        except ValueError:
            return False
        return True


def _fields(record: bytes) -> list[str]:
    # The library's own limit is for the whole process; a record is bounded already.
    if csv.field_size_limit() < MAX_RECORD_BYTES:
        csv.field_size_limit(MAX_RECORD_BYTES)
    try:
        return next(csv.reader([record.decode()]))
    except csv.Error as error:
        raise ValueError(str(error)) from error
