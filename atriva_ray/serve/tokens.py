"""Who may use a server: bearer tokens, of which it knows only the hashes.

A file has one line per token, ``sha256:<hex>`` and, if wanted, a blank and a name; ``#`` begins a
comment. A line that is taken out of the file ends its token within about a second.

The hash is plain SHA-256, where passwords would need a slow one with salt: those make it dear to
try all passwords that people think of. A token of `new_token` has 256 random bits, which nobody
can try, whatever one try costs; and every request has to wait for the hash.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from atriva_inference.errors import OptionError
from atriva_ray.errors import InputFileError, UnauthorizedError
from atriva_ray.serve.sockets import is_loopback

__all__ = ["HASHES_VARIABLE", "TOKEN_VARIABLE", "TokenStore", "are_tokens_required", "new_token"]

HASHES_VARIABLE = "ATRIVA_TOKEN_HASHES"
"""Environment variable with lines as in the file; commas may stand for line ends."""

TOKEN_VARIABLE = "ATRIVA_TOKEN"  # noqa: S105 - a name, no token
"""Environment variable with one token as it is."""

_PREFIX = "atriva_"  # so that who finds one in a log or a repository knows what it is
_RANDOM_BYTES = 32
_LEAST_CHARS = 16
_LOOK_EVERY_S = 1.0
_MOST_FILE_BYTES = 1 << 20
_LINE = re.compile(r"sha256:([0-9a-fA-F]{64})(?:[ \t]+([\w.@+-]{1,64}))?", re.ASCII)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    name: str


def new_token(name: str = "") -> tuple[str, str]:
    """Make a token.

    Args:
        name: what the server calls its bearer; letters, digits and ``_.@+-``. Empty: a name is
            made from the hash.

    Returns:
        The token, for the client, which nobody can get back from the line; and the line for the
        server's file.

    Raises:
        OptionError: no such name can stand in the file.
    """
    token = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    line = f"sha256:{_digest(token).hex()} {name}".rstrip()
    if _LINE.fullmatch(line) is None:
        raise OptionError("name", name, "up to 64 letters, digits and _.@+- without blanks")
    return token, line


class TokenStore:
    """Knows tokens by their hashes; follows its file, if it has one."""

    def __init__(
        self,
        lines: Iterable[str] = (),
        *,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take hashes; rather call `from_file` or `from_env`.

        Args:
            lines: as they stand in a file; they stay, whatever is in the file.
            path: the file.
            clock: seconds that only go forward.

        Raises:
            InputFileError: the file cannot be read, others may write to it, or a line is none.
            OptionError: one of `lines` is none.
        """
        known, bad_lines = _parse(lines)
        if bad_lines:
            raise OptionError(HASHES_VARIABLE, f"line {bad_lines[0]}", "sha256:<64 hex digits>")
        self._fixed = known
        self._path = path
        self._clock = clock
        self._from_file: tuple[_Known, ...] = ()
        self._seen: tuple[int, ...] = ()
        self._looked_s = clock()
        if path is not None:
            self._from_file, bad_lines = self._read(path)
            if bad_lines:
                # Said without the line: it might be a token that was put there as it is.
                reason = f"line {bad_lines[0]} is not 'sha256:<64 hex digits>', blank, name"
                raise InputFileError(str(path), reason)

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic
    ) -> TokenStore:
        """Know the tokens of a file, as it is at any time.

        A file that can later not be read, or that others may then write to, has no tokens; a line
        that is later none is passed over. Either is logged.

        Raises:
            InputFileError: it cannot be read now, others may write to it, or a line is none.
        """
        return cls(path=Path(path), clock=clock)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> TokenStore:
        """Know the tokens of the environment; none if there are none.

        Raises:
            OptionError: a line is none, or the token is short enough to be guessed.
        """
        lines = environ.get(HASHES_VARIABLE, "").replace(",", "\n").splitlines()
        token = environ.get(TOKEN_VARIABLE, "").strip()
        if token:
            if len(token) < _LEAST_CHARS or not token.isascii() or len(token.split()) > 1:
                expected = f"at least {_LEAST_CHARS} ASCII characters without blanks, all random"
                raise OptionError(TOKEN_VARIABLE, "(not shown)", expected)
            lines.append(f"sha256:{_digest(token).hex()} {TOKEN_VARIABLE}")
        return cls(lines)

    def __len__(self) -> int:
        return len(self._fixed) + len(self._from_file)

    def __repr__(self) -> str:
        origin = "" if self._path is None else f", file {str(self._path)!r}"
        return f"TokenStore({len(self)} tokens{origin})"

    def check(self, authorization: str | None) -> str:
        """Return the name of a token.

        Args:
            authorization: the request's header of that name; None if there was none.

        Raises:
            UnauthorizedError: there was none, or it holds no token that is known.
        """
        self._look()
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthorizedError
        digest = _digest(token.strip())
        name = None
        # Through all of them, each in constant time: how long it takes says nothing.
        for known in (*self._fixed, *self._from_file):
            if hmac.compare_digest(known.digest, digest):
                name = known.name
        if name is None:
            raise UnauthorizedError
        return name

    def _look(self) -> None:
        now_s = self._clock()
        if self._path is None or now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        try:
            if _marks(self._path.stat()) == self._seen:
                return
            self._from_file, bad_lines = self._read(self._path)
        except (InputFileError, OSError) as error:
            if self._from_file:
                # Foreseen, so the message says it all.
                _log.error("no token of the file is accepted from now on: %s", error)
            self._from_file, self._seen = (), ()
            return
        _log.info("read %d tokens from %s", len(self._from_file), self._path)
        if bad_lines:
            numbers = ", ".join(map(str, bad_lines))
            _log.error("%s: no tokens in line(s) %s, passed over", self._path, numbers)

    def _read(self, path: Path) -> tuple[tuple[_Known, ...], list[int]]:
        try:
            with path.open("rb") as file:
                # Of the open file: the one that is looked at is the one that is read.
                status = os.fstat(file.fileno())
                if status.st_mode & stat.S_IWOTH:
                    raise InputFileError(
                        str(path), "everybody may write tokens to it: chmod o-w it first"
                    )
                content = file.read(_MOST_FILE_BYTES + 1)
        except OSError as error:
            raise InputFileError(str(path), error.strerror or type(error).__name__) from error
        if len(content) > _MOST_FILE_BYTES:
            raise InputFileError(
                str(path), f"a file of tokens has up to {_MOST_FILE_BYTES:,} bytes"
            )
        known = _parse(content.decode(errors="replace").splitlines())
        self._seen = _marks(status)
        return known


def are_tokens_required(host: str, store: TokenStore | None, *, is_insecure: bool = False) -> bool:
    """Decide whether every request needs a token; once, when the server starts.

    A store whose file is damaged later has no tokens, and then nobody may get in.

    Args:
        host: address or name that the server listens on.
        store: the tokens that it knows; None is like an empty one.
        is_insecure: whether the operator wants it open to everybody if there are no tokens.

    Raises:
        OptionError: the server must not start: others reach it, and there are no tokens.
    """
    if store is not None and len(store):
        return True
    if is_loopback(host) or is_insecure:
        return False
    raise OptionError(
        "host",
        host,
        "a loopback address such as 127.0.0.1 while there are no tokens: others could load models "
        f"and use them. Give a file of tokens or {HASHES_VARIABLE}, or --insecure if everybody "
        "who reaches this address may",
    )


def _digest(token: str) -> bytes:
    # Headers are Latin-1 on the wire; whatever came in has to give a hash, not an error.
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()


def _parse(lines: Iterable[str]) -> tuple[tuple[_Known, ...], list[int]]:
    known: dict[bytes, _Known] = {}
    bad_lines: list[int] = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            bad_lines.append(number)
            continue
        digest = bytes.fromhex(match[1])
        known[digest] = _Known(digest, match[2] or f"token-{match[1][:8].lower()}")
    return tuple(known.values()), bad_lines


def _marks(status: os.stat_result) -> tuple[int, ...]:
    # The mode too: a file that was opened to everybody has the same time and size.
    return (status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode)
