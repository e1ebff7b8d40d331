"""What a gate makes of findings: new, known, suppressed, borderline; passed or failed."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path

import pytest

from metaaudit.config.gate import GateConfig, RuleGate
from metaaudit.findings import RULES, RuleName
from metaaudit.gates import (
    Outcome,
    add_suppressions,
    create_baseline,
    judge,
    outcome_lines,
    write_baseline,
)
from tests.gates.made_up import TODAY, finding, gate, run_of, suppression

DAY = datetime.timedelta(days=1)


def statuses(outcome: Outcome) -> dict[str, str]:
    return {one.finding.subject: one.status for rule in outcome.rules for one in rule.judged}


def test_findings_up_to_the_rate_are_new_and_the_others_borderline() -> None:
    run = run_of(
        finding("a", 0.01),
        finding("b", 0.05),
        finding("c", 0.051, flagged=True),
        finding("d", 0.2),
    )
    outcome = judge(run, gate(mislabeled=RuleGate(fdr=0.05)), TODAY)
    assert statuses(outcome) == {"a": "new", "b": "new", "c": "borderline", "d": "borderline"}
    assert [one.subject for one in outcome.rules[0].new] == ["a", "b"]
    assert outcome.failed
    wider = judge(run, gate(mislabeled=RuleGate(fdr=0.1)), TODAY)
    assert statuses(wider)["c"] == "new"


def test_without_a_rate_all_that_the_run_flags_is_new() -> None:
    run = run_of(finding("a", 0.09, flagged=True), finding("b", 0.01, flagged=False))
    assert statuses(judge(run, gate(), TODAY)) == {"a": "new", "b": "borderline"}


def test_a_finding_without_chance_always_counts() -> None:
    run = run_of(finding("a", None, "duplicate"))
    assert statuses(judge(run, gate(duplicate=RuleGate(fdr=0.001)), TODAY)) == {"a": "new"}


def test_only_rules_with_a_gate_are_judged_in_the_order_of_the_rules() -> None:
    run = run_of(*(finding(f"{rule}-1", 0.01, rule) for rule in RULES))
    two = gate(outlier=RuleGate(), harmful=RuleGate(max_count=1))
    outcome = judge(run, two, TODAY)
    assert [(one.rule, one.failed) for one in outcome.rules] == [
        ("harmful", False),
        ("outlier", True),
    ]
    assert statuses(outcome) == {"harmful-1": "new", "outlier-1": "new"}
    assert judge(run, GateConfig(), TODAY) == Outcome(())


@pytest.mark.parametrize(
    ("rule", "max_count", "max_fraction", "limit"),
    [
        ("mislabeled", 0, 0.0, 0),
        ("mislabeled", 3, 0.0, 3),
        ("mislabeled", 0, 0.05, 3),  # floor of 3.2 of 64 items
        ("mislabeled", 5, 0.05, 5),
        ("harmful", 1, 0.3, 2),  # floor of 2.4 of 8 tasks
        ("harmful", 0, 0.12, 0),
        ("harmful", 0, 1.0, 8),
    ],
)
def test_limit(rule: RuleName, max_count: int, max_fraction: float, limit: int) -> None:
    one = RuleGate(max_count=max_count, max_fraction=max_fraction)
    few = [finding(f"x{row}", 0.01, rule) for row in range(limit)]
    outcome = judge(run_of(*few), gate(**{rule: one}), TODAY)
    assert outcome.rules[0].limit == limit
    assert not outcome.failed
    more = run_of(*few, finding("one more", 0.01, rule))
    assert judge(more, gate(**{rule: one}), TODAY).failed


def test_a_share_is_the_decimal_that_was_typed() -> None:
    run = run_of()
    counts = run.findings.counts.model_copy(update={"tasks": 100})
    findings = run.findings.model_copy(update={"counts": counts})
    run = dataclasses.replace(run, findings=findings)
    outcome = judge(run, gate(harmful=RuleGate(max_fraction=0.29)), TODAY)
    assert outcome.rules[0].limit == 29


def test_known_findings_pass_and_others_do_not(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    write_baseline(file, create_baseline(run_of(finding("a")), GateConfig()))
    run = run_of(finding("a", 0.04), finding("b"))
    outcome = judge(run, gate(baseline=file), TODAY)
    assert statuses(outcome) == {"a": "known", "b": "new"}
    same_content = run_of(finding("a", 0.04, "harmful"))
    harmful = judge(same_content, gate(baseline=file, harmful=RuleGate()), TODAY)
    assert statuses(harmful) == {"a": "new"}


def test_an_entry_covers_as_many_as_it_counts(tmp_path: Path) -> None:
    two = [finding("a", 0.01), finding("b", 0.02, same_as="a")]
    three = [*two, finding("c", 0.03, same_as="a")]
    file = tmp_path / "baseline.json"
    write_baseline(file, create_baseline(run_of(*two), GateConfig()))
    outcome = judge(run_of(*three), gate(baseline=file), TODAY)
    assert statuses(outcome) == {"a": "known", "b": "known", "c": "new"}
    above = [finding("a", 0.01), finding("b", 0.15, same_as="a"), finding("c", 0.03, same_as="a")]
    outcome = judge(run_of(*above), gate(baseline=file), TODAY)
    assert statuses(outcome) == {"a": "known", "b": "borderline", "c": "known"}
    outcome = judge(run_of(finding("z", 0.15), finding("a")), gate(baseline=file), TODAY)
    assert statuses(outcome) == {"z": "borderline", "a": "known"}


@pytest.mark.parametrize(
    ("q_value", "stale"), [(0.01, False), (0.1, False), (0.2, False), (0.21, True), (None, False)]
)
def test_an_entry_is_stale_above_release_only(
    tmp_path: Path, q_value: float | None, stale: bool
) -> None:
    file = tmp_path / "baseline.json"
    write_baseline(file, create_baseline(run_of(finding("a")), GateConfig()))
    outcome = judge(run_of(finding("a", q_value)), gate(baseline=file), TODAY)
    assert len(outcome.stale) == stale
    assert not outcome.failed
    for line in outcome.stale:
        assert "a is in the baseline as mislabeled" in line


def test_stale_entries_of_rules_without_a_gate_are_not_told(tmp_path: Path) -> None:
    file = tmp_path / "baseline.json"
    old = run_of(finding("a"), finding("b", rule="harmful"))
    write_baseline(file, create_baseline(old, GateConfig()))
    outcome = judge(run_of(), gate(baseline=file), TODAY)
    assert [line.split()[0] for line in outcome.stale] == ["a"]


@pytest.mark.parametrize(
    ("expires", "status", "notes"),
    [
        (TODAY + DAY, "suppressed", 0),
        (TODAY, "suppressed", 0),
        (TODAY - DAY, "new", 1),
    ],
)
def test_a_suppression_holds_until_its_day(
    tmp_path: Path, expires: datetime.date, status: str, notes: int
) -> None:
    one = finding("a")
    file = tmp_path / "suppressions.yaml"
    add_suppressions(file, [suppression(one, expires, "label is right")])
    chosen = gate().model_copy(update={"suppressions": file})
    outcome = judge(run_of(one), chosen, TODAY)
    assert statuses(outcome) == {"a": status}
    assert outcome.failed == (status == "new")
    assert len(outcome.notes) == notes
    if status == "suppressed":
        assert outcome.rules[0].judged[0].reason == "label is right"
    else:
        assert f"a as mislabeled expired on {expires}: label is right" in outcome.notes[0]


def test_a_suppression_without_a_finding_is_noted_up_to_release(tmp_path: Path) -> None:
    one = finding("a")
    file = tmp_path / "suppressions.yaml"
    add_suppressions(
        file,
        [suppression(one, TODAY + DAY), suppression(finding("b", rule="harmful"), TODAY + DAY)],
    )
    chosen = gate().model_copy(update={"suppressions": file})
    (note,) = judge(run_of(), chosen, TODAY).notes
    assert "a as mislabeled matches no finding" in note
    assert judge(run_of(finding("a", 0.2)), chosen, TODAY).notes == ()
    assert judge(run_of(finding("a", 0.21)), chosen, TODAY).notes == (note,)


def test_lines(tmp_path: Path) -> None:
    file, allowed = tmp_path / "baseline.json", tmp_path / "suppressions.yaml"
    old = run_of(finding("a"), finding("gone"))
    write_baseline(file, create_baseline(old, GateConfig()))
    found = [finding("a"), finding("b"), finding("c"), finding("d"), finding("e", 0.1)]
    add_suppressions(allowed, [suppression(found[2], TODAY), suppression(finding("f"), TODAY)])
    rules = {"mislabeled": RuleGate(max_count=1), "harmful": RuleGate()}
    chosen = gate(baseline=file, **rules).model_copy(update={"suppressions": allowed})
    assert outcome_lines(judge(run_of(*found), chosen, TODAY)) == [
        "gate harmful: passed, 0 new (0 allowed), 0 known, 0 suppressed",
        "gate mislabeled: FAILED, 2 new (1 allowed), 1 known, 1 suppressed, 1 borderline",
        "stale: gone is in the baseline as mislabeled and no longer found",
        "note: the suppression of f as mislabeled matches no finding; remove it",
    ]
