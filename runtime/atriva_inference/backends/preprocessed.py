"""Preprocessing for libraries that have none of their own: numpy, ahead of the compiled model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from atriva_inference.backend import CompiledModel, Slot
from atriva_inference.binding import ShapeSignature
from atriva_inference.errors import InputShapeError
from atriva_inference.pixel_input import PixelInput
from atriva_inference.ports import Port
from atriva_inference.preprocess import Preprocessing
from atriva_inference.profiling import LayerProfile, Profile
from atriva_inference.tensor import Array

__all__ = ["PreprocessedModel"]


class PreprocessedModel:
    """A compiled model that takes pixels.

    Attributes:
        inputs: the model's inputs, with the pixels in place of what is made of them.
        outputs: the model's outputs.
        device: the device that the model was compiled for.
        execution_devices: the devices that really execute.
        slot_count: how many requests run at once.
    """

    def __init__(
        self, compiled: CompiledModel, preprocessing: Preprocessing, target: PixelInput
    ) -> None:
        self._compiled = compiled
        self._preprocessing = preprocessing
        self._target = target
        inputs = list(compiled.inputs)
        inputs[target.number] = target.pixels
        self.inputs: tuple[Port, ...] = tuple(inputs)
        self.outputs = compiled.outputs
        self.device = compiled.device
        self.execution_devices = compiled.execution_devices
        self.slot_count = compiled.slot_count

    def open_slot(self) -> _Slot:
        """Return a further infer request with its own memory for what becomes of the pixels."""
        return _Slot(self._compiled.open_slot(), self._steps())

    def specialise(self, signature: ShapeSignature) -> PreprocessedModel:
        """Compile the same model for exactly these shapes of pixels and other inputs."""
        shapes = dict(signature)
        pixels = self._target.pixels
        special = self._target.specialised(shapes[pixels.name])
        turned = shapes | {pixels.name: special.model.shape or ()}
        try:
            compiled = self._compiled.specialise(tuple(sorted(turned.items())))
        except InputShapeError as error:
            if error.name != pixels.name:
                raise
            raise InputShapeError(
                pixels.name, shapes[pixels.name], pixels.shape, error.hint
            ) from error
        return PreprocessedModel(compiled, self._preprocessing, special)

    def profile(self, arrays: Mapping[str, Array], runs: int) -> Profile:
        """Profile the model, with the preprocessing as its first layer."""
        steps = self._steps()
        prepared = steps.prepare(arrays)  # the first run allocates
        started_s = time.perf_counter()
        for _ in range(runs):
            steps.prepare(arrays)
        time_us = (time.perf_counter() - started_s) / runs * 1e6
        profile = self._compiled.profile(prepared, runs)
        layer = LayerProfile("preprocessing", "Preprocessing", "numpy", time_us)
        return replace(
            profile,
            layers=(layer, *profile.layers),
            inference_us=profile.inference_us + time_us,
        )

    def _steps(self) -> _Steps:
        return _Steps(self._preprocessing, self._target)


class _Slot:
    def __init__(self, slot: Slot, steps: _Steps) -> None:
        self._slot = slot
        self._steps = steps

    def infer(
        self, arrays: Mapping[str, Array], memory: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        return self._slot.infer(self._steps.prepare(arrays), memory)


class _Steps:
    """What becomes of pixels, with memory that is used again; for one thread at a time."""

    def __init__(self, preprocessing: Preprocessing, target: PixelInput) -> None:
        self._name = target.pixels.name
        self._axes = target.axes
        self._dtype = target.model.dtype
        self._channel_axis = str(target.model.layout).index("C")
        self._is_reversed = preprocessing.color == "bgr"
        self._mean = self._along_channels(preprocessing.mean)
        self._scale = self._along_channels(preprocessing.scale)
        self._computed = np.empty(0, np.float32 if self._dtype.kind == "f" else self._dtype)

    def prepare(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Return the inputs with the pixels made into what the model takes.

        That lies in memory which the next call writes to.
        """
        pixels = arrays[self._name].transpose(self._axes)
        if self._is_reversed:
            pixels = np.flip(pixels, self._channel_axis)
        if self._computed.shape != pixels.shape:
            self._computed = np.empty(pixels.shape, self._computed.dtype)
        computed = self._computed
        np.copyto(computed, pixels)
        if self._mean is not None:
            np.subtract(computed, self._mean, out=computed)
        if self._scale is not None:
            np.divide(computed, self._scale, out=computed)
        with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite
            return {**arrays, self._name: computed.astype(self._dtype, copy=False)}

    def _along_channels(self, values: tuple[float, ...]) -> Array | None:
        if not values:
            return None
        shape = [1, 1, 1, 1]
        shape[self._channel_axis] = len(values)
        return np.array(values, np.float32).reshape(shape)
