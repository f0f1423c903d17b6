"""The parameters of a request, an input or an output, as JSON has them."""

from __future__ import annotations

from typing import TypeVar

from atriva_ray.errors import BadRequestError, NotSupportedError
from atriva_ray.serve.protocol.messages import ParameterValue
from atriva_ray.serve.protocol.wording import shown

__all__ = ["checked_text", "parameters_of", "take_count", "take_flag"]

Value = TypeVar("Value")

_SHARED_MEMORY = "shared_memory_"
_MIN_INT = -(2**63)
_MAX_INT = 2**64 - 1


def parameters_of(owner: str, value: object) -> dict[str, ParameterValue]:
    """Return parameters that are one's own to change; none if there is nothing, or null.

    Args:
        owner: whose they are, for messages.
        value: what the JSON has for them.

    Raises:
        BadRequestError: one is not true, false, a number of 64 bits, or a string.
        NotSupportedError: they say that the elements are in shared memory.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequestError(f"the parameters of {owner} are {shown(value)}, not an object")
    for name, each in value.items():
        if name.startswith(_SHARED_MEMORY):
            raise NotSupportedError(
                f"shared memory, which parameter {shown(name)} of {owner} asks for; send the "
                "elements in the request, and take them from the answer"
            )
        if not isinstance(each, bool | int | float | str):
            raise BadRequestError(
                f"parameter {shown(name)} of {owner} is {shown(each)}; it can be true, false, "
                "a number or a string"
            )
        if isinstance(each, int) and not _MIN_INT <= each <= _MAX_INT:
            raise BadRequestError(
                f"parameter {shown(name)} of {owner} is {shown(each)}, which has more than 64 bits"
            )
        checked_text(f"a parameter of {owner}", name)
        if isinstance(each, str):
            checked_text(f"parameter {shown(name)} of {owner}", each)
    return dict(value)


def take_flag(
    owner: str, parameters: dict[str, ParameterValue], name: str, default: Value
) -> bool | Value:
    """Remove a parameter that is true or false; `default` if there is none.

    Raises:
        BadRequestError: it is something else.
    """
    value = parameters.pop(name, None)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadRequestError(
            f"parameter {name!r} of {owner} is {shown(value)}; it can be true or false"
        )
    return value


def take_count(
    owner: str, parameters: dict[str, ParameterValue], name: str, default: Value
) -> int | Value:
    """Remove a parameter that is a whole number, 0 or more; `default` if there is none.

    Raises:
        BadRequestError: it is something else.
    """
    value = parameters.pop(name, None)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequestError(
            f"parameter {name!r} of {owner} is {shown(value)}; it can be a whole number, 0 or more"
        )
    return value


def checked_text(what: str, value: object) -> str:
    """Return a string that can be sent on.

    Args:
        what: what it is, for messages.
        value: what the JSON has.

    Raises:
        BadRequestError: it is no string, or has half a character in it, as JSON can write it.
    """
    if not isinstance(value, str):
        raise BadRequestError(f"{what} is {shown(value)}, not a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRequestError(f"{what} is {shown(value)}, which is no Unicode") from None
    return value
