"""``config.json``: the models that an OpenVINO Model Server configuration names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from atriva_inference.errors import OptionError
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.tree import printable

__all__ = ["OVMS_NAME", "OvmsConfig", "OvmsModel", "parse_ovms"]

OVMS_NAME = "config.json"

_MODELS = "model_config_list"
_PIPELINES = ("pipeline_config_list", "mediapipe_config_list")
_READ = {"name", "base_path", "target_device", "plugin_config", "model_version_policy", "stateful"}
_HINT = "PERFORMANCE_HINT"


@dataclass(frozen=True, slots=True)
class OvmsModel:
    """One model that a configuration names.

    Attributes:
        name: what it is called.
        base_path: the folder of its versions, as the configuration has it.
        settings: what is asked for.
        problem: why it cannot be served; empty if it can.
        warnings: what is asked for and not honoured.
    """

    name: str
    base_path: str
    settings: ModelSettings
    problem: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OvmsConfig:
    """What a configuration says.

    Attributes:
        models: what it names, in its order.
        warnings: what it asks for besides, and does not get.
    """

    models: tuple[OvmsModel, ...]
    warnings: tuple[str, ...]


def parse_ovms(text: str, path: str) -> OvmsConfig | None:
    """Read a ``config.json``.

    Args:
        text: the document.
        path: where it is from, for messages.

    Returns:
        What it says; None if it is some other JSON document.

    Raises:
        RepositoryError: it cannot be read, or its list of models is no such list.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise RepositoryError(path, f"line {error.lineno}: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise RepositoryError(path, f"it cannot be read: {error}") from error
    if not isinstance(document, Mapping) or not {_MODELS, *_PIPELINES} & set(document):
        return None
    models = [
        _model(each, path, index) for index, each in enumerate(_list(document, _MODELS, path))
    ]
    for key in _PIPELINES:
        models += [_pipeline(each, path, key) for each in _list(document, key, path)]
    others = [key for key in document if key not in (_MODELS, *_PIPELINES) and document[key]]
    warnings = tuple(f"{path}: {printable(key)!r} is not honoured" for key in others)
    return OvmsConfig(tuple(models), warnings)


def _list(document: Mapping[str, Any], key: str, path: str) -> list[Any]:
    entries = document.get(key) or []
    if not isinstance(entries, list):
        raise RepositoryError(path, f"{key!r} is no list")
    return entries


def _model(entry: Any, path: str, index: int) -> OvmsModel:
    config = entry.get("config") if isinstance(entry, Mapping) else None
    where = f"{path}: {_MODELS}[{index}]"
    if not isinstance(config, Mapping):
        return _refused("", f"{where} has no 'config'")
    name, base_path = config.get("name"), config.get("base_path")
    if not isinstance(name, str) or not name:
        return _refused("", f"{where} has no 'name'")
    where = f"{path}: {printable(name)!r}"
    if not isinstance(base_path, str) or not base_path or "\0" in base_path:
        return _refused(name, f"{where} has no 'base_path'")
    if config.get("stateful"):
        return _refused(name, f"{where} keeps state between requests (stateful)")
    try:
        settings = _settings(config)
    except OptionError as error:
        return _refused(name, f"{where}: {error}")
    warnings = tuple(
        f"{where}: {printable(key)!r} is not honoured" for key in config if key not in _READ
    )
    return OvmsModel(name, base_path, settings, "", warnings)


def _settings(config: Mapping[str, Any]) -> ModelSettings:
    values: dict[str, Any] = {}
    if "target_device" in config:
        values["device"] = config["target_device"]
    if "plugin_config" in config:
        properties = config["plugin_config"]
        if isinstance(properties, Mapping):
            properties = dict(properties)
            if _HINT in properties:
                values["hint"] = properties.pop(_HINT)
        values["config"] = properties
    if "model_version_policy" in config:
        values["versions"] = _versions(config["model_version_policy"])
    return replace(ModelSettings(), **values)


def _versions(policy: Any) -> Any:
    """Return a policy as `VersionPolicy.parse` takes it; what is none is left to it to refuse."""
    match policy:
        case {"all": _}:
            return "all"
        case {"specific": {"versions": numbers}}:
            return numbers
        case {"latest": {"num_versions": count}}:
            return {"latest": count}
        case {"latest": {}}:
            return "latest"
    return policy


def _pipeline(entry: Any, path: str, key: str) -> OvmsModel:
    name = entry.get("name") if isinstance(entry, Mapping) else None
    name = name if isinstance(name, str) else ""
    return _refused(
        name, f"{path}: {printable(name)!r} of {key!r} is a graph of models; call them one by one"
    )


def _refused(name: str, problem: str) -> OvmsModel:
    return OvmsModel(name, "", ModelSettings(), problem)
