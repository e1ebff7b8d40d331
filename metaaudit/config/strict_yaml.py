"""YAML as data only: no surprises in scalars, no duplicate keys, no anchors, no objects."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from metaaudit.errors import ConfigError

KeyPath = tuple[str | int, ...]
"""Where a value is within a document: section names and positions in lists."""

_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_NULL = re.compile(r"~|null|Null|NULL|")


@dataclass
class Document:
    """Plain values and where each of them was written.

    Attributes:
        value: The content.
        where: ``FILE:LINE`` (or another origin) of each key and list item.
    """

    value: Any
    where: dict[KeyPath, str] = field(default_factory=dict)


def parse_yaml(text: str, name: str, *, number_lines: bool = True) -> Document:
    """Reads one YAML document by the rules of YAML 1.2's core schema.

    So ``1e-3`` is a number, and ``no`` and ``on`` are text.

    Args:
        text: The document.
        name: What to call it in messages.
        number_lines: Whether origins are ``name:LINE`` rather than ``name``.

    Raises:
        ConfigError: It is no YAML, repeats a key, or uses anchors, aliases or tags for objects.
    """
    reader = _Reader(name, number_lines)
    try:
        node = _compose(text)
        return Document(None if node is None else reader.value(node, ()), reader.where)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = reader.at(mark.line) if mark else name
        raise ConfigError(where, f"cannot be read as YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise ConfigError(name, f"cannot be read as YAML ({error})") from None
    except RecursionError:
        raise ConfigError(name, "is nested too deeply", "a few levels of sections") from None


def _compose(text: str) -> Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Builds the tree of nodes; every plain scalar is resolved by ``_plain_tag`` below."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        # An alias may expand to gigabytes, and a configuration needs none.
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"anchors and aliases, here '{event.anchor}', are not supported",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode and implicit[0]:
            return _plain_tag(value)
        return super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]


def _plain_tag(text: str) -> str:
    patterns = {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}
    kinds = (kind for kind, pattern in patterns.items() if pattern.fullmatch(text))
    return _TAG + next(kinds, "str")


class _Reader:
    """Turns nodes into plain values and notes their origins."""

    def __init__(self, name: str, number_lines: bool) -> None:
        self.name = name
        self.number_lines = number_lines
        self.where: dict[KeyPath, str] = {}

    def at(self, line: int) -> str:
        return f"{self.name}:{line + 1}" if self.number_lines else self.name

    def value(self, node: Node, path: KeyPath) -> Any:
        self.where.setdefault(path, self.at(node.start_mark.line))
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, MappingNode) and kind == "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and kind == "seq":
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and kind in _SCALARS:
            return self._scalar(node, kind)
        raise self._error(node, f"the tag '{node.tag}' is not supported")

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != f"{_TAG}str":
                raise self._error(key_node, "a key is not text; put it in quotes")
            key = self._scalar(key_node, "str")
            if key in result:
                raise self._error(key_node, f"the key '{key}' is there twice; remove one")
            self.where[(*path, key)] = self.at(key_node.start_mark.line)
            result[key] = self.value(value_node, (*path, key))
        return result

    def _scalar(self, node: Node, kind: str) -> Any:
        try:
            return _SCALARS[kind](node.value)
        except (ValueError, KeyError):
            raise self._error(node, f"{node.value[:40]!a} is no valid {kind}") from None

    def _error(self, node: Node, problem: str) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _int(text: str) -> int:
    bases = {"0o": 8, "0x": 16}
    return int(text, bases.get(text[:2], 10))


def _float(text: str) -> float:
    if text.lower() == ".nan":
        return math.nan
    return float(re.sub(r"\.(inf)$", r"\1", text, flags=re.IGNORECASE))


def _text(text: str) -> str:
    # Escapes can spell what no path or message may hold: NUL, or half a Unicode character.
    if "\0" in text:
        raise ValueError(text)
    text.encode()
    return text


_SCALARS: dict[str, Callable[[str], Any]] = {
    "null": lambda text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _int,
    "float": _float,
    "str": _text,
}
