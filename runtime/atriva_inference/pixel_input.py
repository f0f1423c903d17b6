"""`PixelInput`: the input that takes pixels, before and after preprocessing is built in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from atriva_inference.errors import OptionError
from atriva_inference.ports import Port
from atriva_inference.preprocess import IMAGE_LAYOUTS, Preprocessing

__all__ = ["PixelInput"]

_RANK = 4
_BRIGHTEST = 255


@dataclass(frozen=True, slots=True)
class PixelInput:
    """One input of a model, and what it becomes.

    Attributes:
        number: its place among the model's inputs.
        model: the input as the model has it, its layout known and its sizes as declared.
        pixels: the input that takes its place.
    """

    number: int
    model: Port
    pixels: Port

    @classmethod
    def find(cls, preprocessing: Preprocessing, ports: Sequence[Port]) -> PixelInput:
        """Find the input that a preprocessing is for.

        Raises:
            OptionError: the model has no such input, or it takes something else.
        """
        number = _choose(preprocessing, ports)
        port = ports[number]
        layout = preprocessing.model_layout or port.layout
        if port.shape is None or len(port.shape) != _RANK:
            raise OptionError("input", port.name, f"an input of rank 4; this is {port}")
        if layout not in IMAGE_LAYOUTS:
            travelling = preprocessing.pixel_layout
            choices = " or ".join(f"{travelling}:{each}" for each in IMAGE_LAYOUTS)
            raise OptionError(
                "layout",
                preprocessing.layout,
                f"{choices}, since the model leaves open which: {port}",
            )
        _check_dtype(preprocessing, port)
        sizes = dict(zip(layout, port.shape, strict=True))
        sizes["C"] = _channels(preprocessing, port, sizes["C"])
        sizes["H"], sizes["W"] = _height_and_width(preprocessing, port, sizes["H"], sizes["W"])
        model = replace(port, shape=tuple(sizes[letter] for letter in layout), layout=layout)
        pixels = replace(
            port,
            dtype=np.dtype(np.uint8),
            shape=tuple(sizes[letter] for letter in preprocessing.pixel_layout),
            layout=preprocessing.pixel_layout,
        )
        return cls(number, model, pixels)

    @property
    def axes(self) -> tuple[int, ...]:
        """The order of axes that turns the pixels' layout into the model's."""
        pixels, model = str(self.pixels.layout), str(self.model.layout)
        return tuple(pixels.index(letter) for letter in model)

    def specialised(self, shape: Sequence[int]) -> PixelInput:
        """Return the same for pixels of exactly this shape."""
        turned = tuple(shape[axis] for axis in self.axes)
        return PixelInput(
            self.number,
            replace(self.model, shape=turned),
            replace(self.pixels, shape=tuple(shape)),
        )


def _choose(preprocessing: Preprocessing, ports: Sequence[Port]) -> int:
    if preprocessing.input is not None:
        for number, port in enumerate(ports):
            if preprocessing.input in port.names:
                return number
        names = ", ".join(repr(port.name) for port in ports)
        raise OptionError("input", preprocessing.input, f"one of the model's inputs: {names}")
    known = [number for number, port in enumerate(ports) if port.layout in IMAGE_LAYOUTS]
    possible = known or [
        number for number, port in enumerate(ports) if port.shape and len(port.shape) == _RANK
    ]
    if len(possible) == 1:
        return possible[0]
    if possible:
        names = ", ".join(repr(ports[number].name) for number in possible)
        raise OptionError("input", "None", f"the one that takes the pixels, of {names}")
    takes = "; ".join(map(str, ports))
    raise OptionError(
        "preprocessing",
        f"{preprocessing.pixel_layout} pixels",
        f"a model with an input of rank 4; this one takes {takes}",
    )


def _check_dtype(preprocessing: Preprocessing, port: Port) -> None:
    dtype = port.dtype
    if dtype.kind == "f":
        return
    if dtype.kind not in "iu" or np.iinfo(dtype).max < _BRIGHTEST:
        raise OptionError("input", port.name, f"an input that can hold 0 to 255; this is {port}")
    for option, values in (("mean", preprocessing.mean), ("scale", preprocessing.scale)):
        if values:
            raise OptionError(option, str(values), f"none, for the model takes integers: {port}")


def _channels(preprocessing: Preprocessing, port: Port, channels: int) -> int:
    if channels in (-1, preprocessing.channel_count):
        return preprocessing.channel_count
    fitting = {1: "gray", 3: "rgb or bgr"}.get(channels, "a model of 1 or 3 channels")
    count = "1 channel" if channels == 1 else f"{channels} channels"
    raise OptionError("color", preprocessing.color, f"{fitting}, for the model has {count}: {port}")


def _height_and_width(
    preprocessing: Preprocessing, port: Port, height: int, width: int
) -> tuple[int, int]:
    if preprocessing.resize is None:
        return height, width
    wanted_height, wanted_width = preprocessing.resize
    if height not in (-1, wanted_height) or width not in (-1, wanted_width):
        takes = "x".join("?" if size < 0 else str(size) for size in (height, width))
        raise OptionError(
            "resize",
            f"{wanted_height}x{wanted_width}",
            f"{takes} (height x width), which is what the model takes: {port}",
        )
    return wanted_height, wanted_width
