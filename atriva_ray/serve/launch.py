"""Starting a server on a cluster, and ending it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ray import serve
from ray.serve.handle import DeploymentHandle

from atriva_ray.connection import connect
from atriva_ray.errors import ClusterError
from atriva_ray.ray_errors import translated
from atriva_ray.serve.application import APPLICATION, CATALOG, app
from atriva_ray.serve.server_face import ModelState
from atriva_ray.serve.settings import ServeSettings
from atriva_ray.serve.sockets import check_free

__all__ = ["Serving", "serving"]


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that runs.

    Attributes:
        cluster: on which cluster.
        http_url: where HTTP is spoken; empty if it is not.
        grpc_address: where gRPC is spoken; empty if it is not.
        models: what became of the models of the beginning.
    """

    cluster: str
    http_url: str
    grpc_address: str
    models: tuple[ModelState, ...]


@contextmanager
def serving(settings: ServeSettings, address: str | None = None) -> Iterator[Serving]:
    """Serve as long as the block lasts; it begins when every model is loaded, or has failed.

    Args:
        settings: what is served, and where.
        address: which cluster, as for `InferenceRuntime`.

    Raises:
        OptionError: the settings cannot be used on this machine.
        ClusterError: there is no cluster at `address`.
    """
    for port in (settings.http_port, settings.grpc_port):
        if port is not None:
            check_free(settings.host, port)
    application = app(settings)
    connection = connect(address)
    logging.getLogger("ray.serve").setLevel(logging.getLogger("ray").level)
    is_first = not serve.status().applications
    try:
        if is_first and settings.http_port is not None:
            serve.start(proxy_location="Disabled")
        _run(application, _route(settings), connection.address)
        yield Serving(connection.address, *_addresses(settings), _settled())
    finally:
        if is_first:
            serve.shutdown()  # type: ignore[no-untyped-call]
        else:
            serve.delete(APPLICATION)
        connection.close()


def _run(application: serve.Application, route: str | None, cluster: str) -> None:
    try:
        serve.run(application, name=APPLICATION, route_prefix=route)
    except RuntimeError as error:
        reason = f"Ray Serve could not start the server, its logs say why ({error})"
        raise ClusterError(cluster, reason) from error


def _route(settings: ServeSettings) -> str | None:
    """Ray Serve's own proxies forward only where they are to."""
    return "/" if settings.http_port is None else None


def _settled() -> tuple[ModelState, ...]:
    catalog: DeploymentHandle[object] = serve.get_deployment_handle(CATALOG, APPLICATION)
    try:
        states: tuple[ModelState, ...] = catalog.settled.remote().result()
    except Exception as error:  # noqa: BLE001 - the table knows which ones are Ray's
        raise translated(error, "the catalog") from None
    return states


def _addresses(settings: ServeSettings) -> tuple[str, str]:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_certificate is None else "https"
    http = "" if settings.http_port is None else f"{scheme}://{host}:{settings.http_port}"
    grpc = "" if settings.grpc_port is None else f"{host}:{settings.grpc_port}"
    return http, grpc
