"""Devices and the expressions that choose among them; pure functions, no library is asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from atriva_inference.errors import DeviceNotAvailableError, OptionError

__all__ = ["Device", "DeviceSpec", "Selection", "device_kind", "device_rank"]

_DEVICE_NAME = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*(\([A-Z0-9_,]+\))?")
_PREFERENCE = {"GPU": 0, "NPU": 1, "CPU": 3}
_RANK_OF_OTHERS = 2


class Selection(StrEnum):
    """How a device expression picks among its candidates."""

    EXACT = "EXACT"
    AUTO = "AUTO"
    MULTI = "MULTI"
    HETERO = "HETERO"
    BATCH = "BATCH"


def device_kind(name: str) -> str:
    """Return the family of a device name: ``GPU`` for ``GPU.1``, ``CPU`` for ``CPU``."""
    return name.partition(".")[0].partition("(")[0]


def device_rank(name: str) -> int:
    """Return AUTO's preference, lower is better: GPU, NPU, any other plug-in's device, CPU."""
    return _PREFERENCE.get(device_kind(name), _RANK_OF_OTHERS)


@dataclass(frozen=True, slots=True)
class Device:
    """A device that is really there.

    Attributes:
        name: OpenVINO's name for it (``CPU``, ``GPU.0``, ``NPU``), on every backend.
        full_name: what the maker calls it.
        capabilities: precisions and features, as the backend reports them.
        is_discrete: a card of its own rather than a part of the processor.
        memory_bytes: the device's own memory, where it has one and tells.
        node: the cluster node it is on; None in one process.
    """

    name: str
    full_name: str = ""
    capabilities: tuple[str, ...] = ()
    is_discrete: bool = False
    memory_bytes: int | None = None
    node: str | None = None

    @property
    def kind(self) -> str:
        """Family of the device: ``GPU`` for ``GPU.1``."""
        return device_kind(self.name)

    @property
    def preference(self) -> tuple[int, int, str]:
        """Sort key of AUTO: kind first, then discrete before integrated, then name."""
        return (device_rank(self.name), 0 if self.is_discrete else 1, self.name)


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A parsed device expression.

    Attributes:
        text: what the user wrote.
        selection: how to pick.
        candidates: devices in the order they were named; empty for plain ``AUTO``.
        excluded: devices that were named with a minus sign.
        node: the cluster node that ``node/DEVICE`` pins to; None on one machine.
    """

    text: str
    selection: Selection
    candidates: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    node: str | None = None

    @classmethod
    def parse(cls, text: str) -> DeviceSpec:
        """Parse ``CPU``, ``node/GPU.0``, ``AUTO``, ``AUTO:GPU,CPU``, ``AUTO:-CPU``, ``MULTI:…``.

        Raises:
            OptionError: the text is no such expression.
        """
        if not isinstance(text, str) or not text.strip():
            raise OptionError("device", str(text), _EXPECTED)
        node, slash, rest = text.strip().rpartition("/")
        head, colon, tail = rest.upper().partition(":")
        if slash and not node:
            raise OptionError("device", text, _EXPECTED)
        pinned = node or None
        if head not in Selection.__members__ or head == Selection.EXACT:
            if colon or not _DEVICE_NAME.fullmatch(head):
                raise OptionError("device", text, _EXPECTED)
            return cls(text, Selection.EXACT, (head,), (), pinned)
        selection = Selection(head)
        names = [name.strip() for name in tail.split(",")] if colon else []
        included = tuple(name for name in names if not name.startswith("-"))
        excluded = tuple(name[1:].strip() for name in names if name.startswith("-"))
        valid = all(_DEVICE_NAME.fullmatch(name) for name in (*included, *excluded))
        if not valid or (excluded and selection is not Selection.AUTO):
            raise OptionError("device", text, _EXPECTED)
        if selection is not Selection.AUTO and not included:
            raise OptionError("device", text, f"{head} with a device list, like {head}:GPU,CPU")
        return cls(text, selection, included, excluded, pinned)

    def choose(self, devices: Iterable[Device]) -> list[Device]:
        """Return the devices this expression allows, the most preferred first.

        Args:
            devices: what is there.

        Raises:
            DeviceNotAvailableError: nothing that is there fits. For expressions other than AUTO,
                also when any one of the named devices is missing.
        """
        present = sorted(devices, key=lambda device: device.preference)
        names = [device.name for device in present]
        allowed = [device for device in present if not _matches_any(device, self.excluded)]
        if not self.candidates:
            chosen = allowed
        else:
            chosen = []
            for wanted in self.candidates:
                found = [device for device in allowed if _matches(device, wanted)]
                if not found and self.selection is not Selection.AUTO:
                    raise DeviceNotAvailableError(wanted, names)
                chosen.extend(device for device in found if device not in chosen)
        if not chosen:
            raise DeviceNotAvailableError(self.text, names)
        return chosen[:1] if self.selection is Selection.EXACT else chosen


_EXPECTED = (
    "a device (CPU, GPU, GPU.1, NPU, on a cluster also node/DEVICE), AUTO, AUTO:GPU,CPU, "
    "AUTO:-CPU, MULTI:…, HETERO:… or BATCH:…"
)


def _matches(device: Device, wanted: str) -> bool:
    bare = wanted.partition("(")[0]
    return device.name == bare or ("." not in bare and device.kind == bare)


def _matches_any(device: Device, names: Sequence[str]) -> bool:
    return any(_matches(device, name) for name in names)
