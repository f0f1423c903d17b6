"""One ingress: the process that clients talk to, on the ports that it shares with the others."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Mapping
from typing import Protocol

from starlette.types import ASGIApp

from atriva_ray.runtime import InferenceRuntime
from atriva_ray.serve.http.app import make_app
from atriva_ray.serve.http.gate import Gate
from atriva_ray.serve.http.listener import HttpListener
from atriva_ray.serve.open_models import OpenModels
from atriva_ray.serve.request_limits import Limits
from atriva_ray.serve.rpc.listener import RpcListener
from atriva_ray.serve.rpc.service import make_handler
from atriva_ray.serve.server import CatalogFace, Server
from atriva_ray.serve.settings import ServeSettings
from atriva_ray.serve.sockets import is_loopback
from atriva_ray.serve.table import Table, TableVersion
from atriva_ray.serve.tally import Tally
from atriva_ray.serve.tokens import TokenStore, are_tokens_required

__all__ = ["Ingress", "WatchedCatalog", "token_store"]

_logger = logging.getLogger(__name__)

_WATCH_TIMEOUT_S = 5.0
_RETRY_S = 0.5


class WatchedCatalog(CatalogFace, Protocol):
    """The catalog, as an ingress follows it."""

    def watch(
        self,
        ingress_id: str,
        version: TableVersion,
        tallies: Mapping[tuple[str, str], Tally],
        timeout_s: float,
    ) -> Awaitable[Table | None]:
        """Return the newest table; None to be given the one that the ingress has."""
        ...

    def adopt(self, table: Table) -> Awaitable[None]:
        """Go on with a table of another catalog."""
        ...


def token_store(settings: ServeSettings) -> TokenStore | None:
    """Return the tokens that clients need; None if they need none.

    Raises:
        OptionError: others can reach the server, and there are no tokens.
    """
    store = (
        TokenStore.from_env() if settings.tokens is None else TokenStore.from_file(settings.tokens)
    )
    is_needed = are_tokens_required(settings.host, store, is_insecure=settings.insecure)
    return store if is_needed else None


class Ingress:
    """Follows the catalog and answers clients, from `start` to `stop`."""

    def __init__(self, settings: ServeSettings, catalog: WatchedCatalog) -> None:
        """Make one that does nothing yet.

        Raises:
            OptionError: tokens are needed, and there are none.
            ClusterError: there is no cluster.
        """
        self._settings = settings
        self._catalog = catalog
        self._id = uuid.uuid4().hex
        self._store = token_store(settings)
        self._runtime = InferenceRuntime(namespace=settings.namespace)
        self._models = OpenModels(self._runtime)
        self._server = Server(
            self._id, self._models, catalog, is_controllable=settings.is_controllable
        )
        limits = Limits(max_body_bytes=settings.max_body_bytes, max_requests=settings.max_waiting)
        self._gate = Gate(
            None if self._store is None else self._store.check,
            settings.host if settings.http_port and is_loopback(settings.host) else None,
        )
        self.app: ASGIApp = make_app(self._server, limits, self._gate)
        self._http: HttpListener | None = None
        self._rpc: RpcListener | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen as soon as everything is open that the catalog says there is by now.

        Raises:
            OSError, OptionError: a port cannot be had.
        """
        settings = self._settings
        first = asyncio.Event()
        self._following = asyncio.create_task(self._follow(first))
        await first.wait()
        certificate = None if settings.tls_certificate is None else str(settings.tls_certificate)
        key = None if settings.tls_key is None else str(settings.tls_key)
        if settings.http_port is not None:
            self._http = HttpListener(self.app, settings.host, settings.http_port, certificate, key)
            await self._http.start()
        if settings.grpc_port is not None:
            self._rpc = RpcListener(
                make_handler(self._server),
                settings.host,
                settings.grpc_port,
                authorize=None if self._store is None else self._authorize,
                max_message_bytes=settings.max_body_bytes,
                tls_certificate=certificate,
                tls_key=key,
            )
            await self._rpc.start()

    def check(self) -> None:
        """See that it still follows the catalog.

        Raises:
            RuntimeError: it does not, and has to be replaced.
        """
        if self._following is None or self._following.done():
            raise RuntimeError("the ingress does not follow the catalog any more")

    async def stop(self) -> None:
        """Take no more requests, answer those that run, let go of every model."""
        await asyncio.gather(
            *(listener.stop() for listener in (self._http, self._rpc) if listener is not None)
        )
        if self._following is not None:
            self._following.cancel()
        await self._models.close()
        await asyncio.to_thread(self._runtime.close)

    def _authorize(self, metadata: Mapping[str, str]) -> None:
        self._gate.check(metadata.get("authorization"))

    async def _follow(self, first: asyncio.Event) -> None:
        switched = TableVersion()
        while True:
            try:
                table = await self._catalog.watch(
                    self._id, switched, self._models.tallies, _WATCH_TIMEOUT_S
                )
                if table is None:
                    await self._catalog.adopt(self._models.table)
                    switched = TableVersion()
                    continue
                if table.version == switched:
                    continue
                failures = await self._models.switch(table)
            except Exception as error:  # noqa: BLE001 - whatever happens, go on with what there is
                _logger.warning("the catalog does not answer: %s", error)
                await asyncio.sleep(_RETRY_S)
                continue
            first.set()  # from now on clients find here what they find elsewhere
            for offer, reason in failures.items():
                _logger.warning("cannot open model %s %s: %s", offer.name, offer.version, reason)
            if failures:
                await asyncio.sleep(_RETRY_S)
            else:
                switched = table.version
