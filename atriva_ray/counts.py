"""What may be asked for: numbers of replicas, and times without requests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from atriva_inference.errors import OptionError

__all__ = ["MAX_REPLICAS", "check_count", "check_idle", "check_replicas"]

MAX_REPLICAS = 10_000
_MIN_IDLE_S = 1.0
_MAX_IDLE_S = 10 * 365 * 86_400.0


def check_count(option: str, value: object) -> int | None:
    """Return a number of something; None stays None.

    Raises:
        OptionError: it is no such number.
    """
    if value is None or _is_count(value):
        return value  # type: ignore[return-value]
    raise OptionError(option, str(value), f"'auto' or a number from 1 to {MAX_REPLICAS:,}")


def check_replicas(value: object) -> tuple[int | None, int | None]:
    """Return the least and the most replicas; None and None for ``auto``, None for no most.

    Raises:
        OptionError: it is neither ``auto``, nor a number, nor a pair of numbers.
    """
    if value == "auto":
        return None, None
    if _is_count(value):
        return value, None  # type: ignore[return-value]
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:  # noqa: PLR2004 - a pair
        least, most = value
        if _is_count(least) and _is_count(most) and least <= most:
            return least, most
    raise OptionError(
        "replicas",
        str(value),
        f"'auto', a number from 1 to {MAX_REPLICAS:,}, or a pair of them, the smaller first",
    )


def check_idle(value: object) -> float | None:
    """Return a time without requests; None stays None.

    Raises:
        OptionError: it is no number of seconds from 1 on.
    """
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and math.isfinite(value) and _MIN_IDLE_S <= value <= _MAX_IDLE_S:  # type: ignore[arg-type, operator]
        return float(value)  # type: ignore[arg-type]
    raise OptionError("idle_s", str(value), f"None, or seconds from {_MIN_IDLE_S:g} on")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_REPLICAS
