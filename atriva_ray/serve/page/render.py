"""The page, as text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from atriva_ray.serve.page.data import ModelCard, PageData
from atriva_ray.serve.page.headers import SCRIPT, STYLE

__all__ = ["model_path", "page", "render"]

_STATES = frozenset({"ready", "loading", "unloading", "unavailable"})


def render(data: PageData) -> str:
    """Return the page; send it with `page_headers`, without which it shows but does nothing."""
    body = f"""
<header class="top">
  <div>
    <h1>{escape(data.server_name)}</h1>
    <p class="quiet">Version {escape(data.version)} · Open Inference Protocol v2</p>
  </div>
  <nav aria-label="More of this server">
    <a href="/docs">API</a>
    <a href="/openapi.json">OpenAPI</a>
    <button type="button" id="refresh">Refresh</button>
  </nav>
</header>
{_token_form() if data.wants_token else ""}
<p id="notice" role="status" aria-live="polite"></p>
<main id="main">{_locked() if data.is_locked else _sections(data)}</main>
<script>{SCRIPT}</script>"""
    return page(data.server_name, body)


def page(title: str, body: str) -> str:
    """Return a whole page.

    Args:
        title: text.
        body: HTML.
    """
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>{body}
</body>
</html>
"""
    # Names of files may hold bytes that are no text, which no page can be sent with.
    return text.encode(errors="replace").decode()


def model_path(card: ModelCard) -> str:
    """Return where a model's addresses begin; every character of its name is taken literally."""
    name = quote(card.name, safe="", errors="replace")
    version = f"/versions/{quote(card.version, safe='', errors='replace')}" if card.version else ""
    return f"/v2/models/{name}{version}"


def _token_form() -> str:
    return """
<form id="token-form" class="card token" autocomplete="off">
  <label for="token">Token</label>
  <input id="token" type="password" autocomplete="off" spellcheck="false" required
    aria-describedby="token-hint">
  <button type="submit">Use token</button>
  <p id="token-hint" class="quiet">This page remembers it until it is closed or loaded again, and
  stores it nowhere.</p>
</form>"""


def _locked() -> str:
    return """
<section class="card empty">
  <h2>This server wants a token</h2>
  <p>Its models show once you gave one.</p>
</section>"""


def _sections(data: PageData) -> str:
    pictures = [card for card in data.models if card.takes_pictures and card.state == "READY"]
    ready_count = sum(card.state == "READY" for card in data.models)
    cards = "".join(_card(data, card) for card in data.models) or (
        '<p class="card empty">There are no models here yet. Put one into the folder of models.</p>'
    )
    devices = _items(data.devices, "chip") or '<li class="quiet">None are known yet.</li>'
    return f"""
{_try(pictures) if pictures else ""}
<section aria-labelledby="models-title">
  <h2 id="models-title">Models <span class="count">{ready_count} of {len(data.models)}
  ready</span></h2>
  <div class="cards">{cards}</div>
</section>
<section aria-labelledby="devices-title">
  <h2 id="devices-title">Devices <span class="count">{len(data.devices)}</span></h2>
  <ul class="chips">{devices}</ul>
</section>"""


def _try(cards: Iterable[ModelCard]) -> str:
    options = "".join(
        f'<option value="{escape(model_path(card))}">{escape(_title(card))}</option>'
        for card in cards
    )
    return f"""
<section aria-labelledby="try-title">
  <h2 id="try-title">Try a picture</h2>
  <form id="try" class="card try">
    <div class="ask">
      <label for="model">Model</label>
      <select id="model">{options}</select>
      <label for="file" id="drop" class="drop">
        <span id="drop-text"><strong>Choose a picture</strong> or drop one here</span>
        <img id="preview" alt="The picture you chose" hidden>
      </label>
      <input id="file" class="apart" type="file" accept="image/*">
      <button type="submit" id="send" disabled>Ask the model</button>
    </div>
    <div id="result" class="result" aria-live="polite"><p class="quiet">What the model makes of
    your picture will show here.</p></div>
  </form>
</section>"""


def _card(data: PageData, card: ModelCard) -> str:
    state = card.state.lower()
    kind = state if state in _STATES else "unavailable"
    reason = f'<p class="reason">{escape(card.reason)}</p>' if card.reason else ""
    version = f' <span class="quiet">version {escape(card.version)}</span>' if card.version else ""
    rows = "".join(
        f'<dt>{label}</dt><dd><ul class="chips">{items}</ul></dd>'
        for label, items in (
            ("Devices", _items(card.devices, "chip")),
            ("Inputs", _items(card.inputs, "code")),
            ("Outputs", _items(card.outputs, "code")),
        )
        if items
    )
    return f"""
<article class="card">
  <header>
    <h3>{escape(card.name)}{version}</h3>
    <span class="state {kind}">{escape(state)}</span>
  </header>
  {reason}
  {f"<dl>{rows}</dl>" if rows else ""}
  {_example(data, card) if card.state == "READY" else ""}
</article>"""


def _example(data: PageData, card: ModelCard) -> str:
    return f"""
  <details>
    <summary>Ask it with curl</summary>
    <pre tabindex="0"><code>{_curl(data, card)}</code></pre>
  </details>"""


def _curl(data: PageData, card: ModelCard) -> str:
    # The script puts the address that the browser came by into the span, so it stands alone:
    # nothing but a quoted path follows it.
    origin = f'<span class="origin">{escape(data.address)}</span>'
    path = model_path(card)
    token = ' \\\n  -H "Authorization: Bearer $TOKEN"' if data.wants_token else ""
    commands = [f"curl {origin}{escape(shlex.quote(path))}{escape(token)}"]
    if card.takes_pictures:
        commands.append(
            f"curl {origin}{escape(shlex.quote(path + '/infer-image'))}"
            f"{escape(token)} \\\n  --data-binary @picture.jpg"
        )
    else:
        commands.append(
            f"curl {origin}{escape(shlex.quote(path + '/infer'))}{escape(token)} \\\n"
            f"  -H {escape(shlex.quote('Content-Type: application/json'))} -d @request.json"
        )
    return "\n\n".join(commands)


def _items(texts: Iterable[str], kind: str) -> str:
    return "".join(f'<li class="{kind}">{escape(text)}</li>' for text in texts)


def _title(card: ModelCard) -> str:
    return f"{card.name} (version {card.version})" if card.version else card.name
