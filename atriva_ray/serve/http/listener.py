"""The HTTP port of one ingress, which it shares with the other ingresses of its node."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Self

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from atriva_ray.serve.sockets import listen_shared

__all__ = ["HttpListener"]

_HEADERS_TIMEOUT_S = 30.0
_KEEP_ALIVE_S = 75
_DRAIN_TIMEOUT_S = 15
_STARTED_EVERY_S = 0.01


class _ImpatientProtocol(HttpToolsProtocol):
    """Closes connections on which no request begins in time; uvicorn itself would wait forever."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_HEADERS_TIMEOUT_S, transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:  # a later request of the same connection
            self._deadline = self.loop.call_later(_HEADERS_TIMEOUT_S, self.transport.close)

    def on_headers_complete(self) -> None:
        self._forget_deadline()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class HttpListener:
    """Listens from `start` to `stop`."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        tls_certificate: str | None = None,
        tls_key: str | None = None,
    ) -> None:
        """Remember what is wanted; `start` does it.

        Args:
            app: what answers.
            host: address to listen on.
            port: 0 takes one that is free.
            tls_certificate: PEM file, for HTTPS.
            tls_key: PEM file.
        """
        self._wanted = (host, port)
        self._config = uvicorn.Config(
            app,
            loop="none",
            http=_ImpatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_DRAIN_TIMEOUT_S,
            ssl_certfile=tls_certificate,
            ssl_keyfile=tls_key,
        )
        self._server = uvicorn.Server(self._config)
        self._serving: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._socket is not None, "it does not listen yet"  # noqa: S101
        port: int = self._socket.getsockname()[1]
        return port

    async def start(self) -> Self:
        """Listen; returns when connections are taken.

        Raises:
            OSError: the address cannot be had.
        """
        self._socket = listen_shared(*self._wanted)
        self._serving = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            await asyncio.wait([self._serving], timeout=_STARTED_EVERY_S)
            if self._serving.done():
                self._serving.result()
        return self

    async def stop(self) -> None:
        """Take no more connections, answer what was asked, close."""
        if self._serving is None:
            return
        self._server.should_exit = True
        await asyncio.wait([self._serving])
        if self._socket is not None:
            self._socket.close()
