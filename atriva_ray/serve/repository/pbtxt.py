"""Protobuf's text format without its schema, for ``config.pbtxt``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from atriva_ray.errors import RepositoryError

__all__ = ["Message", "parse_text_format"]

_MAX_DEPTH = 64
_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*)+)
    |(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<word>-?\s*[A-Za-z0-9_.][A-Za-z0-9_.+-]*)
    |(?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|[xX]([0-9A-Fa-f]{1,2})|(.))", re.DOTALL)
_ESCAPED = {
    b"n": b"\n",
    b"t": b"\t",
    b"r": b"\r",
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"v": b"\v",
}
_CLOSING = {"{": "}", "<": ">"}


@dataclass(slots=True)
class Message:
    """The fields of a message, each with its values in order; nobody knows which are repeated.

    A value is a text, a word as it is written (a number, a name, ``true``), or a message.

    Attributes:
        line: where it begins, from 1.
        fields: values by field name.
    """

    line: int = 1
    fields: dict[str, list[str | Message]] = field(default_factory=dict)

    def words(self, name: str) -> list[str]:
        """Return the values of a field that are no messages."""
        return [each for each in self.fields.get(name, ()) if isinstance(each, str)]

    def word(self, name: str, default: str = "") -> str:
        """Return the value of a field; the last one counts."""
        return (self.words(name) or [default])[-1]

    def messages(self, name: str) -> list[Message]:
        """Return the values of a field that are messages."""
        return [each for each in self.fields.get(name, ()) if isinstance(each, Message)]

    def message(self, name: str) -> Message:
        """Return what a field's messages say together; an empty one if there is none."""
        merged = Message(self.line)
        for each in self.messages(name):
            merged.line = each.line
            for key, values in each.fields.items():
                merged.fields.setdefault(key, []).extend(values)
        return merged


def parse_text_format(text: str, path: str) -> Message:
    """Read a message in protobuf's text format.

    Args:
        text: the document.
        path: where it is from, for messages.

    Raises:
        RepositoryError: it is not in that format, or nested more than 64 deep.
    """
    return _Parser(text, path).message(end="", depth=0)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    line: int


class _Parser:
    def __init__(self, text: str, path: str) -> None:
        self._path = path
        self._tokens = self._split(text)
        self._next = next(self._tokens)

    def message(self, end: str, depth: int) -> Message:
        """Read fields up to the mark that closes the message."""
        message = Message(self._next.line)
        if depth > _MAX_DEPTH:
            raise self._error(f"it is nested more than {_MAX_DEPTH} deep")
        while self._next.text != end or self._next.kind == "text":
            name = self._name()
            values = message.fields.setdefault(name, [])
            has_colon = self._skip(":")
            if self._skip("["):
                while not self._skip("]"):
                    values.append(self._value(depth))
                    if not self._skip(",") and self._next.text != "]":
                        raise self._unexpected("',' or ']'")
            elif has_colon or self._next.text in _CLOSING:
                values.append(self._value(depth))
            else:
                raise self._unexpected(f"':' or '{{' behind {name!r}")
            _ = self._skip(",") or self._skip(";")
        self._advance()
        return message

    def _name(self) -> str:
        if self._next.kind == "word":
            return self._advance().text
        if not self._skip("["):  # the name of an extension
            raise self._unexpected("a field's name")
        name = self._advance().text
        if not self._skip("]"):
            raise self._unexpected("']'")
        return f"[{name}]"

    def _value(self, depth: int) -> str | Message:
        if self._next.kind == "text":
            parts = []
            while self._next.kind == "text":  # texts side by side are one
                parts.append(_unescaped(self._advance().text[1:-1]))
            return b"".join(parts).decode("utf-8", "backslashreplace")
        if self._next.kind == "word":
            return self._advance().text
        if self._next.text in _CLOSING:
            return self.message(_CLOSING[self._advance().text], depth + 1)
        raise self._unexpected("a value")

    def _skip(self, mark: str) -> bool:
        if self._next.kind != "mark" or self._next.text != mark:
            return False
        self._advance()
        return True

    def _advance(self) -> _Token:
        token = self._next
        self._next = next(self._tokens, token)
        return token

    def _split(self, text: str) -> Iterator[_Token]:
        position, line = 0, 1
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                found = text[position : position + 20].partition("\n")[0]
                raise RepositoryError(self._path, f"line {line}: cannot make sense of {found!r}")
            if match.lastgroup != "space":
                yield _Token(str(match.lastgroup), match[0], line)
            line += match[0].count("\n")
            position = match.end()
        yield _Token("end", "", line)

    def _unexpected(self, wanted: str) -> RepositoryError:
        found = repr(self._next.text[:40]) if self._next.kind != "end" else "the end"
        return self._error(f"expected {wanted}, found {found}")

    def _error(self, reason: str) -> RepositoryError:
        return RepositoryError(self._path, f"line {self._next.line}: {reason}")


def _unescaped(text: str) -> bytes:
    def replaced(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, letter = match.groups()
        if octal is not None:
            return bytes([int(octal, 8) & 0xFF])
        if hexadecimal is not None:
            return bytes([int(hexadecimal, 16)])
        return _ESCAPED.get(letter, letter)

    return _ESCAPE.sub(replaced, text.encode("utf-8", "surrogateescape"))
