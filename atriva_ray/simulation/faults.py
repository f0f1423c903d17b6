"""`Fault`: what goes wrong with some replicas of a scenario, and when."""

from __future__ import annotations

from dataclasses import dataclass

from atriva_inference.errors import OptionError
from atriva_ray.simulation.checks import check_count, check_number

__all__ = ["Fault"]

_KINDS = "one of slowdown, stops: true and dies: true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something goes wrong with some replicas, at the same time.

    Faults may come together: slowdowns multiply, and a replica goes on when none stops it any more.

    Attributes:
        at_s: when.
        for_s: how long; None: for good.
        group: of which group the replicas are; None: of any.
        share: which part of the group, rounded to the nearest number but at least one; or
        count: how many.
        slowdown: everything takes them this many times as long.
        stops: they hang: nothing goes on in them, and nobody is told.
        dies: what they have is lost, and clients are told; afterwards they come back empty.
        detection_s: how long after a death, or after a request came to a dead replica, its clients
            learn of it.

    Raises:
        OptionError: a value is not acceptable.
    """

    at_s: float
    for_s: float | None = None
    group: str | None = None
    share: float | None = None
    count: int | None = None
    slowdown: float | None = None
    stops: bool = False
    dies: bool = False
    detection_s: float = 1e-3

    def __post_init__(self) -> None:
        check_number("at_s", self.at_s)
        if self.for_s is not None:
            check_number("for_s", self.for_s, is_positive=True)
        check_number("detection_s", self.detection_s)
        self._check_who()
        for name, value in (("stops", self.stops), ("dies", self.dies)):
            if not isinstance(value, bool):
                raise OptionError(name, str(value), "true or false")
        kinds = (self.slowdown is not None) + self.stops + self.dies
        if kinds != 1:
            raise OptionError("faults", "none" if not kinds else f"{kinds} at once", _KINDS)
        if self.slowdown is not None:
            check_number("slowdown", self.slowdown, is_positive=True)

    def _check_who(self) -> None:
        if (self.share is None) == (self.count is None):
            given = "neither" if self.share is None else "both"
            raise OptionError("faults", given, "either share or count: how many replicas")
        if self.count is not None:
            check_count("count", self.count)
        if self.share is not None:
            check_number("share", self.share, is_positive=True)
            if self.share > 1:
                raise OptionError("share", str(self.share), "a number up to 1")
        if self.group is not None and not isinstance(self.group, str):
            raise OptionError("group", str(self.group), "the name of a group of replicas")

    def hit_count(self, there: int) -> int:
        """Return how many of so many replicas it hits."""
        return self.count if self.share is None else max(1, round(self.share * there))  # type: ignore[return-value]

    def __str__(self) -> str:
        """Say what goes wrong with how many."""
        many = f"{self.count:,}" if self.share is None else f"{100 * self.share:g} %"
        who = f"{many} of {self.group or 'all'}"
        if self.slowdown is not None:
            return f"{who}: {self.slowdown:g} times as long"
        return f"{who}: {'hang' if self.stops else 'die'}"
