"""The input of a model that takes pictures, and what it wants them to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from atriva_inference.errors import InputNameError, InputShapeError, format_shape
from atriva_inference.ports import Port, batch_axis
from atriva_ray.pictures import Pixels, decode_picture

__all__ = ["PicturePort", "only_picture_port"]

_CHANNELS = (1, 3)
_COLOURS = 3


@dataclass(frozen=True, slots=True)
class PicturePort:
    """An input that takes pictures.

    Attributes:
        name: the input's.
        height: None if the model takes any.
        width: None if the model takes any.
        channels: 1 for grey, 3 for red, green and blue.
    """

    name: str
    height: int | None
    width: int | None
    channels: int

    @classmethod
    def of(cls, port: Port) -> PicturePort | None:
        """Return what a port wants, None if it does not take one picture at a time."""
        if port.layout not in ("NCHW", "NHWC") or port.shape is None or not batch_axis(port):
            return None
        sizes = dict(zip(port.layout, port.shape, strict=True))
        channels = sizes["C"] if sizes["C"] > 0 else _COLOURS
        if port.dtype.kind not in "iuf" or channels not in _CHANNELS:
            return None
        height, width = (sizes[axis] if sizes[axis] > 0 else None for axis in "HW")
        return cls(port.name, height, width, channels)

    def decode(self, data: bytes, fit: str) -> Pixels:
        """Decode a JPEG or PNG file to what the input takes, see `decode_picture`."""
        return decode_picture(data, self.height, self.width, self.channels, fit)


def only_picture_port(ports: Sequence[Port]) -> PicturePort:
    """Return the only input of a model that takes a picture and nothing else.

    Raises:
        InputNameError: it has further inputs.
        InputShapeError: its only input takes something else.
    """
    fitting = [port for port in map(PicturePort.of, ports) if port is not None]
    if len(ports) != 1:
        missing = [port.name for port in ports if not fitting or port.name != fitting[0].name]
        raise InputNameError([], missing, [port.name for port in ports])
    if not fitting:
        port = ports[0]
        takes = "any rank" if port.shape is None else format_shape(port.shape)
        raise InputShapeError(
            port.name,
            (),
            port.shape,
            f"a picture does not fit {takes}; a model of pictures takes 1×3×H×W or 1×H×W×3, "
            "with 1 instead of 3 for grey",
        )
    return fitting[0]
