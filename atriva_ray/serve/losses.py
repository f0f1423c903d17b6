"""When models that the cluster has lost are tried again; nothing is loaded here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Losses"]

_FIRST_WAIT_S = 1.0
_LAST_WAIT_S = 15.0


@dataclass(slots=True)
class _Row:
    next_s: float
    wait_s: float


class Losses:
    """Rows of tries, one for each load that was lost; clocks are told.

    The first try comes at once. A try that fails is followed by another, after a wait that doubles
    each time.
    """

    def __init__(
        self, first_wait_s: float = _FIRST_WAIT_S, last_wait_s: float = _LAST_WAIT_S
    ) -> None:
        """Start with nothing lost.

        Args:
            first_wait_s: from the first try that fails to the second try.
            last_wait_s: what no wait exceeds.
        """
        self._first_wait_s = first_wait_s
        self._last_wait_s = last_wait_s
        self._rows: dict[str, _Row] = {}

    def update(self, lost: Iterable[str], now_s: float) -> None:
        """Take over which loads are lost by now; the rows of others end."""
        self._rows = {
            load_id: self._rows.get(load_id) or _Row(now_s, self._first_wait_s) for load_id in lost
        }

    def due(self, now_s: float) -> tuple[str, ...]:
        """Return the loads that are to be tried now, each only once until it has `failed`."""
        due = [load_id for load_id, row in self._rows.items() if row.next_s <= now_s]
        for load_id in due:
            self._rows[load_id].next_s = math.inf
        return tuple(due)

    def failed(self, load_id: str, now_s: float) -> None:
        """Note that a try has failed, of something that may not be missed any more."""
        row = self._rows.get(load_id)
        if row is None:
            return
        row.next_s = now_s + row.wait_s
        row.wait_s = min(2 * row.wait_s, self._last_wait_s)
