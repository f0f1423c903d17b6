"""A backend without a library: it doubles numbers, and does as it is told about the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atriva_inference.device import Device
from atriva_inference.errors import CompileError
from atriva_inference.ports import Port
from atriva_inference.profiling import Profile


@dataclass
class FakeCompiledModel:
    """`x` float32 ?→ `y` float32 ?, twice as large. `infer` can be replaced."""

    device: str = "CPU"
    slot_count: int = 2
    infer: Any = None
    slots: list[FakeSlot] = field(default_factory=list)
    specialised: list[Any] = field(default_factory=list)
    inputs: tuple[Port, ...] = (Port("x", ("x",), np.dtype("float32"), (-1,)),)
    outputs: tuple[Port, ...] = (Port("y", ("y",), np.dtype("float32"), (-1,)),)

    @property
    def execution_devices(self):
        return (self.device,)

    def open_slot(self):
        slot = FakeSlot(self)
        self.slots.append(slot)
        return slot

    def specialise(self, signature):
        self.specialised.append(signature)
        return FakeCompiledModel(self.device, self.slot_count, self.infer)

    def profile(self, _arrays, runs):
        return Profile.from_runs("fake", self.device, [], [0.0] * runs, [1.0] * runs)


@dataclass
class FakeSlot:
    """Calls the model's `infer` with the array, or doubles it."""

    model: FakeCompiledModel

    def infer(self, arrays, _memory=None):
        array = arrays["x"]
        return {"y": array * 2 if self.model.infer is None else self.model.infer(array)}


@dataclass
class FakeBackend:
    """Has some devices, of which some refuse to compile."""

    name: str = "fake"
    present: tuple[Device, ...] = (Device("CPU"), Device("NPU"), Device("GPU.0"))
    refusing: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def devices(self):
        return list(self.present)

    def expand(self, _spec, devices, _options):
        return [device.name for device in devices]

    def compile(self, files, device, _options):
        self.asked.append(device)
        if device in self.refusing:
            raise CompileError(str(files.path), device, {device: self.refusing[device]})
        return FakeCompiledModel(device)
