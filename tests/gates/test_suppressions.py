"""The file of suppressions: what is written, what stays, and what is refused."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import yaml

from metaaudit.errors import UsageError
from metaaudit.gates import Suppression, add_suppressions, parse_date, read_suppressions
from tests.gates.made_up import finding, suppression

DAY = datetime.date(2031, 1, 2)
A, B = (suppression(finding(name), DAY, f"reason of {name}") for name in "ab")
ENTRY = f"""\
- fingerprint: {A.fingerprint}
  rule: mislabeled
  reason: looked at it
  expires: 2031-01-02
  subject: a
"""


@pytest.mark.parametrize("day", ["2031-01-02", '"2031-01-02"'])
def test_a_file_written_by_hand(tmp_path: Path, day: str) -> None:
    file = tmp_path / "suppressions.yaml"
    file.write_text(f"# by hand\n{ENTRY.replace('2031-01-02', day)}")
    assert read_suppressions(file) == (A.model_copy(update={"reason": "looked at it"}),)


@pytest.mark.parametrize("text", ["", "# none yet\n", "[]\n"])
def test_an_empty_file_holds_none(tmp_path: Path, text: str) -> None:
    file = tmp_path / "suppressions.yaml"
    file.write_text(text)
    assert read_suppressions(file) == ()
    add_suppressions(file, [A])
    assert read_suppressions(file) == (A,)
    assert ("# none yet" in file.read_text()) == ("#" in text)


@pytest.mark.parametrize(
    "before",
    [
        ENTRY,
        f"# why\n{ENTRY}# end",
        ENTRY.rstrip(),
        ENTRY.replace("\n", "\r\n"),
        f"\ufeff{ENTRY}\n\n",
        f"---\n{ENTRY}",
    ],
)
def test_what_is_there_stays_with_its_comments(tmp_path: Path, before: str) -> None:
    file = tmp_path / "suppressions.yaml"
    file.write_bytes(before.encode())
    old = read_suppressions(file)
    add_suppressions(file, [B])
    assert read_suppressions(file) == (*old, B)
    assert file.read_bytes().decode().startswith(before.removeprefix("\ufeff").rstrip())
    assert [path.name for path in tmp_path.iterdir()] == ["suppressions.yaml"]


@pytest.mark.parametrize("end", ["", "...\n"])
def test_a_file_that_cannot_be_added_to_is_written_anew(tmp_path: Path, end: str) -> None:
    file = tmp_path / "suppressions.yaml"
    one = ", ".join(line.strip("- ").strip() for line in ENTRY.splitlines())
    file.write_text(f"{ENTRY}{end}" if end else f"[{{{one}}}]\n")
    old = read_suppressions(file)
    add_suppressions(file, [B])
    assert read_suppressions(file) == (*old, B)


@pytest.mark.parametrize(
    "text", ["no", "12", "2031-01-01", "a: b # c", "- x", "→ é 😀", "a\x1b\n\x85\u2028b", '"', "'"]
)
def test_any_text_is_read_back(tmp_path: Path, text: str) -> None:
    file = tmp_path / "suppressions.yaml"
    given = A.model_copy(update={"subject": text, "reason": text})
    add_suppressions(file, [given])
    assert read_suppressions(file) == (given,)


@pytest.mark.parametrize("digits", ["1" * 64, "12e" + "3" * 61, "0" * 64])
def test_fingerprints_that_look_like_numbers_stay_text(tmp_path: Path, digits: str) -> None:
    file = tmp_path / "suppressions.yaml"
    given = A.model_copy(update={"fingerprint": digits})
    add_suppressions(file, [given])
    assert read_suppressions(file) == (given,)


def test_other_readers_of_yaml_get_the_same(tmp_path: Path) -> None:
    file = tmp_path / "suppressions.yaml"
    add_suppressions(file, [A, B])
    assert yaml.safe_load(file.read_text()) == [one.model_dump() for one in (A, B)]
    assert list(Suppression.model_fields) == list(yaml.safe_load(file.read_text())[0])


def test_one_that_is_there_is_not_added_again(tmp_path: Path) -> None:
    file = tmp_path / "suppressions.yaml"
    file.write_text(ENTRY)
    with pytest.raises(UsageError, match="suppresses mislabeled 'a' until 2031-01-02 already"):
        add_suppressions(file, [B, A])
    assert file.read_text() == ENTRY


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("reason: looked at it", "reason: ' '", r"yaml:3: reason: is empty"),
        ("reason: looked at it", "reason:", r"yaml:3: reason: "),
        ("  reason: looked at it\n", "", r"yaml:1: reason: Field required"),
        ("2031-01-02", "2031-02-30", r"yaml:4: expires: '2031-02-30' is no date"),
        ("2031-01-02", "20310102", r"yaml:4: expires: 20310102 is no date"),
        ("2031-01-02", "'20310102'", r"yaml:4: expires: '20310102' is no date"),
        ("2031-01-02", "2031-01-02T10:00:00", r"yaml:4: expires: "),
        ("2031-01-02", "tomorrow", r"yaml:4: expires: "),
        ("rule: mislabeled", "rule: wrong", r"yaml:2: rule: "),
        ("subject: a", "subject: 1", r"yaml:5: subject: "),
        ("subject: a", "sbject: a", r"subject: Field required|sbject: Extra"),
        ("subject: a", "subject: a\n  more: 1", r"yaml:6: more: "),
        (A.fingerprint, A.fingerprint[:8], r"yaml:1: fingerprint: "),
        (ENTRY, ENTRY * 2, r"yaml:6: mislabeled 'a' is there twice"),
        (ENTRY, "a: 1", "holds no list"),
        (ENTRY, "- 1", r"yaml:1: "),
        (ENTRY, "- [", "cannot be read as YAML"),
        ("subject: a", "subject: &a a", "anchors"),
        ("subject: a", "subject: !!python/name:os.system ''", "tag"),
        ("subject: a", "rule: noisy", "is there twice"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    file = tmp_path / "suppressions.yaml"
    text = ENTRY.replace(old, new)
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_suppressions(file)
    with pytest.raises(UsageError, match=message):
        add_suppressions(file, [B])
    assert file.read_text() == text


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "suppressions.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=r"suppressions\.yaml: "):
        read_suppressions(file)


@pytest.mark.parametrize("text", ["2031-1-2", "", "31-01-02", "２０３１-01-02", None, 3])
def test_what_is_no_date(text: object) -> None:
    with pytest.raises(ValueError, match="is no date"):
        parse_date(text)


def test_a_stream_holds_no_suppressions() -> None:
    with pytest.raises(UsageError, match="/dev/stdout: is no regular file"):
        add_suppressions(Path("/dev/stdout"), [A])
