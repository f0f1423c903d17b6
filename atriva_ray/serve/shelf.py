"""Everything that a server can load: a repository, and models that were named one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from atriva_inference.errors import OptionError
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.layout import RepositoryModel, broken_model, without_clashes
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.store import ModelRepository, open_model, open_repository
from atriva_ray.serve.repository.version_files import ModelVersion
from atriva_ray.serve.settings import ServeSettings

__all__ = ["ServedShelf", "open_shelf"]


class ServedShelf:
    """The models of several places. Everything blocks; for one thread at a time."""

    def __init__(
        self,
        repository: ModelRepository | None,
        models: Mapping[str, ModelRepository],
        overrides: Mapping[str, Any],
    ) -> None:
        """Put places together; nothing is looked at yet.

        Args:
            repository: a folder of models.
            models: single models, by what they were named as.
            overrides: settings of the single models, which come before their own.
        """
        self._repository = repository
        self._models = dict(models)
        self._overrides = dict(overrides)
        self._owners: dict[str, ModelRepository] = {}

    def look(self) -> tuple[RepositoryModel, ...]:
        """Return what is there now; what is wrong with a model is told with it.

        Raises:
            RepositoryError: the repository itself cannot be read.
        """
        found: list[RepositoryModel] = []
        owners: dict[str, ModelRepository] = {}
        if self._repository is not None:
            for model in self._repository.look().models:
                found.append(model)
                owners[model.name] = self._repository
        for named, single in self._models.items():
            for model in _looked_at(named, single):
                found.append(self._overridden(model))
                owners[model.name] = single
        self._owners = owners
        return without_clashes(found)

    def fetch(self, model: RepositoryModel, version: ModelVersion) -> Path:
        """Return a path of this machine from which a version can be loaded.

        Raises:
            RepositoryError: it cannot be downloaded.
        """
        return self._owners[model.name].fetch(version)

    def close(self) -> None:
        """Remove copies of what was fetched."""
        for each in (self._repository, *self._models.values()):
            if each is not None:
                each.close()

    def _overridden(self, model: RepositoryModel) -> RepositoryModel:
        try:
            return replace(model, settings=replace(model.settings, **self._overrides))
        except OptionError as error:
            return broken_model(model.name, str(error))


def open_shelf(settings: ServeSettings) -> ServedShelf:
    """Open what a server is told to serve.

    Raises:
        RepositoryError: a name is none that clients can use, or a URL none that can be opened.
        OptionError: a setting of the models is not acceptable.
    """
    try:
        ModelSettings(**settings.model)
    except TypeError as error:
        raise OptionError("model", str(settings.model), f"settings of a model ({error})") from None
    repository = None if settings.repository is None else open_repository(settings.repository)
    models = {argument: open_model(argument) for argument in settings.models}
    return ServedShelf(repository, models, settings.model)


def _looked_at(named: str, single: ModelRepository) -> tuple[RepositoryModel, ...]:
    try:
        return single.look().models
    except RepositoryError as error:
        name = named.partition("=")[0] if "=" in named else Path(named).stem
        return (broken_model(name, error.reason),)
