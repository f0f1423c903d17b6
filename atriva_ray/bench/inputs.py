"""Inputs to measure with: random ones of the right kind, or the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from atriva_inference.errors import InputDtypeError, InputShapeError, OptionError
from atriva_inference.ports import Port, match_names
from atriva_inference.tensor import Array, Tensor

__all__ = ["InputSet", "batch_size", "make_inputs", "shaped"]

InputSet: TypeAlias = dict[str, Tensor]
"""The inputs of one request, by name."""


def make_inputs(
    ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]], count: int
) -> list[InputSet]:
    """Return random inputs for so many requests: floats from 0 to 1, integers from 0 to 1.

    Small integers are within the range of what models look things up with.

    Args:
        ports: the model's inputs.
        shapes: as `parse_shapes` returns them. An input whose only dynamic dimension is the first
            one needs none: its batch is 1 then.
        count: how many sets of inputs, each with memory of its own.

    Raises:
        OptionError: a shape names no input.
        InputNameError: two names mean one input.
        InputShapeError: a shape does not fit its input, or a dynamic input has none.
        InputDtypeError: text; it cannot be made up.
    """
    given = _by_port(ports, shapes)
    wanted = {port.name: _shape(port, given.get(port.name)) for port in ports}
    generator = np.random.default_rng(0)
    return [
        {
            port.name: Tensor(
                _random(port, wanted[port.name], generator),
                port.layout,
                specialise=port.name in given and port.is_dynamic,
            )
            for port in ports
        }
        for _ in range(count)
    ]


def shaped(
    ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]], inputs: InputSet
) -> InputSet:
    """Return the caller's inputs, to run compiled for the shapes asked for.

    Raises:
        OptionError: a shape names no input.
        InputShapeError: an input does not have as many elements as its shape.
    """
    given = _by_port(ports, shapes)
    matched = match_names(ports, inputs)
    return {
        name: Tensor.from_numpy(tensor.to_numpy(), tensor.layout, given.get(name))
        for name, tensor in matched.items()
    }


def batch_size(ports: Sequence[Port], inputs: InputSet) -> int:
    """Return the batch entries of one request: the first input's axis N, else 1."""
    for port in ports:
        tensor = inputs.get(port.name)
        layout = port.layout if tensor is None or tensor.layout is None else tensor.layout
        if tensor is not None and layout is not None and "N" in layout:
            return tensor.shape[layout.index("N")]
    return 1


def _by_port(
    ports: Sequence[Port], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    known = {name: port.name for port in ports for name in port.names}
    if len(ports) == 1:
        known[""] = ports[0].name
    for name in shapes:
        if name not in known:
            names = ", ".join(repr(port.name) for port in ports)
            raise OptionError("-shape", name, f"names of the model's inputs: {names}")
    return {known[name]: shape for name, shape in shapes.items()}


def _shape(port: Port, given: tuple[int, ...] | None) -> tuple[int, ...]:
    if given is not None:
        if not port.accepts(given):
            raise InputShapeError(port.name, given, port.shape, "give it a -shape that fits")
        return given
    if port.shape is None or any(size < 0 for size in port.shape[1:]):
        raise InputShapeError(
            port.name, port.shape or (), port.shape, "say which sizes to measure with -shape or -i"
        )
    return tuple(max(size, 1) for size in port.shape)


def _random(port: Port, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if port.dtype.kind in "OSU":
        raise InputDtypeError(port.name, "random", "text", "pass an input file with -i")
    if port.dtype.kind in "biu":
        return generator.integers(0, 2, shape).astype(port.dtype)
    return generator.random(shape, np.float32).astype(port.dtype)
