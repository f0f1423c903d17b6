"""`ModelSettings`: how one model of a repository is to be served."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from atriva_inference.device import DeviceSpec
from atriva_inference.errors import OptionError
from atriva_inference.options import PerformanceHint
from atriva_inference.preprocess import Preprocessing, check_preprocessing
from atriva_ray.counts import MAX_REPLICAS, check_idle, check_replicas
from atriva_ray.serve.repository.versions import VersionPolicy

__all__ = ["ANY_OUTPUT", "BACKENDS", "ModelSettings"]

BACKENDS = ("openvino", "onnxruntime", "tensorrt")
ANY_OUTPUT = ""
"""Key of the labels that belong to no output in particular."""

_BATCHING = ("auto", "off")
_RANGE = re.compile(r"\s*([0-9]{1,6})\s*-\s*([0-9]{1,6})\s*")
_MAX_CPUS = 4_096
_MAX_TOP_K = 100_000
_MAX_WAITING = 10_000_000
_MAX_BATCH_SIZE = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """How a model is to be served.

    Values are taken as a YAML document or a command line writes them, and are then what the
    attributes say: hints and choices in any case, a mapping for the preprocessing, and so on.

    Attributes:
        device: device expression, as for `InferenceRuntime.load_model`.
        backend: which library runs it.
        replicas: how many, or ``auto``, or the least and the most, as load needs: ``1-4``.
        hint: what to optimise for.
        config: backend properties by name. Not to be changed.
        preprocessing: what is built into the model, so that it takes pixels.
        labels: names of the classes, in their order, by the output that they belong to;
            `ANY_OUTPUT` for outputs that have none of their own. Not to be changed.
        top_k: how many classes an answer with labels names.
        max_waiting: requests that may wait for the model; None leaves it to the server.
        max_batch_size: rows that one request may have; None leaves it to the model.
        cpus_per_replica: CPUs of each replica on a processor; None shares what is free.
        versions: which versions are served at the same time.
        batching: ``auto``: requests that wait run together where that is safe and pays; or ``off``.
        idle_s: seconds without a request after which the replicas end until the next one; None:
            they stay.

    Raises:
        OptionError: a value is not one of the choices.
    """

    device: str = "AUTO"
    backend: str = "openvino"
    replicas: int | str | tuple[int, int] = "auto"
    hint: PerformanceHint = PerformanceHint.ADAPTIVE
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    top_k: int = 5
    max_waiting: int | None = None
    max_batch_size: int | None = None
    cpus_per_replica: int | None = None
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    batching: str = "auto"
    idle_s: float | None = None

    def __post_init__(self) -> None:
        DeviceSpec.parse(self.device)
        for name, value in (
            ("backend", _choice("backend", self.backend, BACKENDS)),
            ("replicas", _replicas(self.replicas)),
            ("hint", _hint(self.hint)),
            ("config", _config(self.config)),
            ("preprocessing", check_preprocessing(self.preprocessing)),
            ("labels", _labels(self.labels)),
            ("top_k", _count("top_k", self.top_k, _MAX_TOP_K)),
            ("max_waiting", _optional("max_waiting", self.max_waiting, _MAX_WAITING)),
            ("max_batch_size", _optional("max_batch_size", self.max_batch_size, _MAX_BATCH_SIZE)),
            ("cpus_per_replica", _optional("cpus_per_replica", self.cpus_per_replica, _MAX_CPUS)),
            ("versions", VersionPolicy.parse(self.versions)),
            ("batching", _choice("batching", self.batching, _BATCHING)),
            ("idle_s", check_idle(self.idle_s)),
        ):
            object.__setattr__(self, name, value)

    def labels_of(self, output: str) -> tuple[str, ...]:
        """Return the names of an output's classes; empty if it has none."""
        return self.labels.get(output, self.labels.get(ANY_OUTPUT, ()))

    def with_every_version(self) -> ModelSettings:
        """Return the same without its version policy, which makes no difference to a replica."""
        return replace(self, versions=VersionPolicy(latest=None))


def _choice(option: str, value: object, choices: tuple[str, ...]) -> str:
    text = value.strip().lower() if isinstance(value, str) else ""
    if text not in choices:
        raise OptionError(option, str(value), f"one of {', '.join(choices)}")
    return text


def _hint(value: str) -> PerformanceHint:
    try:
        return PerformanceHint.parse(value)
    except OptionError as error:
        raise OptionError("hint", error.value, error.expected) from None


def _replicas(value: object) -> int | str | tuple[int, int]:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    pair = _RANGE.fullmatch(value) if isinstance(value, str) else None
    wanted = value if pair is None else (int(pair[1]), int(pair[2]))
    try:
        least, most = check_replicas(wanted)
    except OptionError:
        expected = (
            f"'auto' or a whole number from 1 to {MAX_REPLICAS:,}, or the least and the most: 1-4"
        )
        raise OptionError("replicas", str(value), expected) from None
    assert least is not None, "it is not 'auto'"  # noqa: S101
    return least if most is None else (least, most)


def _optional(option: str, value: object, limit: int) -> int | None:
    return None if value is None else _count(option, value, limit)


def _count(option: str, value: object, limit: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise OptionError(option, str(value), f"a whole number from 1 to {limit:,}")
    return value


def _config(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        try:
            json.dumps(dict(value), allow_nan=False)  # dates and sets are no backend's properties
        except (TypeError, ValueError):
            pass
        else:
            return dict(value)
    raise OptionError("config", str(value), "a mapping of property names to plain values")


def _labels(value: object) -> dict[str, tuple[str, ...]]:
    given: Mapping[Any, Any] = value if isinstance(value, Mapping) else {ANY_OUTPUT: value}
    labels: dict[str, tuple[str, ...]] = {}
    for output, names in given.items():
        is_list = isinstance(names, (list, tuple)) and all(isinstance(each, str) for each in names)
        if not is_list or not isinstance(output, str):
            expected = "a list of names, or one for each output's name"
            raise OptionError("labels", str(value), expected)
        if names:
            labels[output] = tuple(names)
    return labels
