"""One infer request of an OpenVINO model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
import openvino as ov

from atriva_inference.errors import InferenceFailedError
from atriva_inference.ports import Port
from atriva_inference.tensor import Array

__all__ = ["OpenVinoSlot", "SlotOwner", "copy_outputs"]


class SlotOwner(Protocol):
    """What a slot has to know of its compiled model."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What the model takes."""
        ...

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What the model gives."""
        ...

    @property
    def variables(self) -> tuple[Port, ...]:
        """What it remembers."""
        ...

    @property
    def gives_text(self) -> bool:
        """Whether an output is text."""
        ...

    def sound(self) -> ov.CompiledModel:
        """Return a compilation in which no inference has failed."""
        ...

    def is_sound(self, compiled: ov.CompiledModel) -> bool:
        """Whether no inference has failed in this compilation."""
        ...

    def discard(self, compiled: ov.CompiledModel) -> bool:
        """Use a compilation no more; return whether it was sound until now."""
        ...

    def failure(self, error: Exception) -> InferenceFailedError:
        """Say what went wrong."""
        ...


class OpenVinoSlot:
    """Runs requests that have nothing to do with each other."""

    keeps_state = False
    """Whether variables keep their values from one request to the next."""

    def __init__(self, owner: SlotOwner) -> None:
        self._owner = owner
        self._renew(owner.sound())

    def infer(
        self, arrays: Mapping[str, Array], memory: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """Run the model; see `atriva_inference.backend.Slot`."""
        owner = self._owner
        while True:
            compiled = owner.sound()
            if compiled is not self._compiled:
                self._renew(compiled)
            try:
                outputs = self._infer(arrays, memory)
            except RuntimeError as error:
                if owner.discard(compiled):
                    raise owner.failure(error) from error
            else:
                if owner.is_sound(compiled):
                    return outputs
            # Another request failed meanwhile, and this one may have suffered from that.

    def _renew(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._own_memory: list[ov.Tensor] | None = None

    def _infer(
        self, arrays: Mapping[str, Array], memory: dict[str, Array] | None
    ) -> dict[str, Array]:
        owner = self._owner
        request = self._request
        for number, port in enumerate(owner.inputs):
            array = arrays[port.name]
            # OpenVINO maps writable numbers only; read-only arrays and text cost a copy here.
            is_mappable = array.flags.writeable and array.dtype.kind not in "US"
            request.set_input_tensor(number, ov.Tensor(array, shared_memory=is_mappable))
        if memory is not None:
            self._lend(memory)
        elif self._own_memory is not None:
            for number, tensor in enumerate(self._own_memory):
                request.set_output_tensor(number, tensor)
            self._own_memory = None
        if owner.variables and not self.keeps_state:
            request.reset_state()
        request.infer(share_outputs=not owner.gives_text)
        return memory if memory is not None else copy_outputs(request, owner.outputs)

    def _lend(self, memory: dict[str, Array]) -> None:
        """Have the outputs written to the caller's memory, and remember the request's own."""
        request = self._request
        numbers = range(len(self._owner.outputs))
        if self._own_memory is None:
            self._own_memory = [request.get_output_tensor(number) for number in numbers]
        for number, port in enumerate(self._owner.outputs):
            request.set_output_tensor(number, ov.Tensor(memory[port.name], shared_memory=True))


def copy_outputs(request: ov.InferRequest, ports: Iterable[Port]) -> dict[str, Array]:
    """Copy what a request has put out."""
    outputs = {}
    for number, port in enumerate(ports):
        tensor = request.get_output_tensor(number)
        is_text = tensor.element_type == ov.Type.string
        outputs[port.name] = tensor.str_data if is_text else np.array(tensor.data)
    return outputs
