"""Starting a server on a cluster, and ending it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from atriva_inference.errors import InferenceRuntimeError, OptionError
from atriva_ray.connection import connect
from atriva_ray.errors import ClusterError, RepositoryError
from atriva_ray.ray_errors import translated
from atriva_ray.serve.application import CATALOG, build
from atriva_ray.serve.server_face import ModelState
from atriva_ray.serve.settings import ServeSettings
from atriva_ray.serve.shelf import open_shelf
from atriva_ray.serve.sockets import check_free

__all__ = ["DEFAULT_NAME", "Serving", "serving"]

DEFAULT_NAME = "atriva"


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
def serving(
    settings: ServeSettings,
    *,
    name: str = DEFAULT_NAME,
    address: str | None = None,
    shows_logs: bool = True,
) -> Iterator[Serving]:
    """Serve as long as the block lasts; it begins when every model is loaded, or has failed.

    Args:
        settings: what is served, and where.
        name: of the server; each on a cluster has one of its own.
        address: which cluster, as for `InferenceRuntime`.
        shows_logs: whether Ray prints here what the server's processes print.

    Raises:
        OptionError: the settings cannot be used on this machine, or the name is taken.
        RepositoryError: the repository cannot be read, or no model is there.
        ClusterError: there is no cluster at `address`, or Ray Serve cannot start the server.
    """
    for port in (settings.http_port, settings.grpc_port):
        if port is not None:
            check_free(settings.host, port)
    application = build(settings)
    if settings.repository is None:  # what is wrong with its settings needs no cluster to be told
        open_shelf(settings).close()
    connection = connect(address, shows_logs=shows_logs)
    try:
        logging.getLogger("ray.serve").setLevel(logging.getLogger("ray").level)
        if connection.is_embedded:  # otherwise other machines may have what this one lacks
            _check_there(settings)
        others = serve.status().applications
        if name in others:
            raise OptionError("name", name, "one that no other server of this cluster has")
        try:
            if not others:
                serve.start(proxy_location="Disabled")
            _run(application, name, connection.address)
            yield Serving(connection.address, *_addresses(settings), _settled(name))
        finally:
            _end(name)
    finally:
        connection.close()


def _check_there(settings: ServeSettings) -> None:
    """See that there is anything to serve, before a server is started for nothing."""
    shelf = open_shelf(settings)
    try:
        found = shelf.look()
    finally:
        shelf.close()
    if settings.repository is None and all(model.is_broken for model in found):
        raise RepositoryError(found[0].name, found[0].problems[0])


def _end(name: str) -> None:
    """End a server, and Ray Serve itself if it has nothing else to do."""
    with suppress(RayServeException):  # it may not even have begun
        serve.delete(name)
        if not serve.status().applications:
            serve.shutdown()  # type: ignore[no-untyped-call]


def _run(application: serve.Application, name: str, cluster: str) -> None:
    try:  # no route: proxies of other applications are to forward nothing here
        serve.run(application, name=name, route_prefix=None)
    except RuntimeError as error:
        reason = f"Ray Serve could not start the server, its logs say why ({error})"
        raise ClusterError(cluster, reason) from error


def _settled(name: str) -> tuple[ModelState, ...]:
    catalog: DeploymentHandle[object] = serve.get_deployment_handle(CATALOG, name)
    try:
        outcome: tuple[ModelState, ...] | InferenceRuntimeError = catalog.settled.remote().result()
    except Exception as error:  # noqa: BLE001 - the table knows which ones are Ray's
        raise translated(error, "the catalog") from None
    if isinstance(outcome, InferenceRuntimeError):
        raise outcome
    return outcome


def _addresses(settings: ServeSettings) -> tuple[str, str]:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    scheme = "http" if settings.tls_certificate is None else "https"
    http = "" if settings.http_port is None else f"{scheme}://{host}:{settings.http_port}"
    grpc = "" if settings.grpc_port is None else f"{host}:{settings.grpc_port}"
    return http, grpc
