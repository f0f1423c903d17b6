"""`ServeSettings`: everything a server can be told, from the command line or a Serve file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from atriva_ray.connection import DEFAULT_NAMESPACE

__all__ = ["ServeSettings"]


def _listed(value: object) -> object:
    """Take ``a,b`` as well, which is all that ``serve run`` can pass on."""
    return tuple(filter(None, value.split(","))) if isinstance(value, str) else value


_Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
_Port = Annotated[int, Field(ge=1, le=65_535)]


class ServeSettings(BaseModel):
    """What is served, where it listens, and who may ask.

    Attributes:
        models: files or SavedModel folders, each ``path`` or ``name=path``.
        repository: folder or URL of models, each ``name/version/model.xml`` or the like.
        load: names of the repository's models to load at the beginning; None: all of them.
        model: settings of the models in `models`, as a ``model.yaml`` has them.
        host: address to listen on. Off loopback, tokens or `insecure` are needed.
        http_port: None: no HTTP of our own, only what Ray Serve's proxies forward.
        grpc_port: None: no gRPC.
        ingresses: processes that talk to clients; they share the ports of their node.
        tokens: file of hashes of tokens, see ``atriva token``.
        insecure: serve without tokens off loopback all the same.
        tls_certificate: PEM file; with `tls_key`, both ports speak TLS only.
        tls_key: PEM file.
        is_controllable: whether clients may load and unload models.
        watch_s: how often the repository is looked at for changes; None: only when told.
        max_body_bytes: of a request, after decompression.
        max_waiting: requests that one ingress takes at once, for all models together.
        namespace: programs in the same namespace share one router, and so their models.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: _Names = ()
    repository: str | None = None
    load: _Names | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    host: str = "127.0.0.1"
    http_port: _Port | None = 8000
    grpc_port: _Port | None = 8001
    ingresses: Annotated[int, Field(ge=1, le=1000)] = 2
    tokens: Path | None = None
    insecure: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    is_controllable: bool = True
    watch_s: Annotated[float, Field(gt=0)] | None = None
    max_body_bytes: Annotated[int, Field(ge=1024)] = 256 << 20
    max_waiting: Annotated[int, Field(ge=1)] = 1024
    namespace: str = DEFAULT_NAMESPACE

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.models and self.repository is None:
            raise ValueError("there is nothing to serve: name models, or a repository")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("TLS needs both tls_certificate and tls_key")
        return self
