"""`Scenario`: a cluster, and what is asked of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeGuard

from atriva_inference.errors import OptionError

__all__ = ["Burst", "ReplicaGroup", "Scenario"]

_MAX_COUNT = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaGroup:
    """Replicas that are alike.

    Attributes:
        name: what tables call them.
        count: how many there are.
        service_time_s: how long a request takes them on average.
        sigma: how much that differs from one request to the next: the standard deviation of its
            logarithm, which is normally distributed. 0: not at all.
        slots: requests that one replica runs at once.

    Raises:
        OptionError: a value is not acceptable.
    """

    name: str
    count: int
    service_time_s: float
    sigma: float = 0.0
    slots: int = 1

    def __post_init__(self) -> None:
        _check_count("count", self.count)
        _check_count("slots", self.slots)
        _check_number("service_time_s", self.service_time_s, is_positive=True)
        _check_number("sigma", self.sigma)

    @property
    def rate_per_s(self) -> float:
        """Requests per second that all of them together can answer."""
        return self.count * self.slots / self.service_time_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Requests that come in bursts, with nothing in between; the mean rate stays what it is.

    Attributes:
        on_s: how long a burst lasts on average.
        off_s: how long it is quiet on average.

    Raises:
        OptionError: a value is not acceptable.
    """

    on_s: float
    off_s: float

    def __post_init__(self) -> None:
        _check_number("on_s", self.on_s, is_positive=True)
        _check_number("off_s", self.off_s, is_positive=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A cluster, and what is asked of it.

    Attributes:
        replicas: the cluster.
        clients: programs that ask, each as much as any other.
        duration_s: how long they ask, of simulated time.
        load: what they ask, as a part of what the replicas can answer; or
        rate_per_s: what they ask, in requests per second.
        warm_up_s: requests of the beginning that do not count.
        network_s: how long a request or an answer travels.
        bursts: how requests come; None: at any time, independently of each other (Poisson).
        seed: of everything that is random.

    Raises:
        OptionError: a value is not acceptable.
    """

    replicas: tuple[ReplicaGroup, ...]
    clients: int = 1
    duration_s: float = 10.0
    load: float | None = None
    rate_per_s: float | None = None
    warm_up_s: float = 0.0
    network_s: float = 50e-6
    bursts: Burst | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.replicas:
            raise OptionError("replicas", "[]", "at least one group of replicas")
        names = [group.name for group in self.replicas]
        if len(set(names)) < len(names):
            raise OptionError("replicas", ", ".join(names), "groups of different names")
        if (self.load is None) == (self.rate_per_s is None):
            given = "neither" if self.load is None else "both"
            raise OptionError("load", given, "either load or rate_per_s")
        _check_count("clients", self.clients)
        if not _is_whole(self.seed) or self.seed < 0:
            raise OptionError("seed", str(self.seed), "a whole number from 0")
        _check_number("duration_s", self.duration_s, is_positive=True)
        _check_number("warm_up_s", self.warm_up_s)
        _check_number("network_s", self.network_s)
        for name, value in (("load", self.load), ("rate_per_s", self.rate_per_s)):
            if value is not None:
                _check_number(name, value, is_positive=True)
        if self.warm_up_s >= self.duration_s:
            raise OptionError("warm_up_s", str(self.warm_up_s), "less than duration_s")

    @classmethod
    def from_mapping(cls, mapping: object) -> Scenario:
        """Take what a YAML document says.

        Raises:
            OptionError: it is no mapping, has an unknown key, or a value is not acceptable.
        """
        told = dict(_known("scenario", mapping, cls))
        groups = told.get("replicas")
        if not isinstance(groups, Sequence) or isinstance(groups, str):
            raise OptionError("replicas", repr(groups), "a list of groups of replicas")
        told["replicas"] = tuple(_made(ReplicaGroup, "replicas", group) for group in groups)
        if told.get("bursts") is not None:
            told["bursts"] = _made(Burst, "bursts", told["bursts"])
        scenario: Scenario = _made(cls, "scenario", told)
        return scenario

    @property
    def capacity_per_s(self) -> float:
        """Requests per second that the replicas can answer, all together."""
        return sum(group.rate_per_s for group in self.replicas)

    @property
    def asked_per_s(self) -> float:
        """Requests per second that are asked for."""
        return self.rate_per_s or (self.load or 0.0) * self.capacity_per_s


def _known(what: str, value: object, kind: type[Any]) -> Mapping[str, Any]:
    names = [field.name for field in fields(kind)]
    if not isinstance(value, Mapping):
        raise OptionError(what, repr(value), f"a mapping of {', '.join(names)}")
    unknown = [str(key) for key in value if key not in names]
    if unknown:
        raise OptionError(what, ", ".join(unknown), f"only {', '.join(names)}")
    return value


def _made(kind: type[Any], what: str, value: object) -> Any:
    told = _known(what, value, kind)
    try:
        return kind(**told)
    except TypeError as error:
        raise OptionError(what, str(dict(told)), f"all that it needs ({error})") from None


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_count(option: str, value: object) -> None:
    if not _is_whole(value) or not 1 <= value <= _MAX_COUNT:
        raise OptionError(option, str(value), f"a whole number from 1 to {_MAX_COUNT:,}")


def _check_number(option: str, value: object, *, is_positive: bool = False) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    number = float(value) if is_number and isinstance(value, (int, float)) else math.nan
    if not math.isfinite(number) or number < 0 or (is_positive and number == 0):
        raise OptionError(option, str(value), f"a number {'above' if is_positive else 'from'} 0")
