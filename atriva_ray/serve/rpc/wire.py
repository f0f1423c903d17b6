"""Fields of a message written next to it, so that large ones are copied once instead of thrice.

A message's bytes are its fields one after another, in any order, so a field can be added behind
what protobuf wrote: see "Message Structure" in protobuf's description of its encoding.
"""

from __future__ import annotations

from collections.abc import Sequence

from atriva_ray.errors import NotSupportedError
from atriva_ray.serve.protocol.datatypes import Buffer

__all__ = ["field_parts", "joined"]

_LENGTH_DELIMITED = 2
_CONTINUED = 0x80
_MAX_BYTES = 2**31 - 1


def field_parts(number: int, content: Sequence[Buffer]) -> list[Buffer]:
    """Return one field of type bytes or message: what goes before its content, and that.

    Args:
        number: the field's.
        content: the parts that it consists of; they are not copied.
    """
    size_bytes = sum(len(part) for part in content)
    head = _varint(number << 3 | _LENGTH_DELIMITED) + _varint(size_bytes)
    return [head, *content]


def joined(parts: Sequence[Buffer]) -> bytes:
    """Return a message from its parts.

    Raises:
        NotSupportedError: no client could read it, as it is too large.
    """
    size_bytes = sum(len(part) for part in parts)
    if size_bytes > _MAX_BYTES:
        raise NotSupportedError(
            f"answers of {size_bytes:,} bytes over gRPC, where 2 GiB are the limit; "
            "ask for fewer outputs at once"
        )
    return b"".join(parts)


def _varint(value: int) -> bytes:
    """Write a number as protobuf does: seven bits per byte, the lowest ones first."""
    text = bytearray()
    while value >= _CONTINUED:
        text.append(value % _CONTINUED | _CONTINUED)
        value //= _CONTINUED
    text.append(value)
    return bytes(text)
