"""Bytes with something wrong, for requests that nobody would write."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random


def blurred(chance: Random, data: bytes, others: Sequence[bytes], snippets: Sequence[bytes]):
    """Return bytes with one thing wrong, whatever they mean: from the others, or with a snippet."""
    begin = chance.randrange(len(data) + 1)
    end = min(len(data), begin + chance.randrange(8))
    match chance.randrange(6):
        case 0:
            bits = bytearray(data)
            for _ in range(chance.randrange(1, 4) if bits else 0):
                bits[chance.randrange(len(bits))] ^= 1 << chance.randrange(8)
            return bytes(bits)
        case 1:
            return data[:begin]
        case 2:
            other = chance.choice(others)
            return data[:begin] + other[chance.randrange(len(other)) :]
        case 3:
            return data[:begin] + chance.choice(snippets) + data[end:]
        case 4:
            return data[:begin] + data[end:]
        case _:
            return data[:end] + data[begin:]
