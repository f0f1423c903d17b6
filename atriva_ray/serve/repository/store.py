"""`ModelRepository`: models where they lie, on this machine or in an object store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.layout import (
    RepositoryModel,
    broken_model,
    check_name,
    list_file,
    list_model,
    list_models,
    without_clashes,
)
from atriva_ray.serve.repository.ovms import OVMS_NAME, OvmsConfig, OvmsModel, parse_ovms
from atriva_ray.serve.repository.remote import ModelCache, is_remote_file, is_url, read_remote
from atriva_ray.serve.repository.settings_file import MAX_DOCUMENT_BYTES
from atriva_ray.serve.repository.tree import Tree, join, printable, read_local
from atriva_ray.serve.repository.version_files import (
    ModelVersion,
    companion_of,
    is_model_name,
    stem,
)

__all__ = ["Listing", "ModelRepository", "open_model", "open_repository"]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository held when somebody looked.

    Attributes:
        models: its models, sorted by name.
        warnings: what it asks for as a whole, and is not honoured.
    """

    models: tuple[RepositoryModel, ...]
    warnings: tuple[str, ...] = ()


class ModelRepository:
    """Models that can be looked for, and fetched to be loaded. Everything blocks.

    `open_repository` and `open_model` make one.

    Args:
        location: where the models are, for messages.
        look: looks for them.
        cache: where copies of what is not on this machine's disk are kept; it stays open when the
            repository is closed. None for a temporary one, which goes with the repository.
    """

    def __init__(
        self, location: str, look: Callable[[], Listing], cache: ModelCache | None = None
    ) -> None:
        self.location = location
        self._look = look
        self._cache = cache
        self._owns_cache = cache is None

    def look(self) -> Listing:
        """Return what is there now.

        Raises:
            RepositoryError: the repository itself cannot be read. What is wrong with one model is
                listed with it.
        """
        return self._look()

    def fetch(self, version: ModelVersion) -> Path:
        """Return where a version can be loaded from; it stays there until it is released.

        What is on this machine's disk is used in place.

        Raises:
            RepositoryError: it cannot be downloaded.
        """
        if not is_url(version.folder):
            return Path(version.path)
        if self._cache is None:
            self._cache = ModelCache()
        return self._cache.fetch(version)

    def release(self, version: ModelVersion) -> None:
        """Say that a version that was fetched is not used any more."""
        if self._cache is not None and is_url(version.folder):
            self._cache.release(version)

    def close(self) -> None:
        """Remove the copies, if the cache is temporary; safe to call again."""
        if self._owns_cache and self._cache is not None:
            self._cache.close()
            self._cache = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


def open_repository(
    location: str, *, allow_links_outside: bool = False, cache: ModelCache | None = None
) -> ModelRepository:
    """Open a folder of models. Nothing is looked at yet.

    Args:
        location: path or URL of a folder, or of an OpenVINO Model Server configuration
            (``….json``). A folder with such a ``config.json`` holds the models named there.
        allow_links_outside: whether symbolic links may lead to what is not below the folder.
        cache: where copies of what is not on this machine's disk are kept; see `ModelRepository`.

    Raises:
        RepositoryError: the URL is none that can be opened.
    """
    place = _local(location)
    folder, _, name = place.rpartition("/")
    if name.lower().endswith(".json"):
        look = _Looker(folder or "/", name, allow_links_outside)
    else:
        look = _Looker(place, "", allow_links_outside)
    return ModelRepository(location, look.repository, cache)


def open_model(
    argument: str, *, allow_links_outside: bool = False, cache: ModelCache | None = None
) -> ModelRepository:
    """Open one model as a repository of its own. Nothing is looked at yet.

    Args:
        argument: path or URL of a model file, or of a folder that is laid out as a model; with the
            model's name in front, ``NAME=PATH``, or it is called what the file or folder is.
        allow_links_outside: whether symbolic links may lead to what is not below the folder; those
            of a file that is named itself always may.
        cache: where copies of what is not on this machine's disk are kept; see `ModelRepository`.

    Raises:
        RepositoryError: the name is none that clients can use, or the URL none that can be opened.
    """
    name, equals, path = argument.partition("=")
    # A path may have an equals sign in it: it is a name only if it could be one.
    if not equals or "/" in name or _exists(argument):
        name, path = "", argument
    place = _local(path)
    if not place:
        raise RepositoryError(argument, "it names no file and no folder")
    if not name:
        last = Path(place).resolve().name if place.endswith("..") else PurePosixPath(place).name
        name = stem(last) if is_model_name(last) else last
    check_name(name, argument)
    look = _Looker(place, "", allow_links_outside)
    return ModelRepository(path, lambda: look.model(name), cache)


@dataclass(frozen=True, slots=True)
class _Looker:
    """Looks at a place: what it is, is found out each time.

    Attributes:
        place: a path or a URL, never of the scheme ``file``.
        config: name of the configuration in it, where that was named itself.
        allow_links_outside: as in `open_repository`.
    """

    place: str
    config: str
    allow_links_outside: bool

    def repository(self) -> Listing:
        """Return all models of a repository."""
        tree = _read(
            self.place, self.allow_links_outside, self.config.__eq__ if self.config else None
        )
        config = self._read_config(tree)
        if config is None:
            return Listing(list_models(tree))
        models = without_clashes(self._configured(each) for each in config.models)
        return Listing(models, config.warnings)

    def model(self, name: str) -> Listing:
        """Return the one model that this is."""
        if not self._is_file():
            return Listing((list_model(_read(self.place, self.allow_links_outside), "", name),))
        folder, _, file = self.place.rpartition("/")
        # Who names a file means what it leads to, wherever that is.
        tree = _read(folder or "/", True, companion_of(file))
        return Listing((list_file(tree, file, name),))

    def _is_file(self) -> bool:
        if is_url(self.place):
            return is_remote_file(self.place)
        return Path(self.place).is_file()

    def _read_config(self, tree: Tree) -> OvmsConfig | None:
        name = self.config or OVMS_NAME
        if not self.config and (name not in tree or tree[name].is_folder):
            return None
        path = tree.url(name)
        config = parse_ovms(tree.read_text(name, MAX_DOCUMENT_BYTES), path)
        if config is None and self.config:
            raise RepositoryError(path, "it has no 'model_config_list'")
        return config

    def _configured(self, model: OvmsModel) -> RepositoryModel:
        name = printable(model.name)
        if model.problem:
            return broken_model(name, model.problem)
        try:
            check_name(model.name, self.place)
            tree = _read(self._base(model.base_path), self.allow_links_outside)
        except RepositoryError as error:
            return broken_model(name, f"{printable(error.path)}: {error.reason}")
        found = list_model(tree, "", name, model.settings)
        return replace(found, warnings=(*model.warnings, *found.warnings))

    def _base(self, base_path: str) -> str:
        """Return where the versions of a model are that a configuration names.

        Who configures this machine may name any folder on it; who writes to a bucket may not.
        """
        if not is_url(self.place):
            is_far = is_url(base_path)
            return _local(base_path) if is_far else str(Path(self.place, base_path).expanduser())
        path = PurePosixPath(base_path)
        if is_url(base_path) and is_url(_local(base_path)):
            return base_path
        if is_url(base_path) or path.is_absolute() or ".." in path.parts:
            reason = "a configuration that is not on this machine cannot name its folders"
            raise RepositoryError(base_path, reason)
        return join(self.place, str(path))


def _read(place: str, allow_links_outside: bool, only: Callable[[str], bool] | None = None) -> Tree:
    if is_url(place):
        return read_remote(place, only=only)
    return read_local(Path(place), allow_links_outside=allow_links_outside, only=only)


def _local(location: str) -> str:
    """Return the path that a ``file`` URL stands for, and anything else as it is."""
    if "\0" in location:
        raise RepositoryError(printable(location), "no path has a NUL in it")
    if not is_url(location):
        return str(Path(location).expanduser().absolute()) if location else ""
    if not location.lower().startswith("file://"):
        return location.rstrip("/") if not location.endswith("://") else location
    host, slash, rest = location[len("file://") :].partition("/")
    if host not in ("", "localhost") or not slash:
        raise RepositoryError(location, "it names another machine; write file:///folder")
    return str(Path(unquote(slash + rest)))


def _exists(argument: str) -> bool:
    try:
        return not is_url(argument) and Path(argument).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False
