"""What to load and to unload when a repository has changed; nothing is read here.

A server that watches its repository looks at it again and again, and for each look does::

    wanted = settle(look, before, served)
    changes = difference(served, wanted)
    ...                                     # load, then reload, then unload
    before, served = look, wanted

What failed to load stays in `served`, so that it is tried again when its files change, and not at
each look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from atriva_ray.serve.repository.layout import RepositoryModel
from atriva_ray.serve.repository.settings import ModelSettings
from atriva_ray.serve.repository.version_files import ModelVersion

__all__ = ["Changes", "Served", "Target", "applied", "difference", "settle", "targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """One version of one model, as it is to be served.

    Attributes:
        name: the model's.
        version: which one, and where it is.
        settings: how; without a version policy, which says nothing of a single version.
    """

    name: str
    version: ModelVersion
    settings: ModelSettings

    @property
    def key(self) -> tuple[str, int]:
        """Name and version number: of two targets with the same, only one can be served."""
        return self.name, self.version.version


Served: TypeAlias = Mapping[tuple[str, int], Target]
"""What is served, or is to be, by name and version number."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What to do, in this order, so that a model is not without a version in between.

    Attributes:
        load: versions that are new.
        reload: versions whose files or settings are others than before, as they are now.
        unload: versions that are not to be served any more, as they were.
    """

    load: tuple[Target, ...] = ()
    reload: tuple[Target, ...] = ()
    unload: tuple[Target, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.load or self.reload or self.unload)


def targets(models: Iterable[RepositoryModel]) -> dict[tuple[str, int], Target]:
    """Return what is to be served of a listing that is taken as it is, for a server's start."""
    found = [each for model in models for each in _targets(model, model.chosen)]
    return {each.key: each for each in found}


def difference(old: Served, new: Served) -> Changes:
    """Return what makes the new of the old; each part sorted by name and version."""
    return Changes(
        tuple(new[key] for key in sorted(new.keys() - old.keys())),
        tuple(new[key] for key in sorted(new.keys() & old.keys()) if new[key] != old[key]),
        tuple(old[key] for key in sorted(old.keys() - new.keys())),
    )


def applied(old: Served, changes: Changes) -> dict[tuple[str, int], Target]:
    """Return what is served when the changes have been made."""
    gone = {each.key for each in changes.unload}
    kept = {key: each for key, each in old.items() if key not in gone}
    return kept | {each.key: each for each in (*changes.load, *changes.reload)}


def settle(
    look: Iterable[RepositoryModel], before: Iterable[RepositoryModel], served: Served
) -> dict[tuple[str, int], Target]:
    """Return what is to be served, of what two looks in a row agree upon.

    Files that are being copied look different each time. So a version is taken when it looks, and
    its settings look, as they did before. Until then what is served already stays: also while a
    version is half-written or the model's settings cannot be read, and for one look after it is
    gone.

    Args:
        look: the models now.
        before: the models the last time.
        served: what is served.
    """
    now = {model.name: model for model in look}
    then = {model.name: model for model in before}
    wanted: dict[tuple[str, int], Target] = {}
    for name in now.keys() | then.keys():
        own = {key: each for key, each in served.items() if key[0] == name}
        wanted |= _settle_model(now.get(name), then.get(name), own)
    return wanted


def _settle_model(
    now: RepositoryModel | None, then: RepositoryModel | None, own: Served
) -> dict[tuple[str, int], Target]:
    # Gone since the last look, perhaps until the next; or not known, now or then, as a whole.
    if now is None or then is None or now.is_broken or then.is_broken:
        return dict(own)
    if now.settings != then.settings:
        return dict(own)
    seen = {each.key: each for each in _targets(then, then.versions)}
    settled = {each.key: each for each in _targets(now, now.versions) if seen.get(each.key) == each}
    numbers = _numbers(now) | _numbers(then)
    held = {key: each for key, each in own.items() if key[1] in numbers}
    candidates = {**held, **settled}
    chosen = now.settings.versions.choose(key[1] for key in candidates)
    return {key: each for key, each in candidates.items() if key[1] in chosen}


def _targets(model: RepositoryModel, versions: Iterable[ModelVersion]) -> Iterator[Target]:
    settings = model.settings.with_every_version()
    return (Target(model.name, each, settings) for each in versions)


def _numbers(model: RepositoryModel) -> set[int]:
    ready = {each.version for each in model.versions}
    return ready | {each.version for each in model.unready}
