"""What each rule means, how it is computed, what to do about it, and its limits, in words."""

from __future__ import annotations

from importlib import resources

from metaaudit.findings.rules import BY_NAME, RULES, RuleName


def explanation(rule: RuleName) -> str:
    """The explanation of a rule, as Markdown that reads well as it is."""
    folder = resources.files("metaaudit.findings").joinpath("explanations")
    return folder.joinpath(f"{rule}.md").read_text("utf-8")


def overview() -> str:
    """All rules, two lines each."""
    lines = []
    for rule in (BY_NAME[name] for name in RULES):
        lines += [f"{rule.name}: the {rule.subject} {rule.title}", f"    {rule.summary}"]
    return "\n".join(lines) + "\n"
