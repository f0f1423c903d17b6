"""The ASGI application: from paths to calls of the server, and back to answers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, Protocol

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from atriva_ray.errors import BadRequestError, NotSupportedError
from atriva_ray.serve.http.config_json import config_json, statistics_json
from atriva_ray.serve.http.gate import Gate
from atriva_ray.serve.http.pages import Page, page_routes
from atriva_ray.serve.http_errors import (
    ClientGoneError,
    FormRefusedError,
    MethodNotAllowedError,
    NoSuchPathError,
)
from atriva_ray.serve.limits import Limits, LimitsMiddleware, receive_body
from atriva_ray.serve.protocol.messages import ParameterValue
from atriva_ray.serve.protocol.metadata import (
    live_json,
    model_metadata_json,
    model_ready_json,
    ready_json,
    server_metadata_json,
)
from atriva_ray.serve.protocol.parameters import parameters_of
from atriva_ray.serve.protocol.rest_answer import encode_answer
from atriva_ray.serve.protocol.rest_request import (
    HEADER_LENGTH,
    parse_infer_request,
    parse_raw_request,
)
from atriva_ray.serve.server_face import ClassScore, InferenceServer

__all__ = ["ServedOverHttp", "make_app"]

_MAX_PARAMETERS = 64
_MAX_DIGITS = 9
_MAX_SHOWN = 200
_FILE = "file:"
_MULTIPART = "multipart/"


class ServedOverHttp(InferenceServer, Page, Protocol):
    """A server that also has a page."""


def make_app(server: ServedOverHttp, limits: Limits, gate: Gate) -> ASGIApp:
    """Return the application of one ingress.

    Args:
        server: what answers.
        limits: how much and how slowly clients may ask.
        gate: who may ask.
    """
    routes = [*page_routes(server, gate), *_Endpoints(server, limits).routes()]
    router = _Router(routes, redirect_slashes=False)  # a redirection is no answer of the protocol
    return LimitsMiddleware(gate.guard(router), limits)


class _Router(Router):
    """Tells clients of unknown addresses and methods as of every other error."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # so that a method that is not there is an exception
        try:
            await super().__call__(scope, receive, send)
        except HTTPException as error:
            if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            allowed = (error.headers or {}).get("Allow", "")
            raise MethodNotAllowedError(scope["method"], tuple(allowed.split(", "))) from None

    async def not_found(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Refuse what no route has."""
        raise NoSuchPathError(scope["path"])


class _Endpoints:
    def __init__(self, server: InferenceServer, limits: Limits) -> None:
        self._server = server
        self._limits = limits

    def routes(self) -> list[BaseRoute]:
        """Return all paths, those that are asked most often first."""
        routes: list[BaseRoute] = []
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(f"{model}/infer", self.infer, methods=["POST"]),
                Route(f"{model}/infer-image", self.infer_image, methods=["POST"]),
                Route(f"{model}/ready", self.model_ready),
            ]
        routes += [
            Route("/v2/health/live", self.live),
            Route("/v2/health/ready", self.ready),
            Route("/v2", self.metadata),
            Route("/v2/", self.metadata),
            Route("/v2/models/stats", self.statistics),
            Route("/v2/repository/index", self.index, methods=["POST"]),
            Route("/v2/repository/models/{name}/load", self.load, methods=["POST"]),
            Route("/v2/repository/models/{name}/unload", self.unload, methods=["POST"]),
        ]
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(f"{model}/config", self.config),
                Route(f"{model}/stats", self.statistics),
                Route(f"{model}/trace/setting", self.not_here, methods=["GET", "POST"]),
                Route(model, self.model_metadata),
            ]
        for path in ("/v2/systemsharedmemory", "/v2/cudasharedmemory", "/v2/trace", "/v2/logging"):
            for pattern in (path, path + "/{rest:path}"):
                routes.append(Route(pattern, self.not_here, methods=["GET", "POST"]))
        return routes

    # -- inference -----------------------------------------------------------------------------

    async def infer(self, request: Request) -> Response:
        """Run a model on tensors."""
        name, version = _model(request)
        body = await receive_body(request.scope, request.receive, self._limits)
        length = request.headers.get(HEADER_LENGTH)
        if length is not None and int(length) == 0:
            ports = (await self._server.model_metadata(name, version)).inputs
            if len(ports) != 1:
                names = ", ".join(repr(port.name) for port in ports)
                raise BadRequestError(
                    f"a body without JSON is one tensor, and the model has the inputs {names}"
                )
            asked = parse_raw_request(body, ports[0])
        else:
            asked = parse_infer_request(body, None if length is None else int(length))
        async with _while_connected(request):
            answer = await self._server.infer(name, version, asked)
        encoded = encode_answer(answer, asked)
        headers = {"content-type": encoded.content_type}
        if encoded.json_length is not None:
            headers[HEADER_LENGTH] = str(encoded.json_length)
        return Response(b"".join((encoded.header, *encoded.chunks)), headers=headers)

    async def infer_image(self, request: Request) -> Response:
        """Run a model on a JPEG or PNG file."""
        name, version = _model(request)
        count = _number(request, "top_k")
        # Not other types: `curl --data-binary` says that it sends a form, and sends the file.
        if request.headers.get("content-type", "").lower().startswith(_MULTIPART):
            raise FormRefusedError(request.scope["path"])
        data = await receive_body(request.scope, request.receive, self._limits)
        async with _while_connected(request):
            answer = await self._server.classify(name, version, data, count)
        return _json(
            {
                "model_name": answer.model_name,
                "model_version": answer.model_version,
                "outputs": [
                    {"name": output, "classes": [_class(each) for each in best]}
                    for output, best in answer.classes.items()
                ],
            }
        )

    # -- what there is -------------------------------------------------------------------------

    async def live(self, _request: Request) -> Response:
        """Whether the process works."""
        is_live = self._server.is_live()
        return _flag(live_json(is_live=is_live), is_true=is_live)

    async def ready(self, _request: Request) -> Response:
        """Whether everything that should be loaded is."""
        is_ready = self._server.is_ready()
        return _flag(ready_json(is_ready=is_ready), is_true=is_ready)

    async def model_ready(self, request: Request) -> Response:
        """Whether a model would answer now."""
        name, version = _model(request)
        is_ready = await self._server.is_model_ready(name, version)
        return _flag(model_ready_json(name, is_ready=is_ready), is_true=is_ready)

    async def metadata(self, _request: Request) -> Response:
        """Who answers."""
        about = self._server.metadata()
        return _raw_json(server_metadata_json(about.name, about.version, about.extensions))

    async def model_metadata(self, request: Request) -> Response:
        """What a model takes and gives."""
        about = await self._server.model_metadata(*_model(request))
        return _raw_json(
            model_metadata_json(
                about.name, about.versions, about.platform, about.inputs, about.outputs
            )
        )

    async def config(self, request: Request) -> Response:
        """How a model is served."""
        return _json(config_json(await self._server.config(*_model(request))))

    async def statistics(self, request: Request) -> Response:
        """What models did."""
        name = request.path_params.get("name", "")
        version = request.path_params.get("version", "")
        return _json(statistics_json(await self._server.statistics(name, version)))

    async def not_here(self, request: Request) -> Response:
        """Refuse what Triton has and this server does not."""
        raise NotSupportedError(request.scope["path"][:_MAX_SHOWN])

    # -- repository ----------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        """Return every version of every model."""
        ready_only = (await self._options(request)).get("ready", False)
        if not isinstance(ready_only, bool):
            raise BadRequestError("'ready' is to be true or false")
        states = await self._server.repository_index(ready_only)
        return _json([{key: text for key, text in asdict(each).items() if text} for each in states])

    async def load(self, request: Request) -> Response:
        """Load a model."""
        await self._server.load(request.path_params["name"], await self._parameters(request))
        return Response(status_code=200)

    async def unload(self, request: Request) -> Response:
        """Unload a model."""
        await self._server.unload(request.path_params["name"], await self._parameters(request))
        return Response(status_code=200)

    async def _parameters(self, request: Request) -> dict[str, Any]:
        options = await self._options(request)
        parameters = parameters_of("the request", options.get("parameters"))
        if len(parameters) > _MAX_PARAMETERS:
            raise BadRequestError("'parameters' is to be an object of a few values")
        return {name: _repository_value(name, each) for name, each in parameters.items()}

    async def _options(self, request: Request) -> Mapping[str, Any]:
        body = await receive_body(request.scope, request.receive, self._limits)
        if not body:
            return {}
        try:
            options = json.loads(bytes(body))
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"the body is not JSON: {error}") from None
        if not isinstance(options, dict):
            raise BadRequestError("the body is to be a JSON object, or empty")
        return options


@asynccontextmanager
async def _while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel what is done for a client when it goes away."""
    worker = asyncio.current_task()
    assert worker is not None, "requests are answered in tasks"  # noqa: S101
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        worker.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if is_gone and worker.uncancel() == 0:
            raise ClientGoneError from None
        raise
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait([watcher])


def _model(request: Request) -> tuple[str, str]:
    return request.path_params["name"], request.path_params.get("version", "")


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _MAX_DIGITS:
        raise BadRequestError(f"{name} is {text[:20]!r}, which is no positive number")
    return int(text)


def _repository_value(name: str, value: ParameterValue) -> ParameterValue | bytes:
    """Return a parameter of a load or an unload; JSON has the bytes of files as base64."""
    if not name.startswith(_FILE):
        return value
    with suppress(ValueError):
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    raise BadRequestError(f"the parameter {name[:80]!r} is no file in base64")


def _class(each: ClassScore) -> dict[str, Any]:
    entry: dict[str, Any] = {"index": each.index, "score": each.score}
    return entry | {"label": each.label} if each.label else entry


def _json(document: Any) -> Response:
    return _raw_json(json.dumps(document, separators=(",", ":")).encode())


def _raw_json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _flag(body: bytes, *, is_true: bool) -> Response:
    return Response(body, 200 if is_true else 503, media_type="application/json")
