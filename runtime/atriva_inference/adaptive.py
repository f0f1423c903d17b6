"""A model compiled twice: one request that comes alone gets the whole device, several share it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from atriva_inference.backend import Backend, CompiledModel, SessionSlot, Slot
from atriva_inference.binding import ShapeSignature
from atriva_inference.local_session import open_session_slot, variables_of
from atriva_inference.model_files import ModelFiles
from atriva_inference.options import CompileOptions, PerformanceHint
from atriva_inference.profiling import Profile
from atriva_inference.tensor import Array

__all__ = ["AdaptiveModel", "compile_adaptive"]


def compile_adaptive(
    backend: Backend, files: ModelFiles, device: str, options: CompileOptions
) -> CompiledModel:
    """Compile for THROUGHPUT, and for LATENCY too where that makes a difference.

    Raises:
        CompileError: the device refuses the model.
    """
    many = backend.compile(files, device, replace(options, hint=PerformanceHint.THROUGHPUT))
    if many.slot_count == 1:  # a request has the whole device already
        return many
    lone = backend.compile(files, device, replace(options, hint=PerformanceHint.LATENCY))
    return AdaptiveModel(lone, many)


class AdaptiveModel:
    """Runs a request with the LATENCY configuration if no other one runs when it comes.

    Otherwise with the THROUGHPUT configuration. Two configurations may add up floating-point
    numbers in different orders.

    Attributes:
        inputs: what the model takes.
        outputs: what the model gives.
        variables: what the model remembers within a session.
        device: the device that was compiled for.
        execution_devices: the devices that really execute.
        slot_count: how many requests run at once.
    """

    def __init__(self, lone: CompiledModel, many: CompiledModel) -> None:
        """Take the same model in two configurations.

        Args:
            lone: compiled for LATENCY.
            many: compiled for THROUGHPUT.
        """
        self.inputs = many.inputs
        self.outputs = many.outputs
        self.variables = variables_of(many)
        self.device = many.device
        self.execution_devices = many.execution_devices
        self.slot_count = many.slot_count
        self._lone = lone
        self._many = many
        self._turns = _Turns()
        self._lone_slot: Slot | None = None
        self._opening = threading.Lock()

    def open_slot(self) -> Slot:
        """Return a further infer request."""
        with self._opening:
            if self._lone_slot is None:
                self._lone_slot = self._lone.open_slot()
        return _Slot(self._lone_slot, self._many.open_slot(), self._turns)

    def open_session_slot(self) -> SessionSlot:
        """Return an infer request for a session: it keeps to the THROUGHPUT configuration.

        What it remembers is with one of the two, and would have to be copied to the other.
        """
        return open_session_slot(self._many)

    def specialise(self, signature: ShapeSignature) -> CompiledModel:
        """Compile both for exactly these input shapes."""
        return AdaptiveModel(self._lone.specialise(signature), self._many.specialise(signature))

    def profile(self, arrays: Mapping[str, Array], runs: int) -> Profile:
        """Profile the THROUGHPUT configuration."""
        return self._many.profile(arrays, runs)


class _Turns:
    """Counts what runs; whoever comes to an idle device has it alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0

    def begin(self) -> bool:
        """Note that a request begins; return whether it is the only one."""
        with self._lock:
            self._running += 1
            return self._running == 1

    def end(self) -> None:
        with self._lock:
            self._running -= 1


class _Slot:
    def __init__(self, lone: Slot, many: Slot, turns: _Turns) -> None:
        self._lone = lone
        self._many = many
        self._turns = turns

    def infer(
        self, arrays: Mapping[str, Array], memory: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        is_alone = self._turns.begin()
        try:
            return (self._lone if is_alone else self._many).infer(arrays, memory)
        finally:
            self._turns.end()
