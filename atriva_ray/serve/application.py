"""The server as an application of Ray Serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp, Receive, Scope, Send

from atriva_inference.errors import InferenceRuntimeError, OptionError
from atriva_ray.ray_errors import translated
from atriva_ray.serve.catalog import Catalog
from atriva_ray.serve.ingress import Ingress, token_store
from atriva_ray.serve.server_face import ModelState
from atriva_ray.serve.settings import ServeSettings
from atriva_ray.serve.shelf import open_shelf
from atriva_ray.serve.table import Table, TableVersion
from atriva_ray.serve.tally import Tally

__all__ = ["CATALOG", "app", "build"]

CATALOG = "Catalog"

Value = TypeVar("Value")

_CALLS = 100_000
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}
_HEALTH_PERIOD_S = 5.0
_DRAIN_TIMEOUT_S = 30.0


class _IntoServeLog(logging.Handler):
    """Writes our warnings where Ray Serve writes its own: the log file of this process."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on."""
        logging.getLogger("ray.serve").handle(record)


def _log_there() -> None:
    """Without this, some of Ray Serve's settings leave our warnings nowhere to go."""
    for package in ("atriva_inference", "atriva_ray"):
        logging.getLogger(package).addHandler(_IntoServeLog(logging.WARNING))


async def _outcome(work: Awaitable[Value]) -> Value | InferenceRuntimeError:
    try:
        return await work
    except InferenceRuntimeError as error:
        return error.with_traceback(None)


@serve.deployment(
    name=CATALOG,
    num_replicas=1,
    max_ongoing_requests=_CALLS,
    logging_config=_LOGGING,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=_HEALTH_PERIOD_S,
)
class CatalogDeployment:
    """The catalog in an actor of its own; Ray Serve starts it again when it ends."""

    # Ray Serve awaits constructors.
    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]
        """Begin to load what is wanted."""
        _log_there()
        told = ServeSettings(**settings)
        self._catalog = Catalog(open_shelf(told), told.namespace, told.load, told.watch_s)
        self._catalog.begin()

    async def watch(self, *arguments: Any) -> Table | None:
        """See `Catalog.watch`."""
        return await self._catalog.watch(*arguments)

    async def adopt(self, table: Table) -> None:
        """See `Catalog.adopt`."""
        await self._catalog.adopt(table)

    async def tallies(self, *arguments: Any) -> Mapping[tuple[str, str], Tally]:
        """See `Catalog.tallies`."""
        return await self._catalog.tallies(*arguments)

    # What these raise on purpose they return: Ray Serve logs exceptions, each with a traceback.

    async def index(self) -> tuple[ModelState, ...] | InferenceRuntimeError:
        """See `Catalog.index`."""
        return await _outcome(self._catalog.index())

    async def load(self, name: str) -> InferenceRuntimeError | None:
        """See `Catalog.load`."""
        return await _outcome(self._catalog.load(name))

    async def unload(self, name: str) -> InferenceRuntimeError | None:
        """See `Catalog.unload`."""
        return await _outcome(self._catalog.unload(name))

    async def settled(self) -> tuple[ModelState, ...] | InferenceRuntimeError:
        """See `Catalog.settled`."""
        return await _outcome(self._catalog.settled())

    async def __del__(self) -> None:
        """Let go of the models."""
        await self._catalog.close()


class CatalogCalls:
    """The catalog as an ingress reaches it: calls of its actor, with our errors."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def watch(
        self,
        ingress_id: str,
        version: TableVersion,
        tallies: Mapping[tuple[str, str], Tally],
        timeout_s: float,
    ) -> Table | None:
        """See `Catalog.watch`."""
        table: Table | None = await self._call("watch", ingress_id, version, tallies, timeout_s)
        return table

    async def adopt(self, table: Table) -> None:
        """See `Catalog.adopt`."""
        await self._call("adopt", table)

    async def tallies(
        self, ingress_id: str, mine: Mapping[tuple[str, str], Tally]
    ) -> Mapping[tuple[str, str], Tally]:
        """See `Catalog.tallies`."""
        tallies: Mapping[tuple[str, str], Tally] = await self._call("tallies", ingress_id, mine)
        return tallies

    async def index(self) -> tuple[ModelState, ...]:
        """See `Catalog.index`."""
        states: tuple[ModelState, ...] = await self._call("index")
        return states

    async def load(self, name: str) -> None:
        """See `Catalog.load`."""
        await self._call("load", name)

    async def unload(self, name: str) -> None:
        """See `Catalog.unload`."""
        await self._call("unload", name)

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            outcome = await getattr(self._handle, method).remote(*arguments)
        except Exception as error:  # noqa: BLE001 - the table knows which ones are Ray's
            raise translated(error, "the catalog") from None
        if isinstance(outcome, InferenceRuntimeError):
            raise outcome
        return outcome


_here: Ingress | None = None
"""The ingress of this process, which Ray Serve's own proxies ask as well."""


def _put_behind_front(ingress: Ingress) -> None:
    """Set `_here`; a constructor could not, for Ray Serve sends classes with copies of globals."""
    global _here  # noqa: PLW0603 - what Ray Serve forwards comes to a function
    _here = ingress


def _front() -> ASGIApp:
    """Return what Ray Serve's own proxies ask."""

    async def forward(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":  # comes before the deployment is made
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        assert _here is not None, "Ray Serve makes the deployment first"  # noqa: S101
        await _here.app(scope, receive, send)

    return forward


@serve.deployment(
    name="Ingress",
    max_ongoing_requests=_CALLS,
    logging_config=_LOGGING,
    ray_actor_options={"num_cpus": 0},
    health_check_period_s=_HEALTH_PERIOD_S,
    graceful_shutdown_timeout_s=_DRAIN_TIMEOUT_S,
)
@serve.ingress(_front)
class IngressDeployment:
    """An ingress in an actor of its own, on ports of its own and behind Ray Serve's proxies."""

    async def __init__(  # type: ignore[misc]
        self, settings: dict[str, Any], catalog: DeploymentHandle[Any]
    ) -> None:
        """Listen."""
        _log_there()
        self._ingress = await asyncio.to_thread(
            Ingress, ServeSettings(**settings), CatalogCalls(catalog)
        )
        await self._ingress.start()
        _put_behind_front(self._ingress)

    def check_health(self) -> None:
        """Raise if it has to be replaced."""
        self._ingress.check()

    async def __del__(self) -> None:
        """Answer what runs, and end."""
        await self._ingress.stop()


def app(settings: ServeSettings | Mapping[str, Any]) -> serve.Application:
    """Build the application, for ``serve run atriva_ray.serve:app models=...`` and Serve files.

    Args:
        settings: what is served, and where; the ``args`` of a Serve file.

    Raises:
        ValidationError: they are not what `ServeSettings` says (pydantic's).
        OptionError: others can reach the server, and there are no tokens.
    """
    checked = ServeSettings.model_validate(settings)
    has_tokens = token_store(checked) is not None
    if checked.http_port is None and not has_tokens and not checked.insecure:
        raise OptionError(
            "http_port",
            "null",
            "a port while there are no tokens: Ray Serve's proxies may listen where others reach "
            "them. Give a file of tokens, or insecure: true if everybody may ask",
        )
    return build(checked)


def build(settings: ServeSettings) -> serve.Application:
    """Build the application for somebody who knows who reaches it; else as `app`."""
    token_store(settings)
    told = settings.model_dump()
    ingress: Callable[..., serve.Application] = IngressDeployment.options(  # type: ignore[attr-defined]
        num_replicas=settings.ingresses
    ).bind
    return ingress(told, CatalogDeployment.bind(told))  # type: ignore[attr-defined]
