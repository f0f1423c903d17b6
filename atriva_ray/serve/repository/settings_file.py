"""`model.yaml`: a model's settings as a document, read with the line of whatever is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import yaml

from atriva_inference.errors import OptionError
from atriva_ray.errors import RepositoryError
from atriva_ray.serve.repository.settings import ModelSettings

__all__ = ["MAX_DOCUMENT_BYTES", "SETTINGS_NAME", "nearest", "parse_settings"]

SETTINGS_NAME = "model.yaml"
MAX_DOCUMENT_BYTES = 1024 * 1024

_KEYS = tuple(each.name for each in fields(ModelSettings))
_SHOWN = 80
_AS_WRITTEN = ("batching",)
"""Where YAML would take ``off`` for False."""


def parse_settings(
    text: str,
    path: str,
    read_labels: Callable[[str], tuple[str, ...]],
    base: ModelSettings | None = None,
) -> ModelSettings:
    """Read what a ``model.yaml`` says.

    Aliases (``*name``) are refused: a few lines of them can stand for gigabytes. Labels in a list
    are taken as they are written, so that ``no`` and ``1.0`` need no quotes.

    Args:
        text: the document; an empty one says nothing.
        path: where it is from, for messages.
        read_labels: reads a file of labels, by the path in the document.
        base: what holds where the document says nothing; None for the defaults.

    Raises:
        RepositoryError: it is too large, no YAML, or says what is not acceptable.
    """
    if len(text.encode(errors="surrogateescape")) > MAX_DOCUMENT_BYTES:
        raise RepositoryError(path, f"it is larger than {MAX_DOCUMENT_BYTES:,} bytes")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        settings = base or ModelSettings()
        if root is None or root.tag.endswith(":null"):
            return settings
        for key, line, node in _items(root, path):
            try:
                value = _value(loader, key, node, read_labels)
                settings = replace(settings, **{key: value})
            except OptionError as error:
                raise RepositoryError(path, f"line {line}: {error}") from error
            except RepositoryError as error:
                raise RepositoryError(path, f"line {line}: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise RepositoryError(path, f"{where}{error.problem or error.context}") from error
    except RecursionError as error:
        raise RepositoryError(path, "it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # A character that YAML does not have, a day that the calendar does not have.
        raise RepositoryError(path, f"it cannot be read: {error}") from error
    return settings


def nearest(key: str, known: tuple[str, ...]) -> str:
    """Say which of the known keys was probably meant, and else what there is."""
    close = difflib.get_close_matches(key.lower(), known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"


class _Loader(yaml.SafeLoader):
    """YAML without aliases and without keys that are given twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            problem = "an alias (*name) is not allowed here, write the value again"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.get_mark())
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            problem = "a key is given twice"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return mapping


def _items(root: yaml.Node, path: str) -> Iterator[tuple[str, int, yaml.Node]]:
    if not isinstance(root, yaml.MappingNode):
        raise RepositoryError(path, "it is no mapping of names to values, like 'device: CPU'")
    seen = set()
    for key_node, node in root.value:
        key, line = str(key_node.value)[:_SHOWN], key_node.start_mark.line + 1
        if key not in _KEYS:
            raise RepositoryError(path, f"line {line}: unknown key {key!r}; {nearest(key, _KEYS)}")
        if key in seen:
            raise RepositoryError(path, f"line {line}: {key!r} is given twice")
        seen.add(key)
        yield key, line, node


def _value(
    loader: _Loader, key: str, node: yaml.Node, read_labels: Callable[[str], tuple[str, ...]]
) -> Any:
    if key in _AS_WRITTEN and isinstance(node, yaml.ScalarNode):
        return node.value
    if key != "labels":
        return loader.construct_object(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return {str(output.value): _label_list(each, read_labels) for output, each in node.value}
    return _label_list(node, read_labels)


def _label_list(
    node: yaml.Node, read_labels: Callable[[str], tuple[str, ...]]
) -> tuple[str, ...] | list[str]:
    if isinstance(node, yaml.ScalarNode):
        return read_labels(node.value) if node.value else ()
    names = [each.value for each in node.value if isinstance(each, yaml.ScalarNode)]
    if isinstance(node, yaml.MappingNode) or len(names) != len(node.value):
        expected = "a list of names, or the path of a text file with one name a line"
        raise OptionError("labels", "what is given", expected)
    return names
