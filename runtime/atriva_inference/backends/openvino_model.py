"""What is done to a model of OpenVINO's before it is compiled, and what it says of its ports."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino.preprocess import ColorFormat, PrePostProcessor

from atriva_inference.pixel_input import PixelInput
from atriva_inference.ports import Port, guess_image_layout
from atriva_inference.preprocess import Preprocessing

__all__ = [
    "input_ports",
    "output_ports",
    "variable_ports",
    "with_numpy_types",
    "with_preprocessing",
]


def input_ports(model: ov.Model) -> tuple[Port, ...]:
    """Return what a model takes."""
    return tuple(_port(port, is_input=True) for port in model.inputs)


def output_ports(model: ov.Model) -> tuple[Port, ...]:
    """Return what a model gives."""
    return tuple(_port(port, is_input=False) for port in model.outputs)


def variable_ports(model: ov.Model) -> tuple[Port, ...]:
    """Return what a model remembers between inferences."""
    ports = []
    for variable in model.get_variables():
        info = variable.get_info()
        element_type = info.data_type
        if element_type == ov.Type.bf16:  # numpy has no such type
            element_type = ov.Type.f32
        ports.append(
            Port(
                info.variable_id,
                (info.variable_id,),
                _dtype(element_type),
                _shape(info.data_shape),
            )
        )
    return tuple(sorted(ports, key=lambda port: port.name))


def with_numpy_types(model: ov.Model) -> ov.Model:
    """Let bfloat16 inputs and outputs be passed as float32, for numpy has no such type."""
    steps = PrePostProcessor(model)
    is_needed = False
    for ports, tensor_of in ((model.inputs, steps.input), (model.outputs, steps.output)):
        for index, port in enumerate(ports):
            if port.element_type == ov.Type.bf16:
                tensor_of(index).tensor().set_element_type(ov.Type.f32)
                is_needed = True
    return steps.build() if is_needed else model


def with_preprocessing(model: ov.Model, preprocessing: Preprocessing) -> ov.Model:
    """Have the model take pixels; the model that is passed becomes the one that is returned.

    Raises:
        OptionError: the model has no input that fits.
        RuntimeError: OpenVINO cannot do it.
    """
    ports = input_ports(model)
    target = PixelInput.find(preprocessing, ports)
    element_type = model.inputs[target.number].element_type
    if target.model.shape != ports[target.number].shape:
        model.reshape({target.number: ov.PartialShape(list(target.model.shape or ()))})
    builder = PrePostProcessor(model)
    entry = builder.input(target.number)
    entry.model().set_layout(ov.Layout(target.model.layout))
    pixels = entry.tensor().set_element_type(ov.Type.u8)
    pixels.set_layout(ov.Layout(target.pixels.layout))
    steps = entry.preprocess()
    if preprocessing.color == "bgr":
        pixels.set_color_format(ColorFormat.RGB)
        steps.convert_color(ColorFormat.BGR)
    if preprocessing.mean or preprocessing.scale:
        steps.convert_element_type(ov.Type.f32)
    if preprocessing.mean:
        steps.mean(_one_or_each(preprocessing.mean))
    if preprocessing.scale:
        steps.scale(_one_or_each(preprocessing.scale))
    steps.convert_element_type(element_type)
    return builder.build()


def _one_or_each(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def _port(port: ov.Output, *, is_input: bool) -> Port:
    shape = _shape(port.partial_shape)
    node = port.node if is_input else port.node.input_value(0).node
    # A set has no order of its own, and every process must pick the same primary name.
    tensor_names = sorted(port.names)
    names = tuple(dict.fromkeys([*tensor_names, node.friendly_name]))
    layout = _layout(port)
    if layout is None and is_input:
        layout = guess_image_layout(shape)
    return Port(names[0], names, _dtype(port.element_type), shape, layout)


def _shape(partial: ov.PartialShape) -> tuple[int, ...] | None:
    if partial.rank.is_dynamic:
        return None
    return tuple(-1 if dim.is_dynamic else dim.get_length() for dim in partial)


def _layout(port: ov.Output) -> str | None:
    letters = str(ov.layout_helpers.get_layout(port)).strip("[]").replace(",", "").upper()
    return letters if letters.isalpha() and len(set(letters)) == len(letters) else None


def _dtype(element_type: ov.Type) -> np.dtype[Any]:
    return np.dtype("U") if element_type == ov.Type.string else np.dtype(element_type.to_dtype())
