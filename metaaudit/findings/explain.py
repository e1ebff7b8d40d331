"""What each rule means and how the scores are to be chosen, in words."""

from __future__ import annotations

from importlib import resources

from metaaudit.findings.naming import known_rule
from metaaudit.findings.rules import BY_NAME, RULES, RuleName

TOPICS = {"choosing": "which score answers which question"}
"""What is explained beside the rules."""


def explained(name: str) -> str:
    """The text of a rule or a topic.

    Raises:
        UsageError: There is none of that name.
    """
    return _text(name) if name in TOPICS else explanation(known_rule(name, "explain"))


def explanation(rule: RuleName) -> str:
    """The explanation of a rule, as Markdown that reads well as it is."""
    return _text(rule)


def overview() -> str:
    """All rules, two lines each, and the topics."""
    lines = []
    for rule in (BY_NAME[name] for name in RULES):
        lines += [f"{rule.name}: the {rule.subject} {rule.title}", f"    {rule.summary}"]
    lines += [f"{topic}: {summary}" for topic, summary in TOPICS.items()]
    return "\n".join(lines) + "\n"


def _text(name: str) -> str:
    folder = resources.files("metaaudit.findings").joinpath("explanations")
    return folder.joinpath(f"{name}.md").read_text("utf-8")
