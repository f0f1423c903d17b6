"""Joining a Ray cluster, or starting one inside this program."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from atriva_ray.errors import ClusterError

__all__ = ["DEFAULT_NAMESPACE", "Connection", "connect", "is_reachable"]

_logger = logging.getLogger(__name__)

DEFAULT_NAMESPACE = "atriva"
_CONNECT_TIMEOUT_S = 10.0

_lock = threading.Lock()
_embedded_users = 0


@dataclass(slots=True)
class Connection:
    """This process's place in a cluster.

    Attributes:
        address: which cluster, as people would name it.
        is_embedded: whether it was started here, and ends with the last runtime that uses it.
    """

    address: str
    is_embedded: bool

    def close(self) -> None:
        """Leave the cluster; ends an embedded one when nobody else in the process uses it."""
        global _embedded_users  # noqa: PLW0603 - Ray itself is one per process
        if not self.is_embedded:
            return
        with _lock:
            _embedded_users -= 1
            if _embedded_users == 0 and ray.is_initialized():
                ray.shutdown()


def connect(address: str | None, *, shows_logs: bool = True) -> Connection:
    """Join a cluster.

    Args:
        address: as for ``ray.init``. None: the cluster this process is in already, else the one of
            ``RAY_ADDRESS``, else one that runs on this machine, else an embedded one.
        shows_logs: whether Ray prints here what its workers print, as it does if nobody tells it
            not to. Means nothing if this process is in a cluster already.

    Raises:
        ClusterError: there is no cluster at the address.
    """
    global _embedded_users  # noqa: PLW0603 - Ray itself is one per process
    with _lock:
        if ray.is_initialized():
            if _embedded_users:
                _embedded_users += 1
                return Connection("embedded", is_embedded=True)
            return Connection(_current_address(), is_embedded=False)
        # Said only where it is to change: RAY_LOG_TO_DRIVER has its say otherwise.
        options: dict[str, Any] = {} if shows_logs else {"log_to_driver": False}
        wanted = address or os.environ.get("RAY_ADDRESS")
        if wanted is None and _has_running_cluster():
            _join(None, options)
            return Connection(_current_address(), is_embedded=False)
        if wanted not in (None, "local"):
            _check_reachable(wanted)
            _join(wanted, options)
            return Connection(_current_address(), is_embedded=False)
        _init("local", include_dashboard=False, **options)
        _embedded_users = 1
        _logger.info("started an embedded Ray cluster in this program")
        return Connection("embedded", is_embedded=True)


def _has_running_cluster() -> bool:
    """Whether the cluster that ``ray start`` last made on this machine still answers.

    Ray notes its address where ``ray.init`` documents it, and leaves the note behind when it is
    killed. An address of "auto" would do too much: it also joins clusters that are embedded in
    other programs and end with them.
    """
    root = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
    try:
        return is_reachable((root / "ray" / "ray_current_cluster").read_text().strip())
    except OSError:
        return False


def _join(address: str | None, options: dict[str, Any]) -> None:
    try:
        _init(address, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = address or "of this machine"
        raise ClusterError(where, f"{error}; {_token_hint()}") from error
    _logger.info("joined the Ray cluster at %s", _current_address())


def _init(address: str | None, **options: Any) -> None:
    ray.init(
        address=address,
        namespace=DEFAULT_NAMESPACE,
        configure_logging=False,
        **options,
    )


def _check_reachable(address: str) -> None:
    """Ray itself tries a dead address for minutes.

    Raises:
        ClusterError: nothing listens at ``host:port``.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S):
            return
    except (OSError, OverflowError) as error:
        raise ClusterError(address, f"{error}; check the address, and that it runs") from error


def is_reachable(address: str) -> bool:
    """Whether somebody listens at ``host:port``; blocks for 10 s at most."""
    try:
        _check_reachable(address)
    except ClusterError:
        return False
    return True


def _token_hint() -> str:
    """Say what is most often missing: Ray asks for a token, and offers it only when told to."""
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return "check that it runs, and that RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token has its token"
    return "check that it runs; if it uses tokens (Ray's default), set RAY_AUTH_MODE=token"


def _current_address() -> str:
    return str(ray.get_runtime_context().gcs_address)
