"""``metaaudit explain``: every rule has a text that says all that it has to."""

from __future__ import annotations

import pytest

from metaaudit.findings import BY_NAME, RULES
from metaaudit.findings.explain import explanation
from tests.small import cli, succeeds

SECTIONS = ["What it means", "How it was computed", "What to do", "Limits"]


def test_without_a_rule_all_are_listed() -> None:
    lines = succeeds(cli("explain")).stdout.splitlines()
    assert lines.pop() == "choosing: which score answers which question"
    assert [line.split(":")[0] for line in lines[::2]] == list(RULES)
    for rule, title, summary in zip(RULES, lines[::2], lines[1::2], strict=True):
        assert BY_NAME[rule].title in title
        assert summary.strip() == BY_NAME[rule].summary


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_is_explained(rule: str) -> None:
    text = succeeds(cli("explain", rule)).stdout
    lines = text.splitlines()
    assert lines[0].startswith(f"# {rule}: the {BY_NAME[rule].subject} ")  # type: ignore[index]
    assert [line[3:] for line in lines if line.startswith("## ")] == SECTIONS
    assert text == explanation(rule)  # type: ignore[arg-type]
    assert 15 <= len(lines) <= 30
    assert max(map(len, lines)) <= 100
    assert text.isascii() and text.endswith("\n")


def test_how_to_choose_is_explained() -> None:
    text = succeeds(cli("explain", "choosing")).stdout
    assert text.startswith("# choosing: which score answers which question\n")
    for name in ("task-if", "mislabel_score", "--method mts", "metaaudit diagnose"):
        assert name in text
    assert text.isascii() and max(map(len, text.splitlines())) <= 100


def test_an_unknown_rule_ends_with_2() -> None:
    outcome = cli("explain", "outliers")
    assert outcome.exit_code == 2
    assert "did you mean 'outlier'?" in outcome.error
