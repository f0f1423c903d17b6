"""Which models go before others where devices are scarce."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from atriva_inference.device import Selection
from atriva_inference.options import PerformanceHint
from atriva_ray.routing.auto import ModelPriority
from atriva_ray.routing.messages import ModelRequest
from atriva_ray.routing.placement import Seat
from atriva_ray.routing.state import ModelState

__all__ = ["higher", "taken_seats", "yielding"]


def higher(one: ModelPriority, other: ModelPriority) -> ModelPriority:
    """Return the higher of two priorities."""
    return one if one.level >= other.level else other


def taken_seats(models: Iterable[ModelState]) -> dict[Seat, ModelPriority]:
    """Return the highest priority of the models that each seat serves to stay."""
    taken: dict[Seat, ModelPriority] = {}
    for state in models:
        for replica in state.regulars.values():
            seat = replica.placement.seat
            taken[seat] = higher(taken.get(seat, state.priority), state.priority)
    return taken


def yielding(
    groups: Sequence[Sequence[Seat]],
    request: ModelRequest,
    taken: Mapping[Seat, ModelPriority],
) -> list[list[Seat]]:
    """Order a model's groups so that AUTO keeps it off seats of models of higher priority.

    OpenVINO's rule: such devices are left out, and where none is left, it is the last one. Here
    those that were left out come after the others, for a model that the others refuse. Models that
    are loaded already stay where they are.

    Args:
        groups: where the model could go, the most preferred group first.
        request: the model; one that is not placed by AUTO, or on all devices, goes as it is.
        taken: the highest priority of the models that each seat serves already.
    """
    is_one_of_many = (
        request.device.selection is Selection.AUTO
        and request.options.hint is not PerformanceHint.CUMULATIVE_THROUGHPUT
    )
    if not is_one_of_many:
        return [list(group) for group in groups]
    level = request.auto.model_priority.level

    def is_free(seat: Seat) -> bool:
        return seat not in taken or taken[seat].level <= level

    free = [kept for group in groups if (kept := [seat for seat in group if is_free(seat)])]
    left_out = [kept for group in groups if (kept := [seat for seat in group if not is_free(seat)])]
    return free + left_out if free else left_out[::-1]
