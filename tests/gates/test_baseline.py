"""The file of known findings: what is in it, how it is updated, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaaudit.config.gate import GateConfig, RuleGate
from metaaudit.errors import RunError
from metaaudit.gates import (
    compare_baseline,
    create_baseline,
    read_baseline,
    update_baseline,
    write_baseline,
)
from tests.gates.made_up import finding, gate, run_of

PLAIN = GateConfig()


def test_it_holds_the_flagged_findings_and_those_that_count_for_a_gate() -> None:
    run = run_of(
        finding("a", 0.01, "harmful"),
        finding("b", 0.1),
        finding("c", None, "duplicate"),
        finding("d", 0.1, "noisy"),
    )
    assert [one.subject for one in create_baseline(run, PLAIN).entries] == ["a", "c"]
    wide = gate(mislabeled=RuleGate(fdr=0.1))
    assert [one.subject for one in create_baseline(run, wide).entries] == ["a", "b", "c"]


def test_the_same_findings_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    found = [
        finding("b", rule="outlier"),
        finding("a\u2028→", rule="harmful"),
        finding("a", rule="harmful"),
    ]
    texts = []
    for name, order in (("one", found), ("two", found[::-1])):
        file = tmp_path / f"{name}.json"
        baseline = create_baseline(run_of(*order), PLAIN)
        write_baseline(file, baseline)
        assert read_baseline(file) == baseline
        texts.append(file.read_bytes())
    assert texts[0] == texts[1]
    entries = json.loads(texts[0])["entries"]
    assert [one["subject"] for one in entries] == ["a", "a\u2028→", "b"]
    assert list(entries[0]) == ["rule", "fingerprint", "count", "subject", "message"]


def test_repeated_findings_are_one_entry_in_the_words_of_the_worst() -> None:
    run = run_of(finding("b"), finding("a", same_as="b"), finding("c"))
    assert [(one.subject, one.count) for one in create_baseline(run, PLAIN).entries] == [
        ("b", 2),
        ("c", 1),
    ]


def test_update_adds_keeps_and_takes_out() -> None:
    old = create_baseline(run_of(finding("stays"), finding("fades"), finding("goes")), PLAIN)
    run = run_of(
        finding("new"),
        finding("stays", 0.02),
        finding("fades", 0.2),
        finding("goes", 0.21),
        finding("watched", 0.1),
    )
    assert [one.subject for one in update_baseline(old, run, PLAIN).entries] == [
        "fades",
        "new",
        "stays",
    ]
    assert update_baseline(old, run, GateConfig(release=0.1)).entries[0].subject == "new"


@pytest.mark.parametrize(
    ("before", "flagged", "fading", "after"),
    [(1, 2, 0, 2), (2, 1, 0, 1), (2, 1, 1, 2), (3, 1, 1, 2), (1, 1, 1, 1), (2, 0, 1, 1)],
)
def test_update_of_counts(before: int, flagged: int, fading: int, after: int) -> None:
    def copies(n: int, q_value: float) -> list[Any]:
        return [finding(f"a{q_value}-{row}", q_value, same_as="a") for row in range(n)]

    old = create_baseline(run_of(*copies(before, 0.01)), PLAIN)
    run = run_of(*copies(flagged, 0.02), *copies(fading, 0.1))
    (entry,) = update_baseline(old, run, PLAIN).entries
    assert entry.count == after
    assert entry.subject == "a0.01-0"


def test_update_twice_changes_nothing_more() -> None:
    old = create_baseline(run_of(finding("a"), finding("b")), PLAIN)
    run = run_of(finding("a", 0.15), finding("c"))
    once = update_baseline(old, run, PLAIN)
    assert update_baseline(once, run, PLAIN) == once
    assert compare_baseline(once, run, PLAIN).new == ()


def test_compare() -> None:
    old = create_baseline(run_of(finding("stays"), finding("fades"), finding("goes")), PLAIN)
    run = run_of(
        finding("new"),
        finding("stays"),
        finding("stays too", same_as="stays"),
        finding("fades", 0.1),
    )
    found = compare_baseline(old, run, PLAIN)
    assert [one.subject for one in found.new] == ["new", "stays too"]
    assert [one.subject for one in found.known] == ["stays"]
    assert [one.subject for one in found.stale] == ["goes"]


def change(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    def apply(content: dict[str, Any]) -> Any:
        content["entries"][0][key] = value
        return content

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: [c], "is no baseline"),
        (lambda c: {}, "is no baseline"),
        (lambda c: {**c, "schema_version": 2}, "has schema version 2; expected 1"),
        (lambda c: {**c, "more": 1}, "more"),
        (lambda c: {**c, "entries": c["entries"] * 2}, "is there 2 times"),
        (change("count", 0), "entries.0.count"),
        (change("count", 1.5), "entries.0.count"),
        (change("count", "1"), "entries.0.count"),
        (change("rule", "harmfull"), "entries.0.rule"),
        (change("fingerprint", "abc"), "entries.0.fingerprint"),
        (change("subject", None), "entries.0.subject"),
    ],
)
def test_damaged_files_are_refused(
    tmp_path: Path, damage: Callable[[dict[str, Any]], Any], message: str
) -> None:
    file = tmp_path / "baseline.json"
    write_baseline(file, create_baseline(run_of(finding("a")), PLAIN))
    file.write_text(json.dumps(damage(json.loads(file.read_text()))))
    with pytest.raises(RunError, match=message):
        read_baseline(file)


@pytest.mark.parametrize("text", ["", "{", "\xff", "[" * 100_000, '{"schema_version": 1e999}'])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "baseline.json"
    file.write_bytes(text.encode("latin1"))
    with pytest.raises(RunError, match=r"baseline\.json: "):
        read_baseline(file)


@pytest.mark.parametrize("name", ["none.json", "."])
def test_missing_files_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="`metaaudit baseline create"):
        read_baseline(tmp_path / name)
