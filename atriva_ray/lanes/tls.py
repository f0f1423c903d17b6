"""TLS for lanes between hosts, with the files that Ray itself is configured with."""

from __future__ import annotations

import os
import ssl

__all__ = ["client_context", "server_context", "uses_tls"]

_WANTED = "RAY_USE_TLS"
_CERTIFICATE = "RAY_TLS_SERVER_CERT"
_KEY = "RAY_TLS_SERVER_KEY"
_AUTHORITY = "RAY_TLS_CA_CERT"


def uses_tls() -> bool:
    """Whether Ray is configured for TLS, as its documentation says: ``RAY_USE_TLS=1``."""
    return os.environ.get(_WANTED, "0").lower() in ("1", "true")


def server_context() -> ssl.SSLContext | None:
    """Return what a replica speaks TLS with; clients must show a certificate of the same authority.

    Raises:
        KeyError, OSError: Ray is configured for TLS, and a file is not named or cannot be read.
    """
    if not uses_tls():
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return _filled(context)


def client_context() -> ssl.SSLContext | None:
    """Return what a client speaks TLS with.

    Certificates of a Ray cluster are made for the cluster and not for host names, so names are not
    compared; the authority is, and the lane's token says which replica it is.
    """
    if not uses_tls():
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return _filled(context)


def _filled(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(os.environ[_CERTIFICATE], os.environ[_KEY])
    context.load_verify_locations(os.environ[_AUTHORITY])
    context.verify_mode = ssl.CERT_REQUIRED
    return context
