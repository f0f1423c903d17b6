"""The parts of the page that are the same for everybody, and the headers that pin them down."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

__all__ = ["SCRIPT", "STYLE", "content_security_policy", "page_headers"]


def _part(name: str) -> str:
    # Exactly what stands between the tags is what the policy's hash is of.
    return "\n" + (files(__package__) / name).read_text(encoding="utf-8")


STYLE = _part("page.css")
"""Of this page and of the one at ``/docs``."""

SCRIPT = _part("page.js")
"""It reads what it needs from the page's elements, and so never changes."""


def content_security_policy(*, has_script: bool) -> str:
    """Return a policy that lets in nothing but our own style and script, by their hashes.

    Args:
        has_script: whether the page has the script; with it come pictures that the reader chose,
            and requests to this server.
    """
    rules = ["default-src 'none'", f"style-src '{_hash(STYLE)}'"]
    if has_script:
        rules += [f"script-src '{_hash(SCRIPT)}'", "img-src blob:", "connect-src 'self'"]
    rules += ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    return "; ".join(rules)


def page_headers(*, has_script: bool = True) -> dict[str, str]:
    """Return the headers that a page of ours is sent with.

    Args:
        has_script: True for the page at ``/``, False for those without a script.
    """
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": content_security_policy(has_script=has_script),
        "cache-control": "no-store",
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "vary": "Authorization",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
