"""Which columns of a table feed which inputs of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from atriva_inference.errors import InputNameError, InputShapeError, OptionError
from atriva_inference.ports import Port
from atriva_ray.batch.sources.samples import fit_block
from atriva_ray.errors import InputFileError
from atriva_ray.picture_port import PicturePort

__all__ = ["Feed", "Form", "check_names", "feeds_of", "refuse_columns"]


class Form(StrEnum):
    """What is in a column."""

    NUMBER = "numbers"
    VECTOR = "lists or tensors"
    PICTURE = "bytes"
    TEXT = "text"
    OTHER = "something else"


@dataclass(frozen=True, slots=True)
class Feed:
    """What an input is fed with.

    Attributes:
        port: the input's name.
        columns: one, or several of one number each, which make a vector.
    """

    port: str
    columns: tuple[str, ...]


def refuse_columns(kind: str, columns: Mapping[str, str], keep: Sequence[str]) -> None:
    """Say that there are no columns to choose from.

    Raises:
        OptionError: columns were named.
    """
    for option, names in (("columns", list(columns.values())), ("keep", list(keep))):
        if names:
            raise OptionError(option, ", ".join(names), f"none: {kind} input has no columns")


def check_names(path: str, there: Sequence[str], names: Sequence[str]) -> None:
    """Say which columns are not there.

    Raises:
        InputFileError: one of the names is no column's.
    """
    missing = [name for name in names if name not in there]
    if missing:
        raise InputFileError(path, f"there is no column {_listed(missing)}; {_columns(there)}")


def feeds_of(
    path: str,
    forms: Mapping[str, Form],
    ports: Sequence[Port],
    columns: Mapping[str, str],
    keep: Sequence[str] = (),
) -> tuple[Feed, ...]:
    """Choose a column for every input: as it was said, by name, or because there is one choice.

    Args:
        path: of the file, for messages.
        forms: what is in each column, in the file's order.
        ports: the inputs.
        columns: what was said, by any of an input's names.
        keep: columns that are no part of a vector that is made of all columns of numbers.

    Raises:
        InputNameError: `columns` names an input that there is not.
        InputFileError: a column is not there, or an input has none or a choice of several.
    """
    names = list(forms)
    check_names(path, names, [*columns.values(), *keep])
    by_alias = {alias: port.name for port in ports for alias in port.names}
    unknown = [name for name in columns if name not in by_alias]
    if unknown:
        raise InputNameError(unknown, [], [port.name for port in ports])
    said = {by_alias[name]: column for name, column in columns.items()}
    feeds: list[Feed] = []
    for port in ports:
        same = next((alias for alias in port.names if alias in forms), None)
        column = said.get(port.name, same)
        if column is not None:
            feeds.append(Feed(port.name, (column,)))
        elif len(ports) == 1:
            feeds.append(Feed(port.name, _only_choice(path, forms, port, keep)))
        else:
            raise InputFileError(
                path, f"no column has the name of input {port.name!r}; {_say(port, names)}"
            )
    return tuple(feeds)


def _only_choice(
    path: str, forms: Mapping[str, Form], port: Port, keep: Sequence[str]
) -> tuple[str, ...]:
    """Return the columns that can only be meant for a model's only input."""
    free = [name for name in forms if name not in keep]
    wanted = [Form.VECTOR]
    if port.dtype.kind in "OSU":
        wanted = [Form.TEXT]
    elif PicturePort.of(port) is not None:
        wanted = [Form.PICTURE, Form.VECTOR]
    for form in wanted:
        fitting = [name for name in free if forms[name] == form]
        if len(fitting) == 1:
            return tuple(fitting)
        if fitting:
            raise InputFileError(
                path, f"{_listed(fitting)} could all feed input {port.name!r}; {_say(port, free)}"
            )
    numbers = [name for name in free if forms[name] == Form.NUMBER]
    if numbers and Form.TEXT not in wanted:
        try:
            fit_block(port, np.empty((1, len(numbers))))
        except InputShapeError as error:
            raise InputFileError(
                path,
                f"its {len(numbers)} columns of numbers ({_listed(numbers)}) do not fit: {error}",
            ) from None
        return tuple(numbers)
    raise InputFileError(
        path, f"it has no column of {wanted[0]} for input {port.name!r}; {_say(port, list(forms))}"
    )


def _say(port: Port, names: Sequence[str]) -> str:
    return f"{_columns(names)}; say which feeds {port.name!r}"


def _columns(names: Sequence[str]) -> str:
    return f"its columns are {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"
