"""Idleness that was wasted: replicas with nothing to do, while requests waited elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["IdleSpells", "Waits", "most_idle_while_waiting"]

_Floats = npt.NDArray[np.float64]
_Numbers = npt.NDArray[np.int64]

_BLOCK = 64
"""Requests that are looked at together: more make bounds worse, fewer make more of them."""

_SLAB = 1_000_000
"""Bounds that are in memory at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Waits:
    """When requests waited. A request may wait more than once, but not twice at the same time.

    Attributes:
        requests: int64 [waits], whose wait it is.
        begin_s: float64 [waits], from when; not below 0.
        end_s: float64 [waits], until when.
    """

    requests: _Numbers
    begin_s: _Floats
    end_s: _Floats


@dataclass(frozen=True, slots=True, eq=False)
class IdleSpells:
    """When replicas could have run one more request. Spells of one replica do not overlap.

    Attributes:
        replicas: int64 [spells], whose spell it is.
        begin_s: float64 [spells], from when; not below 0.
        end_s: float64 [spells], until when.
        service_time_s: float64 [spells], how long a request would have taken on average.
    """

    replicas: _Numbers
    begin_s: _Floats
    end_s: _Floats
    service_time_s: _Floats


def most_idle_while_waiting(waits: Waits, idle: IdleSpells) -> float:
    """Return how long at most one replica was idle while one request waited, in service times.

    That is the largest, over all requests and replicas, of the time in which the request waited and
    the replica was idle, divided by the replica's mean service time; 0 where nobody waited.

    To compare each with each would take long, so requests are looked at in blocks of such as come
    together and wait about as long. What a block can have at most is how long the replica was idle
    from its first wait to its last, and no more than its longest wait. Only blocks that
    can have more than what was found elsewhere are looked at in detail.
    """
    blocks, timeline = _Blocks(waits), _Timeline(idle)
    if not blocks.count or not len(timeline.quickest_s):
        return 0.0
    best = 0.0
    rows = max(1, _SLAB // blocks.count)
    for first in range(0, len(timeline.quickest_s), rows):
        replicas = np.arange(first, min(first + rows, len(timeline.quickest_s)))
        at, block = np.nonzero(blocks.longest_s > best * timeline.quickest_s[replicas, None])
        spans = timeline.idle(replicas[at], blocks.begin_s[block], blocks.end_s[block])
        bound = np.minimum(spans, blocks.longest_s[block] / timeline.quickest_s[replicas[at]])
        order = np.argsort(-bound)
        for pair in order[: np.count_nonzero(bound > best)]:
            if bound[pair] <= best:
                break
            best = max(best, blocks.most(int(block[pair]), int(replicas[at[pair]]), timeline))
    return best


class _Timeline:
    """How long replicas were idle up to any time, in their service times.

    The spells of all replicas are in one line, one replica after the other, so that one search
    finds times of many replicas.

    Attributes:
        quickest_s: float64 [replicas that ever were idle], their least mean service time; the
            most idle ones first, so that much is found early.
    """

    def __init__(self, idle: IdleSpells) -> None:
        ids, places = np.unique(idle.replicas, return_inverse=True)
        longest = np.zeros(len(ids))
        np.maximum.at(longest, places, (idle.end_s - idle.begin_s) / idle.service_time_s)
        rank = np.empty(len(ids), np.int64)
        rank[np.argsort(-longest)] = np.arange(len(ids))
        # One spell of no length at the beginning of each replica, for times before its first.
        zeros = np.zeros(len(ids))
        places = np.concatenate((np.arange(len(ids)), rank[places]))
        begin_s = np.concatenate((zeros, idle.begin_s))
        end_s = np.concatenate((zeros, idle.end_s))
        service_time_s = np.concatenate((zeros + np.inf, idle.service_time_s))
        self.quickest_s = np.full(len(ids), np.inf)
        np.minimum.at(self.quickest_s, places, service_time_s)
        order = np.lexsort((begin_s, places))
        self._begin_s, self._length_s = begin_s[order], (end_s - begin_s)[order]
        self._service_time_s = service_time_s[order]
        lengths = self._length_s / self._service_time_s
        self._before = np.concatenate(((0.0,), np.cumsum(lengths)))
        self._span_s = 2 * max(1e-9, float(np.max(end_s, initial=0.0)))
        self._keys = places[order] * self._span_s + self._begin_s

    def idle(self, replicas: _Numbers, begin_s: _Floats, end_s: _Floats) -> _Floats:
        """Return how long each replica was idle between two times, in its service times."""
        return self._until(replicas, end_s) - self._until(replicas, begin_s)

    def _until(self, replicas: _Numbers, time_s: _Floats) -> _Floats:
        time_s = np.minimum(time_s, self._span_s / 2)
        spell = np.searchsorted(self._keys, replicas * self._span_s + time_s, side="right") - 1
        passed_s = np.clip(time_s - self._begin_s[spell], 0.0, self._length_s[spell])
        found: _Floats = self._before[spell] + passed_s / self._service_time_s[spell]
        return found


class _Blocks:
    """Requests that come together and wait about as long.

    Attributes:
        count: how many blocks.
        begin_s: float64 [blocks], when the first request of each begins to wait.
        end_s: float64 [blocks], when the last one ends to.
        longest_s: float64 [blocks], how long one of its requests waits at most.
    """

    def __init__(self, waits: Waits) -> None:
        lasting = waits.end_s > waits.begin_s
        ids, places = np.unique(waits.requests[lasting], return_inverse=True)
        begin_s, end_s = waits.begin_s[lasting], waits.end_s[lasting]
        waited_s = np.bincount(places, end_s - begin_s, len(ids))
        first_s, last_s = np.full(len(ids), np.inf), np.zeros(len(ids))
        np.minimum.at(first_s, places, begin_s)
        np.maximum.at(last_s, places, end_s)
        # By halves of octaves of how long they wait, and in them by when.
        by = np.lexsort((first_s, np.floor(2 * np.log2(waited_s))))
        rank = np.empty(len(ids), np.int64)
        rank[by] = np.arange(len(ids))
        starts = np.arange(0, len(ids), _BLOCK)
        self.count = len(starts)
        if not self.count:
            return
        self.begin_s = np.minimum.reduceat(first_s[by], starts)
        self.end_s = np.maximum.reduceat(last_s[by], starts)
        self.longest_s = np.maximum.reduceat(waited_s[by], starts)
        order = np.argsort(rank[places], kind="stable")
        self._begin_s, self._end_s = begin_s[order], end_s[order]
        self._requests = rank[places][order]
        self._starts = np.append(np.searchsorted(self._requests, starts), len(self._requests))

    def most(self, block: int, replica: int, timeline: _Timeline) -> float:
        """Return the most that one of a block's requests has beside a replica."""
        part = slice(self._starts[block], self._starts[block + 1])
        requests = self._requests[part]
        idle = timeline.idle(
            np.full(len(requests), replica), self._begin_s[part], self._end_s[part]
        )
        return float(np.bincount(requests - block * _BLOCK, idle).max())
