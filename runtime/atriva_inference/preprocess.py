"""`Preprocessing`: what becomes of pixels inside the model, ahead of its first layer."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from atriva_inference.errors import OptionError

__all__ = ["IMAGE_LAYOUTS", "Preprocessing", "check_preprocessing"]

IMAGE_LAYOUTS = ("NHWC", "NCHW")

_CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1}
_FITS = ("stretch", "crop", "pad")
_MAX_SIDE = 65_535
_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pixels become what a model was trained on: built into the model when it is loaded.

    The input then takes uint8 pixels, a quarter of the bytes of float32, and the model itself turns
    the axes, puts the channels in its order and computes ``(pixel - mean) / scale`` in float32.

    Resampling is not in the model. Pictures are brought to the input's size where they are decoded,
    antialiased, so that fewer bytes travel.

    Lists become tuples, and text is read as the command line writes it: ``"224x224"``, ``"1,2,3"``.

    Attributes:
        resize: height and width of the pixels that travel. A model with a size of its own takes
            only that; one without becomes static. None: the model's own, which may be dynamic.
        layout: layout of the pixels that travel, ``NHWC`` or ``NCHW``; with the model's own behind
            a colon where the model leaves it open: ``NHWC:NCHW``.
        mean: subtracted from the pixels, which are 0 to 255: one value, or one for each channel in
            the model's order. Empty: 0.
        scale: what the pixels are then divided by, likewise. Empty: 1.
        color: what the model was trained on: ``rgb``, ``bgr`` or ``gray``. Pixels travel as RGB, or
            as one grey channel.
        fit: how a picture is brought to the size where it is decoded: ``stretch`` it, ``crop`` what
            is too much on two sides, or ``pad`` with black.
        input: which input takes the pixels; None: the only one that can.

    Raises:
        OptionError: a value is not one of the choices.
    """

    resize: tuple[int, int] | None = None
    layout: str = "NHWC"
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    color: str = "rgb"
    fit: str = "stretch"
    input: str | None = None

    def __post_init__(self) -> None:
        color = _choice("color", self.color, tuple(_CHANNELS))
        scale = _per_channel("scale", self.scale, color)
        if any(abs(value) < _SMALLEST for value in scale):
            raise OptionError("scale", str(self.scale), "numbers to divide by, none of them 0")
        if self.input is not None and (not isinstance(self.input, str) or not self.input):
            raise OptionError("input", repr(self.input), "the name of one of the model's inputs")
        for name, value in (
            ("resize", _size(self.resize)),
            ("layout", _layouts(self.layout)),
            ("mean", _per_channel("mean", self.mean, color)),
            ("scale", scale),
            ("color", color),
            ("fit", _choice("fit", self.fit, _FITS)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Preprocessing:
        """Take what a YAML or JSON document says.

        Raises:
            OptionError: it is no mapping, has an unknown key, or a value is not acceptable.
        """
        known = [field.name for field in fields(cls)]
        if not isinstance(mapping, Mapping):
            raise OptionError("preprocessing", repr(mapping), f"a mapping of {', '.join(known)}")
        unknown = [str(key) for key in mapping if key not in known]
        if unknown:
            raise OptionError("preprocessing", ", ".join(unknown), f"only {', '.join(known)}")
        return cls(**mapping)

    @property
    def pixel_layout(self) -> str:
        """Layout of the pixels that travel."""
        return self.layout.partition(":")[0]

    @property
    def model_layout(self) -> str | None:
        """Layout of the model's input, where it is declared."""
        return self.layout.partition(":")[2] or None

    @property
    def channel_count(self) -> int:
        """Channels of a pixel: 3, or 1 for grey ones."""
        return _CHANNELS[self.color]


def check_preprocessing(value: Preprocessing | Mapping[str, Any] | None) -> Preprocessing | None:
    """Return what `load_model` was given as what it means.

    Raises:
        OptionError: it is neither a Preprocessing nor a mapping that declares one.
    """
    if value is None or isinstance(value, Preprocessing):
        return value
    return Preprocessing.from_mapping(value)


def _choice(option: str, value: object, choices: Sequence[str]) -> str:
    text = value.strip().lower() if isinstance(value, str) else ""
    if text not in choices:
        raise OptionError(option, str(value), f"one of {', '.join(choices)}")
    return text


def _layouts(value: object) -> str:
    parts = value.upper().split(":") if isinstance(value, str) else []
    layouts = [part.strip() for part in parts]
    if len(layouts) not in (1, 2) or any(layout not in IMAGE_LAYOUTS for layout in layouts):
        raise OptionError(
            "layout",
            str(value),
            "NHWC or NCHW, and behind a colon the model's where it is not known: NHWC:NCHW",
        )
    return ":".join(layouts)


def _size(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            height, width = map(int, value.lower().split("x"))
        else:
            height, width = map(operator.index, value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        height = width = 0
    if not 1 <= height <= _MAX_SIDE or not 1 <= width <= _MAX_SIDE:
        raise OptionError(
            "resize",
            str(value),
            f"height and width from 1 to {_MAX_SIDE:,}, like (224, 224) or 224x224",
        )
    return height, width


def _per_channel(option: str, value: object, color: str) -> tuple[float, ...]:
    count = _CHANNELS[color]
    numbers = _numbers(value)
    if numbers is None or len(numbers) not in (0, 1, count):
        wanted = "one number" if count == 1 else f"one number, or one for each of {count} channels"
        raise OptionError(option, str(value), f"{wanted} ({color})")
    return numbers


def _numbers(value: object) -> tuple[float, ...] | None:
    """Return the numbers in a number, a list or a text; None if there is anything else in it."""
    parts: Iterable[object] = [value]
    if isinstance(value, str):
        parts = value.split(",")
    elif isinstance(value, (Sequence, np.ndarray)):
        parts = value
    try:
        numbers = tuple(_number(each) for each in parts)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if all(abs(number) <= _LARGEST for number in numbers) else None


def _number(value: Any) -> float:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError
    return float(value) + 0.0  # -0.0 equals 0.0, and then should look the same too
