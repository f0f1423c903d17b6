"""Starting a server on a cluster, and ending it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import ray
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from atriva_inference.errors import InferenceRuntimeError, OptionError
from atriva_ray.connection import connect, is_reachable
from atriva_ray.errors import ClusterError, RepositoryError
from atriva_ray.ray_errors import translated
from atriva_ray.serve.application import CATALOG, build
from atriva_ray.serve.server_face import ModelState
from atriva_ray.serve.settings import ServeSettings
from atriva_ray.serve.shelf import open_shelf
from atriva_ray.serve.sockets import check_free

__all__ = ["DEFAULT_NAME", "Serving", "serving"]

DEFAULT_NAME = "atriva"

_logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0


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
    """End a server, and Ray Serve itself if it has nothing else to do.

    Not if Ray is gone, and all of them with it: whoever stops a service tells its process group,
    in which an embedded Ray is too. Ray Serve would wait for it for a minute, and then abort.
    """
    cluster = ray.get_runtime_context().gcs_address
    is_ended: Future[None] = Future()
    threading.Thread(target=_delete, args=(name, is_ended), name="atriva-end", daemon=True).start()
    while True:
        try:
            return is_ended.result(_LOOK_EVERY_S)
        except TimeoutError:
            if not is_reachable(cluster):
                _logger.warning("the Ray cluster is gone, and the server with it")
                return None


def _delete(name: str, is_ended: Future[None]) -> None:
    try:
        with suppress(RayServeException):  # it may not even have begun
            serve.delete(name)
            if not serve.status().applications:
                serve.shutdown()  # type: ignore[no-untyped-call]
    except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits for it
        is_ended.set_exception(error)
    else:
        is_ended.set_result(None)


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
