"""Suppressions: findings that somebody decided to let pass, why, and until when."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from metaaudit.config.strict_yaml import Document, parse_yaml
from metaaudit.errors import RunError, UsageError
from metaaudit.findings import RuleName
from metaaudit.gates.rates import Key
from metaaudit.runs.atomic import is_stream, write_text

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


def parse_date(text: object) -> datetime.date:
    """Reads ``YYYY-MM-DD``.

    Raises:
        ValueError: It is no such date.
    """
    if not isinstance(text, str) or not _DATE.fullmatch(text):
        raise ValueError(f"{text!r} is no date; expected YYYY-MM-DD")
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no date ({error})") from None


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; say why it may pass")
    return text


class Suppression(BaseModel):
    """One finding that may pass.

    Attributes:
        fingerprint: Of the finding.
        rule: Of the finding.
        reason: Why it may pass.
        expires: The last day on which it may.
        subject: Id of the task or instance, for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    fingerprint: str = Field(pattern="^[0-9a-f]{64}$")
    rule: RuleName
    reason: Annotated[str, AfterValidator(_not_blank)]
    expires: Annotated[datetime.date, BeforeValidator(parse_date)]
    subject: str

    @property
    def key(self) -> Key:
        """Rule and fingerprint."""
        return self.rule, self.fingerprint

    def holds(self, today: datetime.date) -> bool:
        """Whether it has not expired."""
        return today <= self.expires


_LIST: TypeAdapter[tuple[Suppression, ...]] = TypeAdapter(tuple[Suppression, ...])


def read_suppressions(path: Path) -> tuple[Suppression, ...]:
    """Reads a file of suppressions; an empty file holds none.

    Raises:
        RunError: It is missing, or an entry is wrong.
        ConfigError: It is no YAML.
    """
    return _parsed(_text(path), path)


def add_suppressions(path: Path, new: Sequence[Suppression]) -> None:
    """Adds suppressions at the end of a file, which is made if need be; what it holds stays.

    Raises:
        RunError: One is there already, or the file holds something else or cannot be written.
        ConfigError: The file is no YAML.
    """
    if is_stream(path):
        raise RunError(path, "is no regular file", "a file of suppressions", "name another")
    text = _text(path) if path.exists() else ""
    old = _parsed(text, path)
    there = {one.key: one for one in old}
    for one in new:
        if one.key in there:
            raise RunError(
                path,
                f"suppresses {one.rule} {one.subject!r} until {there[one.key].expires} already",
                remedy="change the date there",
            )
    wanted = (*old, *new)
    added = _dumped(new)
    longer = f"{text.rstrip()}\n{added}".lstrip("\n")
    write_text(path, longer if _holds(longer, wanted) else _dumped(wanted))


def _holds(text: str, wanted: tuple[Suppression, ...]) -> bool:
    """Whether lines could be added at the end: they cannot to ``[...]`` on one line."""
    try:
        return _parsed(text, Path("suppressions")) == wanted
    except UsageError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RunError(path, f"is not text ({error.reason})", "YAML in UTF-8") from None
    except OSError as error:
        raise RunError(
            path,
            f"cannot be read ({error.strerror})",
            "a file of suppressions",
            "`metaaudit suppress` writes one",
        ) from None


def _parsed(text: str, path: Path) -> tuple[Suppression, ...]:
    document = parse_yaml(text, str(path))
    if document.value is None:
        return ()
    if not isinstance(document.value, list):
        raise RunError(path, "holds no list", "a list of suppressions")
    try:
        found = _LIST.validate_json(json.dumps(document.value))
    except ValidationError as error:
        raise _problem(error, document, path) from None
    seen: dict[Key, int] = {}
    for row, one in enumerate(found):
        if one.key in seen:
            where = document.where[row,]
            raise RunError(where, f"{one.rule} {one.subject!r} is there twice", remedy="remove one")
        seen[one.key] = row
    return found


def _problem(error: ValidationError, document: Document, path: Path) -> RunError:
    first = error.errors(include_url=False)[0]
    place: tuple[Any, ...] = first["loc"]
    known = (place[:end] for end in range(len(place), 0, -1) if place[:end] in document.where)
    where = document.where.get(next(known, ()), str(path))
    key = ".".join(map(str, place[1:]))
    what = first["msg"].removeprefix("Value error, ")
    fields = ", ".join(Suppression.model_fields)
    return RunError(where, f"{key}: {what}" if key else what, f"the keys {fields}")


class _Quoted(str):
    """Text that is always in quotes: a fingerprint of digits would be read as a number."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Quoted,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style='"'),
)


def _dumped(suppressions: Sequence[Suppression]) -> str:
    entries = [
        {
            "fingerprint": _Quoted(one.fingerprint),
            "rule": one.rule,
            "reason": _Quoted(one.reason),
            "expires": one.expires,
            "subject": _Quoted(one.subject),
        }
        for one in suppressions
    ]
    return yaml.dump(
        entries, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
