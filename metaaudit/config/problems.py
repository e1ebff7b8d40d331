"""One clear line from what pydantic says about a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from metaaudit.config.schema import TAGGED, Config
from metaaudit.config.section import Section
from metaaudit.config.strict_yaml import Document, KeyPath
from metaaudit.errors import ConfigError

_SECTION = "a section of keys and values"

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": _SECTION,
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "literal_error": "{expected}",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "too_short": "at least {min_length} of them",
    "string_pattern_mismatch": "text that matches {pattern}",
}

_built_in_models = "|".join(name for name in TAGGED["model"] if name != "factory")
_KINDS = {
    "model": ("name", f"name: {_built_in_models} or factory: module:callable"),
    "learner": ("name", f"name: {'|'.join(TAGGED['learner'])}"),
    "tasks": ("format", f"format: {'|'.join(TAGGED['tasks'])}"),
    "experiments": ("kind", f"kind: {'|'.join(TAGGED['experiments'])}"),
}
"""The key that tells the kinds of a section apart, and what to say for each."""


def first_problem(error: ValidationError, document: Document, name: str) -> ConfigError:
    """The problem to solve first, and how many more there are.

    Unknown keys come first: a misspelt key is what makes another one look missing.

    Args:
        error: What validation found.
        document: The configuration as the user wrote it.
        name: What to call the configuration where a problem has no line of its own.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_path.setdefault(_locate(details["loc"])[0], []).append(details)
    paths = sorted(by_path, key=lambda path: by_path[path][0]["type"] != "extra_forbidden")
    what, expected, remedy = _explain(by_path[paths[0]])
    if len(paths) > 1:
        remedy = f"{remedy} (and {len(paths) - 1} more)".lstrip()
    path = (*paths[0], *_kind_key(by_path[paths[0]][0]))
    origin = _origin(document, path, name)
    where = f"{origin}: {'.'.join(map(str, path))}" if path else origin  # else of two sections
    return ConfigError(where, what, expected, remedy)


def _locate(loc: Sequence[str | int]) -> tuple[KeyPath, type[Section]]:
    """The user's key path within pydantic's, and the section that its last key belongs to."""
    section: type[Section] = Config
    path: list[str | int] = []
    rest = list(loc)
    while rest:
        key = rest.pop(0)
        path.append(key)
        field = section.model_fields.get(str(key))
        if field is not None and rest and isinstance(rest[0], int) and _sections(field.annotation):
            path.append(rest.pop(0))  # a list of sections
        if field is None or not rest:
            break
        below = _sections(field.annotation)
        if key in TAGGED:  # pydantic puts the kind of the section after the key
            section = TAGGED[str(key)][str(rest.pop(0))]
        elif len(below) == 1:
            section = below[0]
        else:  # a plain value: what follows is a position in a list or pydantic's name of a type
            path += [item for item in rest if isinstance(item, int)]
            break
    return tuple(path), section


def _sections(annotation: Any) -> list[type[Section]]:
    """The kinds of section that a key holds, perhaps optionally or in a list."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [kind for inner in get_args(annotation) for kind in _sections(inner)]


def _origin(document: Document, path: KeyPath, name: str) -> str:
    """Where the longest known part of ``path`` was written."""
    for end in range(len(path), 0, -1):
        if path[:end] in document.where:
            return document.where[path[:end]]
    return name


def _explain(found: list[ErrorDetails]) -> tuple[str, str, str]:
    """What was found, what was expected and the remedy."""
    first = found[0]
    kind, value = first["type"], first["input"]
    if kind == "extra_forbidden":
        keys = list(_locate(first["loc"])[1].model_fields)
        return "unknown key", f"one of {', '.join(keys)}", _nearest(first["loc"][-1], keys)
    if kind == "missing":
        return "is missing", "", "add the key"
    if kind == "value_error":
        return str(first["ctx"]["error"]), "", ""
    if section := _of_unknown_kind(first):
        named = [value[key] for key in _kind_key(first)]
        what = f"got {_shown(named[0])}" if named else "does not say of which kind it is"
        close = _nearest(named[0], list(TAGGED[section])) if named else ""
        return what, _KINDS[section][1], close
    expected = " or ".join(dict.fromkeys(_expected(details) for details in found))
    return f"got {_shown(value)}", expected, _nearest(value, expected.split("'")[1::2])


def _of_unknown_kind(details: ErrorDetails) -> str:
    """What is of no known kind: the name of a section or of a list of them; else nothing."""
    name = next((key for key in reversed(details["loc"]) if isinstance(key, str)), "")
    return name if name in _KINDS and isinstance(details["input"], dict) else ""


def _kind_key(details: ErrorDetails) -> tuple[str, ...]:
    """The key at fault if it names no known kind of section; else nothing."""
    section = _of_unknown_kind(details)
    if section and _KINDS[section][0] in details["input"]:
        return (_KINDS[section][0],)
    return ()


def _expected(details: ErrorDetails) -> str:
    if details["type"] == "union_tag_not_found":
        return _SECTION
    if details["loc"][-1] == "factory":
        return "module:callable"
    template = _EXPECTED.get(details["type"])
    return template.format(**details.get("ctx", {})) if template else details["msg"]


def _nearest(got: Any, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(got), choices, n=1)
    return f"did you mean '{close[0]}'?" if close else ""


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a section"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
