"""JSON lines: one object per line, whose keys are the columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from atriva_ray.batch.sources.columns import Form
from atriva_ray.batch.sources.records import TextShape
from atriva_ray.batch.sources.text_tables import TextTable
from atriva_ray.batch.sources.values import checked_text

__all__ = ["JsonLinesSource"]

_FORMS = {
    int: Form.NUMBER,
    float: Form.NUMBER,
    list: Form.VECTOR,
    str: Form.TEXT,
}
_LARGEST = 2**63 - 1
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class JsonLinesSource(TextTable):
    """Files of one JSON object per line, in UTF-8.

    A column that is kept has the type of its first values, if that is a number, a truth value or
    text; anything else is kept as JSON text.
    """

    shape: ClassVar[TextShape] = TextShape(has_quotes=False, blank=b" \t\r\n")

    @property
    def kind(self) -> str:
        """What people call it."""
        return "jsonl"

    def header(self, stream: Any, start: int) -> tuple[tuple[str, ...], int]:  # noqa: ARG002
        """Return no names: every row brings its own."""
        return (), start

    def parse(self, record: bytes, names: tuple[str, ...]) -> Mapping[str, Any]:  # noqa: ARG002
        """Return an object's values by key.

        Raises:
            ValueError: it is no JSON object.
        """
        try:
            value = json.loads(record.decode())
        except json.JSONDecodeError as error:
            raise ValueError(f"it is no JSON: {error.msg} at column {error.colno}") from error
        except RecursionError as error:
            raise ValueError("it is no JSON that can be read: too deep") from error
        if isinstance(value, dict):
            return value
        raise ValueError(f"it is no JSON object but {_named(value)}")

    def number(self, value: Any) -> Any:
        """Return a value as it is.

        Raises:
            ValueError: it is neither a number nor a list.
        """
        if isinstance(value, (int, float, list)):
            return value
        raise ValueError(f"has {_named(value)}, which is no number")

    def form(self, values: Sequence[Any]) -> Form:
        """Tell it by what most values are."""
        forms = Counter(_FORMS.get(type(value), Form.OTHER) for value in values)
        return forms.most_common(1)[0][0] if forms else Form.OTHER

    def kept_type(self, values: Sequence[Any]) -> pa.DataType:
        """Return the one type that takes all values."""
        fitting = [
            type_
            for type_ in (pa.bool_(), pa.int64(), pa.float64())
            if values and all(_fits(value, type_) for value in values)
        ]
        return fitting[0] if fitting else pa.string()

    def keep(self, value: Any, type_: pa.DataType) -> Any:
        """Return a value as it is kept.

        Raises:
            ValueError: it is of another type than the first ones.
        """
        if pa.types.is_string(type_):
            return checked_text(value) if isinstance(value, str) else json.dumps(value)
        if _fits(value, type_):
            return value
        raise ValueError(f"has {_named(value)}, the first rows have {type_}")


def _fits(value: Any, type_: pa.DataType) -> bool:
    if type_ == pa.bool_():
        return isinstance(value, bool)
    is_integer = isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST
    return is_integer or (type_ == pa.float64() and isinstance(value, float))


def _named(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
