"""An inference request and its answer as the protocol means them, whichever way they travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = [
    "InferAnswer",
    "InferRequest",
    "InputTensor",
    "OutputTensor",
    "ParameterValue",
    "RequestedOutput",
]

ParameterValue: TypeAlias = bool | int | float | str


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input.

    Attributes:
        name: which one.
        datatype: as the protocol names it, ``FP32`` for example.
        array: its elements, in the shape that the client gave; see
            `atriva_ray.serve.protocol.datatypes` for which dtype each datatype has. It may be a
            view of the bytes that were received, and then cannot be written to.
        parameters: the client's, without those that only say how the elements travelled.
    """

    name: str
    datatype: str
    array: npt.NDArray[Any]
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that the client wants.

    Attributes:
        name: which one.
        is_binary: whether its elements are to travel as bytes. None: as the request says for all.
        class_count: if positive, the best that many entries are wanted as text
            ``score:index:label``, as Triton's classification extension has it.
        parameters: the client's other ones.
    """

    name: str
    is_binary: bool | None = None
    class_count: int = 0
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What a client asks for; the model and its version are in the address it sends this to.

    Attributes:
        inputs: in the client's order.
        outputs: those that are wanted, in that order. Empty: all.
        id: to be repeated in the answer; empty: none.
        is_binary_wanted: whether outputs travel as bytes unless they say otherwise.
        timeout_s: how long the client will wait. None: it did not say.
        priority: 0 if the client did not say.
        parameters: the client's other ones.
    """

    inputs: tuple[InputTensor, ...]
    outputs: tuple[RequestedOutput, ...] = ()
    id: str = ""
    is_binary_wanted: bool = False
    timeout_s: float | None = None
    priority: int = 0
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output.

    Attributes:
        name: which one.
        datatype: as the protocol names it.
        array: its elements.
        labels: names of the classes that it scores, by index; it may have none.
    """

    name: str
    datatype: str
    array: np.ndarray[Any, np.dtype[Any]]
    labels: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """What a model answered.

    Attributes:
        model_name: which model.
        model_version: which version of it; empty if it has none.
        outputs: in the order that the client asked for.
        id: the request's.
    """

    model_name: str
    model_version: str
    outputs: tuple[OutputTensor, ...]
    id: str = ""
