"""The gRPC port of one ingress, which it shares with the other ingresses of its node."""

# Types of gRPC may not be there.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, Self, TypeAlias

import grpc

from atriva_inference.errors import OptionError
from atriva_ray.serve.rpc.failures import refuse
from atriva_ray.serve.rpc.service import SERVICE

__all__ = ["Authorize", "RpcListener"]

Authorize: TypeAlias = Callable[[Mapping[str, str]], None]
"""Takes what came with a call, by names in small letters; raises `UnauthorizedError`."""

_MAX_MESSAGE_BYTES = 256 << 20
_GRACE_S = 15.0

# Those who only look whether the server works have no token.
_OPEN_TO_ALL = frozenset({f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady"})

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 1),
    # What a client may send before it is told to go on. A picture as float32 has 600 kB; the usual
    # 64 KiB would make a client far away wait for us again and again.
    ("grpc.http2.lookahead_bytes", 4 << 20),
    # A client whose machine is gone is noticed after this, and its requests are cancelled.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Clients may ask likewise, also between requests; the usual limit is one ping in 5 minutes.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


class RpcListener:
    """Listens from `start` to `stop`, or as long as a ``async with`` block lasts."""

    def __init__(
        self,
        handler: grpc.GenericRpcHandler,
        host: str,
        port: int,
        *,
        authorize: Authorize | None = None,
        max_message_bytes: int = _MAX_MESSAGE_BYTES,
        tls_certificate: str | Path | None = None,
        tls_key: str | Path | None = None,
    ) -> None:
        """Say how to listen; nothing happens yet.

        Args:
            handler: answers the calls, see `make_handler`.
            host: address to listen on.
            port: 0: any that is free.
            authorize: sees the metadata of every call but `ServerLive` and `ServerReady`.
            max_message_bytes: of what clients send, each message.
            tls_certificate: PEM file; with `tls_key`, clients must speak TLS.
            tls_key: PEM file.

        Raises:
            OptionError: only one of the PEM files is given.
        """
        if (tls_certificate is None) != (tls_key is None):
            raise OptionError(
                "tls_certificate and tls_key",
                f"{tls_certificate} and {tls_key}",
                "both of them, or none",
            )
        self._handler = handler
        self._host = host
        self._wanted_port = port
        self._authorize = authorize
        self._max_message_bytes = max_message_bytes
        self._tls = None
        if tls_certificate is not None and tls_key is not None:
            self._tls = (Path(tls_key), Path(tls_certificate))
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port, once it has been started."""
        return self._port

    async def start(self) -> None:
        """Listen; return when clients can connect.

        Raises:
            OptionError: the address cannot be had, or a PEM file cannot be read.
        """
        server = grpc.aio.server(
            interceptors=[] if self._authorize is None else [_Gate(self._authorize)],
            options=[
                *_OPTIONS,
                ("grpc.max_receive_message_length", self._max_message_bytes),
                ("grpc.max_send_message_length", -1),  # the models say how much that is
            ],
        )
        server.add_generic_rpc_handlers((self._handler,))
        address = f"[{self._host}]" if ":" in self._host else self._host
        address = f"{address}:{self._wanted_port}"
        credentials = self._credentials()
        try:
            if credentials is None:
                self._port = server.add_insecure_port(address)
            else:
                self._port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OptionError(
                "address", address, f"an address of this machine and a free port ({error})"
            ) from None
        self._server = server
        await server.start()

    async def stop(self, grace_s: float = _GRACE_S) -> None:
        """Take no new calls; return when those that run are answered, or cancelled after `grace_s`.

        May be called again, and without a start.
        """
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _credentials(self) -> grpc.ServerCredentials | None:
        if self._tls is None:
            return None
        contents = []
        for path in self._tls:
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise OptionError(
                    "tls", str(path), f"a PEM file that can be read ({error.strerror})"
                ) from error
        return grpc.ssl_server_credentials([(contents[0], contents[1])])


class _Gate(grpc.aio.ServerInterceptor):  # type: ignore[misc,unused-ignore] # as above
    """Lets those calls pass that are authorized."""

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        method: str = handler_call_details.method
        if method not in _OPEN_TO_ALL:
            metadata = handler_call_details.invocation_metadata or ()
            try:
                # Binary values, of names that end in -bin, are nothing to know a client by.
                self._authorize({key: value for key, value in metadata if isinstance(value, str)})
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody passes
                return _refusal(error, method)
        return await continuation(handler_call_details)


def _refusal(error: Exception, method: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def handle(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        await refuse(context, error, method)

    # As for a stream, whatever the call is: so nothing of what it sends is waited for.
    return grpc.stream_stream_rpc_method_handler(handle)
