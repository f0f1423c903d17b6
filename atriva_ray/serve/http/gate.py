"""Who may ask: those with a token, and no web site that a browser shows."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from atriva_ray.errors import UnauthorizedError
from atriva_ray.serve.http_errors import ForbiddenOriginError

__all__ = ["Gate"]

_OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
"""What orchestrators ask, who have no token, and pages that show nothing without one."""

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Gate:
    """Lets requests through, or raises.

    Without tokens, on loopback, whatever runs on this machine may ask: a browser too, which does
    what the pages in it want. So the server must have been asked by a name of this machine, which
    no other site can take, and not on behalf of another site.
    """

    def __init__(
        self, authorize: Callable[[str | None], object] | None, loopback_host: str | None
    ) -> None:
        """Say who may ask.

        Args:
            authorize: raises `UnauthorizedError` unless it is given the ``Authorization`` header of
                a known token. None: everybody may ask.
            loopback_host: address that the server listens on if only this machine can reach it.
        """
        self._authorize = authorize
        self._hosts = (
            None
            if loopback_host is None or authorize is not None
            else _LOOPBACK_NAMES | {loopback_host.lower(), f"[{loopback_host.lower()}]"}
        )

    @property
    def wants_token(self) -> bool:
        """Whether clients need a token."""
        return self._authorize is not None

    def knows(self, authorization: str | None) -> bool:
        """Whether a client has shown what it needs."""
        try:
            self.check(authorization)
        except UnauthorizedError:
            return False
        return True

    def check(self, authorization: str | None) -> None:
        """Raise `UnauthorizedError` unless a client has shown what it needs."""
        if self._authorize is not None:
            self._authorize(authorization)

    def guard(self, app: ASGIApp) -> ASGIApp:
        """Return an application that is asked only by those who may."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1")
            self._check_site(host, headers.get(b"origin"))
            if scope["path"] not in _OPEN_PATHS:
                authorization = headers.get(b"authorization")
                self.check(None if authorization is None else authorization.decode("latin-1"))
            await app(scope, receive, send)

        return guarded

    def _check_site(self, host: str, origin: bytes | None) -> None:
        if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
            raise ForbiddenOriginError("origin", origin.decode("latin-1"))
        if self._hosts is not None and host and _without_port(host).lower() not in self._hosts:
            raise ForbiddenOriginError("host", host)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host
