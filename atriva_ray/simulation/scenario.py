"""`Scenario`: a cluster, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atriva_inference.errors import OptionError
from atriva_ray.simulation.arrivals import Arrivals, read_arrivals
from atriva_ray.simulation.checks import check_count, check_number, is_whole, known, made, made_each
from atriva_ray.simulation.faults import Fault

__all__ = ["Burst", "ReplicaGroup", "Scenario"]


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
        check_count("count", self.count)
        check_count("slots", self.slots)
        check_number("service_time_s", self.service_time_s, is_positive=True)
        check_number("sigma", self.sigma)

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
        check_number("on_s", self.on_s, is_positive=True)
        check_number("off_s", self.off_s, is_positive=True)


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
        network_s: how long a request or an answer travels, beside what its bytes take.
        bandwidth_bytes_per_s: how fast its bytes pass; None: at once. Others do not slow them down.
        request_bytes: how long a request is.
        answer_bytes: how long an answer is.
        bursts: how requests come; None: at any time, independently of each other (Poisson).
        arrivals: requests as they once came, in place of load, rate_per_s and bursts; those after
            `duration_s` are left out.
        faults: what goes wrong with replicas.
        deadline_s: how long a request may take to be of use; None: as long as it wants.
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
    bandwidth_bytes_per_s: float | None = None
    request_bytes: float = 0.0
    answer_bytes: float = 0.0
    bursts: Burst | None = None
    arrivals: Arrivals | None = None
    faults: tuple[Fault, ...] = ()
    deadline_s: float | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.replicas:
            raise OptionError("replicas", "[]", "at least one group of replicas")
        names = [group.name for group in self.replicas]
        if len(set(names)) < len(names):
            raise OptionError("replicas", ", ".join(names), "groups of different names")
        check_count("clients", self.clients)
        if not is_whole(self.seed) or self.seed < 0:
            raise OptionError("seed", str(self.seed), "a whole number from 0")
        self._check_numbers()
        if self.arrivals is None:
            if (self.load is None) == (self.rate_per_s is None):
                given = "neither" if self.load is None else "both"
                raise OptionError("load", given, "either load or rate_per_s, or arrivals")
        else:
            self._check_arrivals(self.arrivals)
        for fault in self.faults:
            self._check_fault(fault)

    def _check_numbers(self) -> None:
        for name in ("warm_up_s", "network_s", "request_bytes", "answer_bytes"):
            check_number(name, getattr(self, name))
        check_number("duration_s", self.duration_s, is_positive=True)
        for name in ("load", "rate_per_s", "bandwidth_bytes_per_s", "deadline_s"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), is_positive=True)
        if self.warm_up_s >= self.duration_s:
            raise OptionError("warm_up_s", str(self.warm_up_s), "less than duration_s")
        if self.bandwidth_bytes_per_s is None and (self.request_bytes or self.answer_bytes):
            given = "none, but request_bytes or answer_bytes"
            raise OptionError("bandwidth_bytes_per_s", given, "how fast bytes pass")

    def _check_arrivals(self, arrivals: Arrivals) -> None:
        for name in ("load", "rate_per_s", "bursts"):
            if getattr(self, name) is not None:
                raise OptionError("arrivals", f"beside {name}", "one of them: both say what comes")
        if arrivals.client_count > self.clients:
            expected = f"at least the {arrivals.client_count:,} of {arrivals.file}"
            raise OptionError("clients", str(self.clients), expected)
        varying = [group.name for group in self.replicas if group.sigma]
        if arrivals.sizes is not None and varying:
            expected = f"sigma 0: the sizes of {arrivals.file} say what varies"
            raise OptionError("replicas", ", ".join(varying), expected)

    def _check_fault(self, fault: Fault) -> None:
        counts = {group.name: group.count for group in self.replicas}
        if fault.group is not None and fault.group not in counts:
            raise OptionError("faults", f"group {fault.group!r}", f"one of {', '.join(counts)}")
        there = sum(counts.values()) if fault.group is None else counts[fault.group]
        if fault.hit_count(there) > there:
            raise OptionError("faults", f"count {fault.count}", f"no more than there are: {there}")

    @classmethod
    def from_mapping(cls, mapping: object, folder: Path = Path()) -> Scenario:
        """Take what a YAML document says.

        Args:
            mapping: the document.
            folder: what the name of a file in it is relative to. Arrivals are read from there;
                without `duration_s` all of them count, without `clients` there are as many as
                they name.

        Raises:
            OptionError: it is no mapping, has an unknown key, or a value is not acceptable.
            InputFileError: the file of arrivals cannot be read, or one of its lines is not
                acceptable.
        """
        told = dict(known("scenario", mapping, cls))
        told["replicas"] = made_each(
            ReplicaGroup, "replicas", told.get("replicas"), "a list of groups of replicas"
        )
        told["faults"] = made_each(Fault, "faults", told.get("faults") or (), "a list of faults")
        if told.get("bursts") is not None:
            told["bursts"] = made(Burst, "bursts", told["bursts"])
        if (file := told.get("arrivals")) is not None:
            if not isinstance(file, str):
                raise OptionError("arrivals", repr(file), "the name of a CSV file")
            arrivals = told["arrivals"] = read_arrivals(folder / file)
            told.setdefault("clients", arrivals.client_count)
            # A little more than the last one's time: at the end of its time a scenario is over.
            until_s = float(np.nextafter(arrivals.times_s[-1], np.inf))
            told.setdefault("duration_s", max(until_s, 1e-3))
        scenario: Scenario = made(cls, "scenario", told)
        return scenario

    @property
    def capacity_per_s(self) -> float:
        """Requests per second that the replicas can answer, all together."""
        return sum(group.rate_per_s for group in self.replicas)

    @property
    def asked_per_s(self) -> float:
        """Requests per second that are asked for."""
        if self.arrivals is not None:
            count = int(np.searchsorted(self.arrivals.times_s, self.duration_s))
            return count / self.duration_s
        return self.rate_per_s or (self.load or 0.0) * self.capacity_per_s

    @property
    def request_transfer_s(self) -> float:
        """How long the bytes of a request take."""
        return self.request_bytes / (self.bandwidth_bytes_per_s or 1.0)

    @property
    def answer_transfer_s(self) -> float:
        """How long the bytes of an answer take."""
        return self.answer_bytes / (self.bandwidth_bytes_per_s or 1.0)
