"""`RepositoryModel`: the models in a folder, however their files are laid out.

::

    repository/
    ├── resnet/                  a model, called by its folder's name
    │   ├── model.yaml           how it is served (all of it optional)
    │   ├── config.pbtxt         the same in Triton's words; model.yaml has the last one
    │   ├── labels.txt
    │   ├── 1/model.onnx         versions: one model in each, under any name
    │   ├── 2/net.xml, net.bin
    │   └── 3/model.savedmodel/saved_model.pb, or 3/saved_model.pb
    ├── yolo/model.onnx          without version folders: version 1
    └── digits.tflite            so is a file, which has no settings
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.settings_file import (
    MAX_DOCUMENT_BYTES,
    SETTINGS_NAME,
    parse_settings,
)
from atriva_ray.serve.repository.tree import Tree, join, printable
from atriva_ray.serve.repository.triton import CONFIG_NAME, parse_triton
from atriva_ray.serve.repository.version_files import (
    ModelVersion,
    UnreadyVersion,
    companion_of,
    find_version,
    is_model_name,
    stem,
)
from atriva_ray.serve.repository.versions import version_number

__all__ = [
    "RepositoryModel",
    "broken_model",
    "check_name",
    "list_file",
    "list_model",
    "list_models",
    "without_clashes",
]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~-]{0,127}")
_MAX_LABEL_BYTES = 16 * 1024 * 1024
_SETTINGS = (SETTINGS_NAME, CONFIG_NAME)


@dataclass(frozen=True, slots=True)
class RepositoryModel:
    """A model of a repository, as it was when somebody looked.

    Attributes:
        name: what clients call it.
        settings: how it is to be served.
        versions: all that could be loaded, in ascending order.
        problems: why the model, or some version of it, cannot be served.
        warnings: what was asked for and is not honoured.
        unready: versions that are there and cannot be loaded, at least not yet.
    """

    name: str
    settings: ModelSettings = field(default_factory=ModelSettings)
    versions: tuple[ModelVersion, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    unready: tuple[UnreadyVersion, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether nothing is known of its versions, because of its problems."""
        return bool(self.problems) and not self.versions and not self.unready

    @property
    def chosen(self) -> tuple[ModelVersion, ...]:
        """The versions that are to be served, of those that could be loaded."""
        numbers = self.settings.versions.choose(each.version for each in self.versions)
        return tuple(each for each in self.versions if each.version in numbers)


def list_models(tree: Tree) -> tuple[RepositoryModel, ...]:
    """Return the models of a repository, sorted by name.

    What is wrong with one of them is told with it, and keeps none of the others away.

    Raises:
        RepositoryError: this is one model rather than a folder of models.
    """
    _check_is_repository(tree)
    models = [_in_folder(tree, folder) for folder in tree.folders("")]
    models += [
        list_file(tree, file, printable(stem(file)))
        for file in tree.files("")
        if is_model_name(file)
    ]
    return without_clashes(models)


def list_model(
    tree: Tree, folder: str, name: str, base: ModelSettings | None = None
) -> RepositoryModel:
    """Return the model in a folder.

    Args:
        tree: what there is.
        folder: where the model is, relative to the tree.
        name: what the model is called.
        base: what is asked for already, and comes before what ``config.pbtxt`` says.
    """
    try:
        check_name(name, tree.url(folder))
        return _read_model(tree, folder, name, base)
    except RepositoryError as error:
        return broken_model(name, f"{printable(error.path)}: {error.reason}")


def list_file(tree: Tree, file: str, name: str) -> RepositoryModel:
    """Return the model that a single file is, as version 1."""
    try:
        check_name(name, tree.url(file))
    except RepositoryError as error:
        return broken_model(name, f"{printable(error.path)}: {error.reason}")
    folder, _, file_name = file.rpartition("/")
    takes = companion_of(file_name)
    found = find_version(tree, folder, 1, default_name=file_name, takes=takes)
    return _with_versions(name, ModelSettings(), [found], [])


def broken_model(name: str, problem: str) -> RepositoryModel:
    """Return a model of which nothing is known but why it cannot be served."""
    return RepositoryModel(name, problems=(problem,))


def check_name(name: str, path: str) -> None:
    """See that clients can write a model's name into a URL.

    Raises:
        RepositoryError: they cannot.
    """
    if not _NAME.fullmatch(name):
        reason = (
            f"{printable(name)!r} is no name for a model: up to 128 of A-Z a-z 0-9 _ - . ~ are, "
            "with a letter, a digit or _ in front; rename it, or say NAME=PATH"
        )
        raise RepositoryError(path, reason)


def without_clashes(models: Iterable[RepositoryModel]) -> tuple[RepositoryModel, ...]:
    """Return the models sorted by name; of those that share one, none can be served."""
    listed = sorted(models, key=lambda model: model.name)
    counts = Counter(model.name for model in listed)
    kept = {}
    for model in listed:
        if counts[model.name] == 1:
            kept[model.name] = model
        elif model.name not in kept:
            same = [each for each in listed if each.name == model.name]
            homes = sorted({version.path for each in same for version in each.versions})
            where = f": {', '.join(map(printable, homes))}" if homes else ""
            problem = f"{counts[model.name]} models are called {model.name!r}{where}; rename them"
            kept[model.name] = broken_model(model.name, problem)
    return tuple(kept.values())


def _in_folder(tree: Tree, folder: str) -> RepositoryModel:
    model = list_model(tree, folder, folder)
    if model.name == printable(model.name):
        return model
    return broken_model(printable(folder), model.problems[0])


def _check_is_repository(tree: Tree) -> None:
    folders = tree.folders("")
    is_model = any(name in tree for name in (*_SETTINGS, "saved_model.pb")) or (
        bool(folders) and all(version_number(name) is not None for name in folders)
    )
    if is_model:
        reason = "it is a model rather than a folder of models; name it as a model, as NAME=PATH"
        raise RepositoryError(tree.location, reason)


def _read_model(tree: Tree, folder: str, name: str, base: ModelSettings | None) -> RepositoryModel:
    if tree[folder].trouble:
        raise RepositoryError(tree.url(folder), tree[folder].trouble)
    warnings: list[str] = []
    default_name = ""
    read_labels = _label_reader(tree, folder)
    settings = base
    triton_file, settings_file = (join(folder, each) for each in _SETTINGS[::-1])
    if triton_file in tree:
        path = tree.url(triton_file)
        if base is not None:
            warnings.append(f"{path} is not read: the configuration that names the model counts")
        else:
            text = tree.read_text(triton_file, MAX_DOCUMENT_BYTES)
            config = parse_triton(text, path, name, read_labels)
            settings, default_name = config.settings, config.default_name
            warnings += config.warnings
    if settings_file in tree:
        text = tree.read_text(settings_file, MAX_DOCUMENT_BYTES)
        settings = parse_settings(text, tree.url(settings_file), read_labels, settings)
    found = _find_versions(tree, folder, default_name, warnings)
    return _with_versions(name, settings or ModelSettings(), found, warnings)


def _find_versions(
    tree: Tree, folder: str, default_name: str, warnings: list[str]
) -> list[ModelVersion | UnreadyVersion]:
    numbers = {}
    for each in tree.folders(folder):
        number = version_number(each)
        if number is not None:
            numbers[number] = join(folder, each)
        elif each.isascii() and each.isdigit():
            path = tree.url(join(folder, each))
            warnings.append(f"{path} is no version: they count from 1, without leading zeros")
    if not numbers:
        is_own = _is_no_setting
        return [find_version(tree, folder, 1, default_name=default_name, takes=is_own)]
    for each in tree.files(folder):
        if is_model_name(each):
            path = tree.url(join(folder, printable(each)))
            warnings.append(f"{path} is not served: there are folders of versions beside it")
    return [
        find_version(tree, numbers[number], number, default_name=default_name)
        for number in sorted(numbers)
    ]


def _is_no_setting(path: str) -> bool:
    return path not in _SETTINGS


def _with_versions(
    name: str,
    settings: ModelSettings,
    found: Iterable[ModelVersion | UnreadyVersion],
    warnings: Iterable[str],
) -> RepositoryModel:
    ready, unready = [], []
    for each in found:
        if isinstance(each, ModelVersion):
            ready.append(each)
        else:
            unready.append(each)
    problems = tuple(
        f"version {each.version}: {each.reason}" for each in unready if each.is_problem
    )
    return RepositoryModel(name, settings, tuple(ready), problems, tuple(warnings), tuple(unready))


def _label_reader(tree: Tree, folder: str) -> Callable[[str], tuple[str, ...]]:
    def read(name: str) -> tuple[str, ...]:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            reason = f"the labels {printable(name)!r} are not below the model's folder"
            raise RepositoryError(tree.url(folder), reason)
        try:
            text = tree.read_text(join(folder, str(path)), _MAX_LABEL_BYTES)
        except RepositoryError as error:
            reason = f"the labels {printable(name)!r}: {error.reason}"
            raise RepositoryError(tree.url(folder), reason) from error
        # A line in the middle may be empty: what counts is the number of the line.
        return tuple(line.strip() for line in text.rstrip().split("\n")) if text.strip() else ()

    return read
