"""`VersionPolicy`: which versions of a model are served at the same time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from atriva_inference.errors import OptionError

__all__ = ["VersionPolicy", "version_number"]

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")  # what fits 64 bits, as the protocols have it
_EXPECTED = "'all', 'latest', {latest: 2} or a list of versions like [1, 3]"


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions of a model are served.

    Attributes:
        latest: how many, counted from the highest number; None for all.
        numbers: exactly these, and `latest` does not count. Empty: whatever `latest` says.
    """

    latest: int | None = 1
    numbers: tuple[int, ...] = ()

    @classmethod
    def parse(cls, value: Any) -> VersionPolicy:
        """Take ``"all"``, ``"latest"``, ``{"latest": 2}``, a version or a list of versions.

        Raises:
            OptionError: it is none of these.
        """
        if isinstance(value, VersionPolicy):
            return value
        if isinstance(value, str) and value.strip().lower() in ("all", "latest"):
            return cls(None) if value.strip().lower() == "all" else cls()
        if isinstance(value, Mapping):
            if set(value) == {"latest"} and _is_count(value["latest"]):
                return cls(value["latest"])
        elif isinstance(value, (list, tuple)):
            if value and all(map(_is_count, value)):
                return cls(numbers=tuple(sorted(set(value))))
        elif _is_count(value):
            return cls(numbers=(value,))
        raise OptionError("versions", str(value), _EXPECTED)

    def choose(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Return those of the versions that are to be served, in ascending order."""
        there = sorted(set(versions))
        if self.numbers:
            return tuple(version for version in there if version in self.numbers)
        return tuple(there if self.latest is None else there[-self.latest :])


def version_number(name: str) -> int | None:
    """Return the version that a folder's name stands for; None if it stands for none.

    Names are counted from 1 and written without leading zeros, so that no two folders are the same
    version.
    """
    return int(name) if _NUMBER.fullmatch(name) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
