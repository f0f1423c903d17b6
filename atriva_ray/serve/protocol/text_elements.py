"""Text, the protocol's ``BYTES``: split and joined, and as the arrays that models take.

As bytes, every element is its length in four little-endian bytes, followed by the element itself.

An array of text has a place as wide as the longest element for each one, filled up with NUL
characters, and models read up to the first of them. So what is not UTF-8, or has a NUL in it, is
refused: nothing is cut off, or changed, without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from atriva_inference.tensor import Array
from atriva_ray.errors import BadRequestError
from atriva_ray.serve.protocol.wording import shown

__all__ = ["elements_of", "join", "split", "text_array"]

_LENGTH = struct.Struct("<I")
_CHARACTER_BYTES = 4
_MAX_PADDED_BYTES = 64 << 20
_MAX_PADDING = 16
"""Arrays of text take at most the former, or this many times the bytes that were received."""


def split(name: str, data: bytes | bytearray | memoryview, count: int) -> Iterator[memoryview]:
    """Yield the elements that are in an input's bytes, as views of them.

    One at a time, for a view takes far more memory than the few bytes that an element may be.

    Raises:
        BadRequestError: there are more or fewer than `count`, or the last one is cut off. Some of
            that is only found when the elements before it are taken.
    """
    view = memoryview(data)
    size_bytes = len(view)
    if count * _LENGTH.size > size_bytes:
        raise BadRequestError(
            f"input {shown(name)}: {count:,} elements of BYTES take 4 bytes each for their length "
            f"alone, and there are {size_bytes:,} bytes in all"
        )
    offset = 0
    for index in range(count):
        begin = offset + _LENGTH.size
        if begin > size_bytes:
            raise BadRequestError(
                f"input {shown(name)}: its shape says {count:,} elements, and the bytes end in "
                f"or before the length of element {index:,}"
            )
        offset = begin + _LENGTH.unpack_from(view, offset)[0]
        if offset > size_bytes:
            raise BadRequestError(
                f"input {shown(name)}: element {index:,} is said to have {offset - begin:,} "
                f"bytes, and {size_bytes - begin:,} are left"
            )
        yield view[begin:offset]
    if offset != size_bytes:
        raise BadRequestError(
            f"input {shown(name)}: its shape says {count:,} elements, and {size_bytes - offset:,} "
            "bytes are left behind them"
        )


def join(array: Array) -> bytes:
    """Return an output's elements as bytes, each after its length.

    Raises:
        TypeError: an element is neither str nor bytes.
        ValueError: one is longer than a length can say, or is no Unicode.
    """
    parts: list[bytes] = []
    for element in elements_of(array):
        content = element if isinstance(element, bytes) else element.encode()
        if len(content) >> 32:
            raise ValueError(f"an element has {len(content):,} bytes; a length has 32 bits")
        parts += (_LENGTH.pack(len(content)), content)
    return b"".join(parts)


def elements_of(array: Array) -> list[str | bytes]:
    """Return the elements of an array of str, bytes or both, row by row.

    Raises:
        TypeError: an element is neither.
    """
    elements: list[str | bytes] = array.reshape(-1).tolist()
    if any(not isinstance(element, str | bytes) for element in elements):
        raise TypeError(f"an array of {array.dtype} has elements that are neither str nor bytes")
    return elements


def text_array(
    name: str, elements: Iterable[str | bytes | memoryview], shape: Sequence[int]
) -> Array:
    """Return an input of text as models take it, an array of str.

    Args:
        name: the input, for messages.
        elements: as many as the shape says; bytes are UTF-8.
        shape: the sizes.

    Raises:
        BadRequestError: an element is not Unicode or has a NUL character, or they differ so much
            in length that an array of them would be far larger than they are.
    """
    texts = list(_decoded(name, elements))
    width = max(map(len, texts), default=0)
    padded_bytes = width * len(texts) * _CHARACTER_BYTES
    if padded_bytes > max(_MAX_PADDED_BYTES, _MAX_PADDING * sum(map(len, texts))):
        raise BadRequestError(
            f"input {shown(name)}: {len(texts):,} elements, the longest of {width:,} characters, "
            f"make an array of {padded_bytes:,} bytes; send long elements apart from short ones"
        )
    return np.array(texts, dtype=np.str_).reshape(shape)


def _decoded(name: str, elements: Iterable[str | bytes | memoryview]) -> Iterator[str]:
    for index, element in enumerate(elements):
        try:
            if isinstance(element, str):
                text = element
                if not text.isascii():
                    text.encode()  # JSON can write half a character, which is no text
            else:
                text = str(element, "utf-8")
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise BadRequestError(
                f"input {shown(name)}: element {index:,} is not text in UTF-8 ({error.reason}); "
                "models take BYTES as text only"
            ) from None
        if "\0" in text:
            raise BadRequestError(
                f"input {shown(name)}: element {index:,} has a NUL character, at which models "
                "would cut it off; send text without one"
            )
        yield text
