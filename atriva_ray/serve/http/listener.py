"""The HTTP port of one ingress, which it shares with the other ingresses of its node."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Self

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from atriva_ray.serve.protocol.rest_answer import encode_error
from atriva_ray.serve.sockets import listen_shared

__all__ = ["HttpListener"]

_HEADERS_TIMEOUT_S = 30.0
_MAX_HEADERS_BYTES = 64 << 10
_KEEP_ALIVE_S = 75
_DRAIN_TIMEOUT_S = 15
_STARTED_EVERY_S = 0.01
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b"
)

_OFFER = b"upgrade"


class _Parser(httptools.HttpRequestParser):
    """Reads on where a client offers another protocol, which nobody has to take."""

    owner: _ImpatientProtocol

    def feed_data(self, data: Any) -> None:
        parser: httptools.HttpRequestParser = self
        left = data
        while left:
            try:
                httptools.HttpRequestParser.feed_data(parser, left)
            except httptools.HttpParserUpgrade as offer:
                if not self.owner.is_offered_more():
                    raise
                left = self.owner.begin_again(left[offer.args[0] :])
                parser = self.owner.parser
            else:
                return


class _ImpatientProtocol(HttpToolsProtocol):
    """Closes connections whose headers take too long or are too long; uvicorn has no limits."""

    _deadline: asyncio.TimerHandle | None = None
    _headers_bytes = 0
    _is_counted = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.parser = self._new_parser()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is None:
            return
        if self._is_counted:
            self._headers_bytes += len(data)  # all of it: what was fed did not end them
        self._is_counted = True
        if self._headers_bytes > _MAX_HEADERS_BYTES:
            self.transport.close()

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(_HEADERS_TIMEOUT_S, transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._headers_bytes = 0
        # What came in one piece with the end of an earlier request may be that one's body.
        self._is_counted = self.cycle is None
        if self._deadline is None:  # a later request of the same connection
            self._deadline = self.loop.call_later(_HEADERS_TIMEOUT_S, self.transport.close)

    def on_headers_complete(self) -> None:
        self._forget_deadline()
        if not self.is_offered_more():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.is_offered_more():
            super().on_message_complete()

    def is_offered_more(self) -> bool:
        """Whether the client offers another protocol for what follows its request."""
        return self.parser.should_upgrade() and any(name == _OFFER for name, _ in self.headers)

    def begin_again(self, rest: bytes) -> bytes:
        """Return a request as if its client had not offered another protocol, for a new parser.

        The parser takes all that follows such an offer for that protocol, and the body would be
        lost; but clients that know HTTP/2 just ask, and go on as they are answered.

        Args:
            rest: what follows the headers.
        """
        version = self.parser.get_http_version().encode()
        start = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)
        headers = [b"%b: %b" % each for each in self.headers if each[0] != _OFFER]
        self.parser = self._new_parser()
        return b"\r\n".join((start, *headers, b"", rest))

    def send_400_response(self, msg: str) -> None:
        """Tell of what is no HTTP as of every other error; uvicorn itself sends plain text."""
        body = encode_error(f"this cannot be read: {msg}")
        self.transport.write(_BAD_REQUEST % (len(body), body))
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _new_parser(self) -> _Parser:
        parser = _Parser(self)
        parser.owner = self
        # As uvicorn has it, so that of several requests in one piece the first is answered.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

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
