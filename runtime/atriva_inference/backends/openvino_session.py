"""One infer request of an OpenVINO model with state, for the requests of one session."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import openvino as ov

from atriva_inference.backends.openvino_slot import OpenVinoSlot, SlotOwner
from atriva_inference.state import State
from atriva_inference.tensor import Array

__all__ = ["OpenVinoSessionSlot"]


class OpenVinoSessionSlot(OpenVinoSlot):
    """Runs requests that build on each other; OpenVINO keeps variables with the infer request."""

    keeps_state = True

    def __init__(self, owner: SlotOwner) -> None:
        super().__init__(owner)
        # OpenVINO does not tell the value of a variable that has its initial one.
        self._assigned: set[str] = set()

    def infer(
        self, arrays: Mapping[str, Array], memory: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        """Run the model; an inference that failed is not repeated, for it may have done half."""
        owner = self._owner
        try:
            self._move(owner.sound())
            outputs = self._infer(arrays, memory)
        except RuntimeError as error:
            owner.discard(self._compiled)
            raise owner.failure(error) from error
        self._assigned = {port.name for port in owner.variables}
        if not owner.is_sound(self._compiled):
            raise owner.failure(RuntimeError("another request failed in the model meanwhile"))
        return outputs

    def state(self) -> State:
        """Return copies of the variables that have been given values."""
        try:
            return self._values()
        except RuntimeError as error:
            raise self._owner.failure(error) from error

    def set_state(self, state: State) -> None:
        """Give variables values."""
        try:
            self._move(self._owner.sound())
            self._assign(state)
        except RuntimeError as error:
            raise self._owner.failure(error) from error

    def reset(self) -> None:
        """Give all variables their initial values."""
        self._assigned.clear()
        self._request.reset_state()

    def _move(self, compiled: ov.CompiledModel) -> None:
        """Go over to another compilation, after a request of somebody else failed in this one."""
        if compiled is self._compiled:
            return
        state = self._values()
        self._renew(compiled)
        self._assign(state)

    def _values(self) -> State:
        return {
            variable.name: _array(variable.state)
            for variable in self._request.query_state()
            if variable.name in self._assigned
        }

    def _assign(self, state: State) -> None:
        for variable in self._request.query_state():
            if variable.name in state:
                variable.state = _tensor(state[variable.name], variable.state.element_type)
                self._assigned.add(variable.name)


def _array(tensor: ov.Tensor) -> Array:
    if tensor.element_type != ov.Type.bf16:
        return np.array(tensor.data)
    bits = tensor.data.view(np.uint16).astype(np.uint32) << 16  # the upper half of a float32
    return np.asarray(bits.view(np.float32))


def _tensor(array: Array, element_type: ov.Type) -> ov.Tensor:
    if element_type != ov.Type.bf16:
        return ov.Tensor(array)
    tensor = ov.Tensor(element_type, ov.Shape(array.shape))
    bits = np.asarray(array, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest, to even in the middle
    nan = np.isnan(array)
    rounded[nan] = 0x7FC0
    tensor.data.view(np.uint16)[...] = rounded.astype(np.uint16)
    return tensor
