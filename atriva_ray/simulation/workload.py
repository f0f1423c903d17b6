"""`Workload`: the requests of a scenario, the same ones for every policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atriva_ray.simulation.scenario import Scenario

__all__ = ["Workload", "make_workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in the order in which they come.

    Attributes:
        times_s: float64 [requests], when each comes.
        clients: int64 [requests], whose it is.
        sizes: float64 [requests], how much more than others it takes: standard normal, or of a file
            the logarithm of what it says. A replica makes a service time of it.
    """

    times_s: npt.NDArray[np.float64]
    clients: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.times_s)


def make_workload(scenario: Scenario) -> Workload:
    """Draw the requests of a scenario; the same seed gives the same ones."""
    random = np.random.default_rng(scenario.seed)
    arrivals = scenario.arrivals
    if arrivals is None:
        times_s = _busy_times(random, scenario)
    else:
        times_s = arrivals.times_s[: np.searchsorted(arrivals.times_s, scenario.duration_s)]
    count = len(times_s)
    clients, sizes = random.integers(0, scenario.clients, count), random.standard_normal(count)
    if arrivals is not None and arrivals.clients is not None:
        clients = arrivals.clients[:count]
    if arrivals is not None and arrivals.sizes is not None:
        sizes = np.log(arrivals.sizes[:count])
    return Workload(times_s, clients, sizes)


def _busy_times(random: np.random.Generator, scenario: Scenario) -> npt.NDArray[np.float64]:
    if scenario.bursts is None:
        return _poisson(random, scenario.asked_per_s, 0.0, scenario.duration_s)
    on_s, off_s = scenario.bursts.on_s, scenario.bursts.off_s
    rate_per_s = scenario.asked_per_s * (on_s + off_s) / on_s
    bursts: list[npt.NDArray[Any]] = []
    is_quiet = random.random() < off_s / (on_s + off_s)  # as at any other moment
    begin_s = random.exponential(off_s) if is_quiet else 0.0
    while begin_s < scenario.duration_s:
        end_s = min(begin_s + random.exponential(on_s), scenario.duration_s)
        bursts.append(_poisson(random, rate_per_s, begin_s, end_s))
        begin_s = end_s + random.exponential(off_s)
    return np.concatenate(bursts) if bursts else np.empty(0)


def _poisson(
    random: np.random.Generator, rate_per_s: float, begin_s: float, end_s: float
) -> npt.NDArray[np.float64]:
    """Times of a Poisson process: as many as there happen to be, each anywhere in between."""
    count = random.poisson(rate_per_s * (end_s - begin_s))
    return np.sort(random.uniform(begin_s, end_s, count))
