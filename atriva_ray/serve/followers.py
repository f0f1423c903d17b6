"""What the catalog knows of the ingresses: which tables they have, and what they counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from atriva_ray.serve.table import TableVersion
from atriva_ray.serve.tally import Tally

__all__ = ["Followers"]

_LIVE_S = 15.0


@dataclass(slots=True)
class _Follower:
    version: TableVersion
    seen_s: float


class Followers:
    """The ingresses that follow the catalog; clocks are told."""

    def __init__(self) -> None:
        self._followers: dict[str, _Follower] = {}
        self._tallies: dict[str, Mapping[tuple[str, str], Tally]] = {}  # also of those that ended

    def asked(self, ingress_id: str, version: TableVersion, now_s: float) -> None:
        """Note a sign of life, and which table an ingress answers by."""
        self._followers[ingress_id] = _Follower(version, now_s)

    def counted(self, ingress_id: str, tallies: Mapping[tuple[str, str], Tally]) -> None:
        """Note what an ingress has counted since it began."""
        self._tallies[ingress_id] = tallies

    def have(self, version: TableVersion, now_s: float) -> bool:
        """Whether every ingress that lives answers by that table, or by a newer one."""
        self._followers = {
            key: each for key, each in self._followers.items() if now_s - each.seen_s <= _LIVE_S
        }
        return all(each.version >= version for each in self._followers.values())

    def totals(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Tally]:
        """Return what all ingresses counted together, by name and version."""
        gathered: dict[tuple[str, str], list[Tally]] = {key: [] for key in wanted}
        for tallies in self._tallies.values():
            for key in gathered.keys() & tallies.keys():
                gathered[key].append(tallies[key])
        return {key: Tally.total(each) for key, each in gathered.items()}
