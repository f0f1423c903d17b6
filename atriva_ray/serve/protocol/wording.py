"""How a client's values are shown in messages: shortened, for they may be of any size."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["shape_text", "shown"]

_MAX_CHARACTERS = 80
_MAX_SIZES = 8


def shown(value: object) -> str:
    """Return a JSON value for a message: a text in quotes, a container by its kind only."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    is_text = isinstance(value, str)
    text = value if isinstance(value, str) else str(value)
    kept = text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
    return repr(kept) if is_text else kept


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape for a message, as JSON has it."""
    sizes = [shown(size) for size in shape[:_MAX_SIZES]]
    if len(shape) > _MAX_SIZES:
        sizes.append("…")
    return f"[{', '.join(sizes)}]"
