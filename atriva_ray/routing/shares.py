"""Which models get the free CPUs: growing replicas are shared out, nobody's minimum is touched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atriva_inference.device import device_rank
from atriva_ray.routing.placement import Placement, Seat

__all__ = ["Crew", "Member", "Shares", "share_out"]


@dataclass(frozen=True, slots=True)
class Member:
    """One replica of a model, and what it holds."""

    replica_id: str
    placement: Placement
    is_ready: bool = True


@dataclass(frozen=True, slots=True)
class Crew:
    """The replicas of one model whose number follows its load.

    Attributes:
        key: what the router knows the model by.
        members: its replicas, the oldest first.
        seats: where more of them may go.
        minimum: how many nobody may take away.
        wanted: how many it wants now.
        cpus_each: CPUs that another one takes on a processor.
        is_reserved: whether those are its own; if not, it takes turns with others on them.
    """

    key: str
    members: tuple[Member, ...]
    seats: tuple[Seat, ...]
    minimum: int
    wanted: int
    cpus_each: int
    is_reserved: bool = True


@dataclass(frozen=True, slots=True)
class Shares:
    """What is to be done.

    Attributes:
        added: replicas to start, by key.
        spared: replicas to stop, by id.
        lacking: replicas, by key, that are wanted and find no place, nor will soon.
        promised: replicas, by key, that get the place of others which are stopped for them.
    """

    added: Mapping[str, tuple[Placement, ...]]
    spared: tuple[str, ...]
    lacking: Mapping[str, int]
    promised: Mapping[str, int]


@dataclass(slots=True)
class _Account:
    crew: Crew
    members: list[Member]
    added: list[Placement] = field(default_factory=list)
    spared: list[Member] = field(default_factory=list)
    promised: int = 0

    @property
    def count(self) -> int:
        return len(self.members) + len(self.added) + self.promised

    @property
    def lacking(self) -> int:
        return max(0, self.crew.wanted - self.count)

    @property
    def spare_count(self) -> int:
        """Members that may be taken away."""
        return min(len(self.members), max(0, self.count - self.crew.minimum))

    @property
    def extra_cpus(self) -> int:
        """CPUs that it holds beyond its minimum, by which shares are compared."""
        return (self.count - self.crew.minimum) * max(1, self.crew.cpus_each)

    @property
    def order(self) -> tuple[int, str]:
        return self.extra_cpus, self.crew.key

    def held_on(self, node_id: str) -> int:
        here = [member.placement for member in self.members] + self.added
        return sum(each.cpu_count for each in here if each.seat.node_id == node_id)

    def stop(self, member: Member, free: dict[str, float]) -> None:
        self.members.remove(member)
        self.spared.append(member)
        node_id = member.placement.seat.node_id
        if self.crew.is_reserved and node_id in free:
            free[node_id] += member.placement.cpu_count


def share_out(crews: Sequence[Crew], free_cpus: Mapping[str, float]) -> Shares:
    """Say which replicas start and which stop, so that models get what they want, or a share.

    First those that a model wants no more are stopped, and those on a node of which more CPUs were
    given away than it has. Then free CPUs go, one replica at a time, to the model that holds the
    fewest CPUs beyond its minimum. Last, a model that found no place gets that of a model that
    holds more, as long as that one still holds no less afterwards.

    Args:
        crews: the models whose numbers may change.
        free_cpus: CPUs that nobody holds, by node id; negative where too many were given away.
            Only nodes that are named here get replicas.
    """
    accounts = [_Account(crew, list(crew.members)) for crew in crews]
    free = dict(free_cpus)
    for account in accounts:
        surplus = account.count - max(account.crew.wanted, account.crew.minimum)
        for _ in range(surplus):
            account.stop(_least_useful(account.members), free)
    _clear_overbooked(accounts, free)
    _grow(accounts, free)
    _make_room(accounts, free)
    return Shares(
        {each.crew.key: tuple(each.added) for each in accounts if each.added},
        tuple(member.replica_id for each in accounts for member in each.spared),
        {each.crew.key: each.lacking for each in accounts if each.lacking},
        {each.crew.key: each.promised for each in accounts if each.promised},
    )


def _least_useful(members: Sequence[Member]) -> Member:
    """Return the member to stop first.

    One that does not answer yet; else one on the device that AUTO likes least; else one of those
    that are few on their node, so that whole nodes get free; else the newest.
    """
    per_node = Counter(member.placement.seat.node_id for member in members)
    place = {id(member): number for number, member in enumerate(members)}
    return max(
        members,
        key=lambda member: (
            not member.is_ready,
            device_rank(member.placement.seat.device),
            -per_node[member.placement.seat.node_id],
            place[id(member)],
        ),
    )


def _clear_overbooked(accounts: Sequence[_Account], free: dict[str, float]) -> None:
    """What others hold as their minimum goes before what is beyond anybody's."""
    for node_id in sorted(free):
        while free[node_id] < 0:
            holders = [
                (account, member)
                for account in accounts
                if account.crew.is_reserved and account.spare_count
                for member in _with_cpus_on(account, node_id)
            ]
            if not holders:
                break
            richest = max((account for account, _ in holders), key=lambda each: each.order)
            here = [member for account, member in holders if account is richest]
            richest.stop(_least_useful(here), free)


def _grow(accounts: Sequence[_Account], free: dict[str, float]) -> None:
    growing = [account for account in accounts if account.lacking]
    while growing:
        account = min(growing, key=lambda each: each.order)
        placement = _best_place(account, free)
        if placement is None:
            growing.remove(account)
            continue
        account.added.append(placement)
        if account.crew.is_reserved:
            free[placement.seat.node_id] -= placement.cpu_count
        if not account.lacking:
            growing.remove(account)


def _best_place(account: _Account, free: Mapping[str, float]) -> Placement | None:
    crew = account.crew
    used = Counter(member.placement.seat for member in account.members)
    used.update(placement.seat for placement in account.added)
    fitting = []
    for number, seat in enumerate(crew.seats):
        room = free.get(seat.node_id)
        if room is None:
            continue
        if not seat.takes_cpus:
            if not used[seat]:
                fitting.append((device_rank(seat.device), 0, 0.0, number))
            continue
        if not crew.is_reserved:
            room -= account.held_on(seat.node_id)
        if room >= crew.cpus_each:
            fitting.append((device_rank(seat.device), used[seat], -room, number))
    if not fitting:
        return None
    seat = crew.seats[min(fitting)[-1]]
    return Placement(seat, crew.cpus_each if seat.takes_cpus else 0)


def _make_room(accounts: Sequence[_Account], free: dict[str, float]) -> None:
    poor = [account for account in accounts if account.lacking and account.crew.is_reserved]
    while poor:
        account = min(poor, key=lambda each: each.order)
        if not _take_over(account, accounts, free) or not account.lacking:
            poor.remove(account)


def _take_over(account: _Account, accounts: Sequence[_Account], free: dict[str, float]) -> bool:
    """Stop replicas of a model that holds more, if that makes room for one of this model."""
    size = account.crew.cpus_each
    nodes = dict.fromkeys(
        seat.node_id for seat in account.crew.seats if seat.takes_cpus and seat.node_id in free
    )
    richer = sorted(
        (each for each in accounts if each is not account and each.crew.is_reserved),
        key=lambda each: each.order,
        reverse=True,
    )
    for other in richer:
        if other.added:  # it has just been given a place because it had less
            continue
        for node_id in nodes:
            here = list(_with_cpus_on(other, node_id))
            stopped: list[Member] = []
            room = free[node_id]
            while room < size and here and len(stopped) < other.spare_count:
                member = _least_useful(here)
                here.remove(member)
                stopped.append(member)
                room += member.placement.cpu_count
            left = other.extra_cpus - len(stopped) * max(1, other.crew.cpus_each)
            if not stopped or room < size or left < account.extra_cpus + max(1, size):
                continue
            for member in stopped:
                other.stop(member, free)
            free[node_id] -= size
            account.promised += 1
            return True
    return False


def _with_cpus_on(account: _Account, node_id: str) -> list[Member]:
    return [
        member
        for member in account.members
        if member.placement.seat.node_id == node_id and member.placement.cpu_count
    ]
