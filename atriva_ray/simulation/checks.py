"""Values of a scenario: whether they are what they have to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeGuard

from atriva_inference.errors import OptionError

__all__ = ["check_count", "check_number", "is_whole", "known", "made", "made_each"]

_MAX_COUNT = 1_000_000


def known(what: str, value: object, kind: type[Any]) -> Mapping[str, Any]:
    """Return a mapping that has only the fields of a dataclass.

    Raises:
        OptionError: it is no mapping, or has other keys.
    """
    names = [field.name for field in fields(kind)]
    if not isinstance(value, Mapping):
        raise OptionError(what, repr(value), f"a mapping of {', '.join(names)}")
    unknown = [str(key) for key in value if key not in names]
    if unknown:
        raise OptionError(what, ", ".join(unknown), f"only {', '.join(names)}")
    return value


def made(kind: type[Any], what: str, value: object) -> Any:
    """Return a dataclass of what a mapping says.

    Raises:
        OptionError: the mapping says too much or too little, or something that is not acceptable.
    """
    told = known(what, value, kind)
    try:
        return kind(**told)
    except TypeError as error:
        raise OptionError(what, str(dict(told)), f"all that it needs ({error})") from None


def made_each(kind: type[Any], what: str, values: object, expected: str) -> tuple[Any, ...]:
    """Return a dataclass of each mapping of a list.

    Raises:
        OptionError: it is no list, or `made` raises.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise OptionError(what, repr(values), expected)
    return tuple(made(kind, what, value) for value in values)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_count(option: str, value: object) -> None:
    """Raise an `OptionError` unless it is a number of things, at least one."""
    if not is_whole(value) or not 1 <= value <= _MAX_COUNT:
        raise OptionError(option, str(value), f"a whole number from 1 to {_MAX_COUNT:,}")


def check_number(option: str, value: object, *, is_positive: bool = False) -> None:
    """Raise an `OptionError` unless it is a finite number from 0, or above 0."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    number = float(value) if is_number and isinstance(value, (int, float)) else math.nan
    if not math.isfinite(number) or number < 0 or (is_positive and number == 0):
        raise OptionError(option, str(value), f"a number {'above' if is_positive else 'from'} 0")
