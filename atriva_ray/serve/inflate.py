"""Bodies that travel packed, unpacked as they come and never to more than a limit."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from atriva_ray.errors import BadRequestError, RequestTooLargeError
from atriva_ray.serve.http_errors import ContentCodingError

__all__ = ["CODINGS", "PIECE_BYTES", "Inflater"]

CODINGS = ("gzip", "deflate")
"""As the header ``Content-Encoding`` names them."""

PIECE_BYTES = 1 << 20
"""At most that much is unpacked at once: about a millisecond's work, then others get their turn."""

_WINDOW_BITS = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
_MOST_MEMBERS = 256


class Inflater:
    """Unpacks one body."""

    def __init__(self, coding: str, limit_bytes: int) -> None:
        """Begin.

        Args:
            coding: the header ``Content-Encoding``.
            limit_bytes: of what is unpacked.

        Raises:
            ContentCodingError: it is another one, or several: each would multiply what a small
                body unpacks to.
        """
        self._coding = coding.strip().lower()
        try:
            self._window_bits = _WINDOW_BITS[self._coding]
        except KeyError:
            raise ContentCodingError(
                f"Content-Encoding {coding[:40]!r} is not understood; send one of "
                f"{', '.join(CODINGS)}, or the body as it is"
            ) from None
        self._limit_bytes = limit_bytes
        self._engine = zlib.decompressobj(self._window_bits)
        self._member_count = 1
        self._size_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what a part of the body unpacks to, in pieces of at most `PIECE_BYTES`.

        Raises:
            RequestTooLargeError: it is more than the limit.
            BadRequestError: it is not packed as was said.
        """
        may_have_more = False
        while data or may_have_more:
            if self._engine.eof:
                self._next_member()
            try:
                piece = self._engine.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise BadRequestError(f"the body is not {self._coding}: {error}") from error
            self._size_bytes += len(piece)
            if self._size_bytes > self._limit_bytes:
                raise RequestTooLargeError(None, self._limit_bytes)
            data = self._engine.unconsumed_tail or self._engine.unused_data
            # All of the input may be taken in while the end of what it unpacks to still waits.
            may_have_more = len(piece) == PIECE_BYTES and not self._engine.eof
            if piece:
                yield piece

    def finish(self) -> None:
        """Say that the body is whole.

        Raises:
            BadRequestError: something is missing at its end.
        """
        if not self._engine.eof:
            raise BadRequestError(f"the {self._coding} body ends before its content does")

    def _next_member(self) -> None:
        # What follows is copied once per member: many tiny ones cost far more than their size.
        self._member_count += 1
        if self._coding == "deflate" or self._member_count > _MOST_MEMBERS:
            raise BadRequestError(f"the {self._coding} body goes on after its end")
        self._engine = zlib.decompressobj(self._window_bits)
