"""What a model remembers between requests: arrays by the names of its variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from atriva_inference.errors import StateError, format_shape
from atriva_inference.ports import Port
from atriva_inference.tensor import Array

__all__ = ["State", "check_state"]

State: TypeAlias = dict[str, Array]
"""Values by variable name; a variable that has its initial value is left out."""


def check_state(variables: Sequence[Port], given: Mapping[str, npt.ArrayLike]) -> State:
    """Return values as C-contiguous arrays that fit the variables.

    An array is copied only if it is not C-contiguous.

    Raises:
        StateError: a name is no variable's, or a value has another dtype or shape.
    """
    if not isinstance(given, Mapping):
        raise StateError("state", f"is a {type(given).__name__}", "a dict of name to array")
    ports = {port.name: port for port in variables}
    checked: State = {}
    for name, value in given.items():
        port = ports.get(name)
        if port is None:
            names = ", ".join(repr(each) for each in ports) or "none"
            raise StateError(str(name), "is no variable of the model", f"its variables: {names}")
        checked[name] = _checked(port, value)
    return checked


def _checked(port: Port, value: npt.ArrayLike) -> Array:
    try:
        array = np.asarray(value)
    except ValueError as error:  # a ragged list is no array
        raise StateError(port.name, f"is no array ({error})", str(port)) from None
    if array.dtype != port.dtype:
        raise StateError(port.name, f"has dtype {array.dtype}", str(port))
    if not port.accepts(array.shape):
        raise StateError(port.name, f"has shape {format_shape(array.shape)}", str(port))
    return np.asarray(array, order="C")
