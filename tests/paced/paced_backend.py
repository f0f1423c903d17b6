"""An inference library whose devices take as long as they are told, and no processor.

``PACED_DEVICES="GPU=0.005,CPU=0.02"`` gives the devices and the seconds that each takes for one
row; ``CPU=0.02~0.3`` on average, lognormally distributed with that sigma. A model is any ``.onnx``
file; it negates a vector of float32, and fails on one that has NaN. Its entry point makes it known
wherever this folder is on the ``PYTHONPATH``, on the nodes of a cluster for example.

Files in the folder ``PACED_FOLDER`` change what devices do, at any time: a compilation on ``GPU``
ends when there is no file ``GPU.compiling`` (any more), and is refused if there is one called
``GPU.refuses``, with what the file says as the reason; while there is a file ``GPU.fails``, every
inference there fails. ``GPU.asked`` gets a line for each inference.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atriva_inference.device import Device
from atriva_inference.errors import CompileError, InferenceFailedError
from atriva_inference.ports import Port
from atriva_inference.profiling import Profile


@dataclass
class PacedModel:
    """`x` float32 1×?  → `y` float32 1×?, negated after `time_s`."""

    device: str
    time_s: float
    sigma: float = 0.0
    slot_count: int = 1
    inputs: tuple[Port, ...] = (Port("x", ("x",), np.dtype("float32"), (1, -1)),)
    outputs: tuple[Port, ...] = (Port("y", ("y",), np.dtype("float32"), (1, -1)),)

    @property
    def execution_devices(self):
        return (self.device,)

    def open_slot(self):
        return self

    def specialise(self, _signature):
        return self

    def infer(self, arrays, _memory=None):
        sigma = self.sigma
        time.sleep(self.time_s * random.lognormvariate(-sigma * sigma / 2, sigma))
        _note(self.device, "asked")
        if _says(self.device, "fails") is not None:
            raise InferenceFailedError("paced", self.device, "the device is lost")
        if np.isnan(arrays["x"]).any():
            raise InferenceFailedError("paced", self.device, "not a number")
        return {"y": -arrays["x"]}

    def profile(self, _arrays, runs):
        return Profile.from_runs("paced", self.device, [], [0.0] * runs, [self.time_s] * runs)


class PacedBackend:
    """The devices of the environment."""

    name = "paced"

    def __init__(self):
        entries = os.environ["PACED_DEVICES"].split(",")
        self._paces: dict[str, list[float]] = {}
        for name, _, pace in (entry.partition("=") for entry in entries):
            self._paces[name] = [float(number) for number in pace.split("~")]

    def devices(self):
        return [Device(name) for name in self._paces]

    def expand(self, _spec, devices, _options):
        return [device.name for device in devices]

    def compile(self, files, device, _options):
        while _says(device, "compiling") is not None:
            time.sleep(0.05)
        reason = _says(device, "refuses")
        if reason is not None:
            raise CompileError(str(files.path), device, {device: reason})
        return PacedModel(device, *self._paces[device])


def _file(device, what):
    folder = os.environ.get("PACED_FOLDER")
    return None if folder is None else Path(folder) / f"{device}.{what}"


def _says(device, what):
    path = _file(device, what)
    try:
        return None if path is None else path.read_text()
    except FileNotFoundError:
        return None


def _note(device, what):
    path = _file(device, what)
    if path is not None:
        with path.open("a") as file:
            file.write("1\n")
