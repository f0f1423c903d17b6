"""What can be asked of AUTO beside the devices, under OpenVINO's names for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from atriva_inference.device import DeviceSpec, Selection
from atriva_inference.errors import OptionError

__all__ = ["AutoOptions", "ModelPriority", "SchedulePolicy"]


class SchedulePolicy(StrEnum):
    """Which replica gets the next request.

    EARLIEST, the default, is the one that is expected to answer first. DEVICE_PRIORITY fills the
    preferred device before the next one gets anything; ROUND_ROBIN goes round all of them.
    """

    EARLIEST = "EARLIEST"
    DEVICE_PRIORITY = "DEVICE_PRIORITY"
    ROUND_ROBIN = "ROUND_ROBIN"


class ModelPriority(StrEnum):
    """Which models AUTO keeps the best devices for."""

    HIGH = "HIGH"
    MEDIUM = "MEDIUM"
    LOW = "LOW"

    @property
    def level(self) -> int:
        """Higher for the model that goes before."""
        return {ModelPriority.HIGH: 2, ModelPriority.MEDIUM: 1, ModelPriority.LOW: 0}[self]


@dataclass(frozen=True, slots=True)
class AutoOptions:
    """How AUTO goes about it. None of this changes what is compiled.

    Attributes:
        startup_fallback: whether another device answers while the preferred one compiles.
        runtime_fallback: whether a request that fails on one replica is tried on another.
        schedule_policy: which replica gets the next request.
        model_priority: whether this model may take a device that another one serves from.
    """

    startup_fallback: bool = True
    runtime_fallback: bool = True
    schedule_policy: SchedulePolicy = SchedulePolicy.EARLIEST
    model_priority: ModelPriority = ModelPriority.MEDIUM

    @classmethod
    def parse(
        cls,
        *,
        startup_fallback: object = True,
        runtime_fallback: object = True,
        schedule_policy: object = SchedulePolicy.EARLIEST,
        model_priority: object = ModelPriority.MEDIUM,
    ) -> AutoOptions:
        """Check arguments of `load_model`.

        Raises:
            OptionError: one of them is none of its values.
        """
        return cls(
            _flag("startup_fallback", startup_fallback),
            _flag("runtime_fallback", runtime_fallback),
            _choice("schedule_policy", SchedulePolicy, schedule_policy),
            _choice("model_priority", ModelPriority, model_priority),
        )

    def with_properties(
        self, config: Mapping[str, Any], spec: DeviceSpec
    ) -> tuple[AutoOptions, dict[str, Any]]:
        """Take OpenVINO's properties of AUTO and MULTI out of a config; the rest is for devices.

        Raises:
            OptionError: one of them has none of its values.
        """
        rest = dict(config)
        options = self
        if spec.selection in (Selection.AUTO, Selection.MULTI):
            for key in [key for key in rest if key in _PROPERTIES]:
                name, parse = _PROPERTIES[key]
                options = replace(options, **{name: parse(key, rest.pop(key))})
        return options, rest


_FLAGS = {"TRUE": True, "YES": True, "1": True, "FALSE": False, "NO": False, "0": False}


def _flag(option: str, value: object) -> bool:
    try:
        return _FLAGS[str(value).upper()]
    except KeyError:
        raise OptionError(option, str(value), "True or False") from None


def _choice(option: str, choices: Any, value: object) -> Any:
    try:  # OpenVINO's own values print as `Priority.HIGH`
        return choices(str(value).rpartition(".")[2].upper())
    except ValueError:
        raise OptionError(option, str(value), f"one of {', '.join(choices)}") from None


_PROPERTIES: Mapping[str, tuple[str, Any]] = {
    "ENABLE_STARTUP_FALLBACK": ("startup_fallback", _flag),
    "ENABLE_RUNTIME_FALLBACK": ("runtime_fallback", _flag),
    "SCHEDULE_POLICY": (
        "schedule_policy",
        lambda key, value: _choice(key, SchedulePolicy, value),
    ),
    "MODEL_PRIORITY": (
        "model_priority",
        lambda key, value: _choice(key, ModelPriority, value),
    ),
}
