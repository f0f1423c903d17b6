"""An OpenAPI document as a page to be read: plain HTML, no script."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from atriva_ray.serve.page.headers import page_headers
from atriva_ray.serve.page.render import page

__all__ = ["docs_headers", "docs_page"]

_METHODS = ("get", "post")


def docs_headers() -> dict[str, str]:
    """Return the headers that `docs_page` is sent with."""
    return page_headers(has_script=False)


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the page of a document that `openapi_document` has made."""
    info = document["info"]
    sections = "".join(_section(document, tag) for tag in document["tags"])
    shapes = "".join(
        f'<details class="card operation" id="{escape(name)}"><summary>{escape(name)}</summary>'
        f"{_code(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    )
    token = (
        "<p>Every request but those about health needs the header "
        "<code>Authorization: Bearer &lt;token&gt;</code>.</p>"
        if document.get("security")
        else ""
    )
    title = f"{info['title']}: API"
    return page(
        title,
        f"""
<header class="top">
  <div>
    <h1>{escape(title)}</h1>
    <p class="quiet">Version {escape(info["version"])} · {escape(info["summary"])}</p>
  </div>
  <nav aria-label="More of this server"><a href="/">Models</a> <a href="/openapi.json">OpenAPI</a>
  </nav>
</header>
<main>
  <p>{_text(info["description"])}</p>
  {token}
  {sections}
  <section><h2>Shapes</h2>{shapes}</section>
</main>""",
    )


def _section(document: Mapping[str, Any], tag: Mapping[str, Any]) -> str:
    operations = "".join(
        _operation(document, path, method, item)
        for path, item in document["paths"].items()
        for method in _METHODS
        if tag["name"] in item.get(method, {}).get("tags", ())
    )
    return f"""
<section>
  <h2>{escape(tag["name"])} <span class="count">{escape(tag["description"])}</span></h2>
  {operations}
</section>"""


def _operation(document: Mapping[str, Any], path: str, method: str, item: Mapping[str, Any]) -> str:
    operation = item[method]
    parameters = [*item.get("parameters", ()), *operation.get("parameters", ())]
    rows = [
        (each["name"], f"{each['in']}, {each['schema']['type']}", _text(each["description"]))
        for each in parameters
    ]
    rows += [
        ("body", kind, _shape(content["schema"]))
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
    ]
    answers = [
        (status, ", ".join(answer.get("content", ())), _answer(answer))
        for status, answer in _answers(document, operation)
    ]
    examples = "".join(
        f"<details><summary>Example</summary>{_code(content['example'])}</details>"
        for content in operation.get("requestBody", {}).get("content", {}).values()
        if "example" in content
    )
    return f"""
<article class="card operation" id="{escape(operation["operationId"])}">
  <h3><span class="method">{method.upper()}</span> <code>{escape(path)}</code></h3>
  <p>{_text(operation["summary"])}. {_text(operation.get("description", ""))}</p>
  <details><summary>Request and answers</summary>
  {_table("Request", rows)}
  {_table("Answer", answers)}
  </details>
  {examples}
</article>"""


def _answers(
    document: Mapping[str, Any], operation: Mapping[str, Any]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for status, answer in sorted(operation["responses"].items()):
        name = answer.get("$ref", "").rpartition("/")[2]
        yield (
            ("else" if status == "default" else status),
            (document["components"]["responses"][name] if name else answer),
        )


def _answer(answer: Mapping[str, Any]) -> str:
    shapes = [_shape(content["schema"]) for content in answer.get("content", {}).values()]
    links = " or ".join(shape for shape in shapes if shape)
    return " ".join(part for part in (_text(answer["description"]), links) if part)


def _shape(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_shape, schema["anyOf"]))
    name = schema.get("$ref", "").rpartition("/")[2]
    if name:
        return f'<a href="#{escape(name)}">{escape(name)}</a>'
    return "bytes" if schema.get("format") == "binary" else ""


def _table(title: str, rows: list[tuple[str, str, str]]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{meaning}</td></tr>"
        for name, kind, meaning in rows
    )
    return f"""
  <div class="scroll"><table>
    <thead><tr><th scope="col">{title}</th><th scope="col">Kind</th>
    <th scope="col">Meaning</th></tr></thead>
    <tbody>{lines}</tbody>
  </table></div>"""


def _text(text: str) -> str:
    # Between backquotes is code, as in the document's own format; there is no more to it here.
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def _code(value: Any) -> str:
    return f'<pre tabindex="0"><code>{escape(json.dumps(value, indent=2))}</code></pre>'
