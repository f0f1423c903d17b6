"""The pages for people: what is served, a form to try it, and what can be asked."""

from __future__ import annotations

import json
from typing import Protocol

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from atriva_ray.serve.http.gate import Gate
from atriva_ray.serve.openapi import docs_headers, docs_page, openapi_document
from atriva_ray.serve.page import ModelCard, PageData, page_headers, render
from atriva_ray.serve.server_face import ServerMetadata

__all__ = ["Page", "page_routes"]


class Page(Protocol):
    """What the page is about."""

    def metadata(self) -> ServerMetadata:
        """Return who answers."""
        ...

    def cards(self) -> tuple[ModelCard, ...]:
        """Return every version of every model."""
        ...


def page_routes(page: Page, gate: Gate) -> list[BaseRoute]:
    """Return the paths of the pages."""
    about = page.metadata()
    document = openapi_document(
        about.version, server_name=about.name, is_token_required=gate.wants_token
    )
    as_json = json.dumps(document).encode()
    as_page = docs_page(document)

    async def landing(request: Request) -> Response:
        is_locked = not gate.knows(request.headers.get("authorization"))
        data = _page_data(page, str(request.base_url).rstrip("/"), gate, is_locked=is_locked)
        return HTMLResponse(render(data), headers=page_headers())

    async def docs(_request: Request) -> Response:
        return HTMLResponse(as_page, headers=docs_headers())

    async def openapi(_request: Request) -> Response:
        return Response(as_json, media_type="application/json")

    return [Route("/", landing), Route("/docs", docs), Route("/openapi.json", openapi)]


def _page_data(page: Page, address: str, gate: Gate, *, is_locked: bool) -> PageData:
    cards = () if is_locked else page.cards()
    about = page.metadata()
    return PageData(
        about.name,
        about.version,
        cards,
        tuple(sorted({device for card in cards for device in card.devices})),
        wants_token=gate.wants_token,
        is_locked=is_locked,
        address=address,
    )
