"""The rules by which something is a finding, each by the one name it has everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

RuleName = Literal["harmful", "mislabeled", "noisy", "contradictory", "duplicate", "outlier"]
RULES: tuple[RuleName, ...] = get_args(RuleName)


@dataclass(frozen=True)
class Rule:
    """What a rule is about.

    Attributes:
        name: In configurations, on the command line and in reports.
        subject: What it flags.
        title: In a few words, without the subject.
        summary: One sentence.
    """

    name: RuleName
    subject: Literal["task", "instance"]
    title: str
    summary: str


_ALL = (
    Rule(
        "harmful",
        "task",
        "harms the evaluation tasks",
        "The task's influence on the evaluation loss is an outlier among all tasks.",
    ),
    Rule(
        "mislabeled",
        "instance",
        "is probably mislabeled",
        "The rest of the instance's tasks suggests another label, more surely than the model errs.",
    ),
    Rule(
        "noisy",
        "task",
        "has many wrong labels",
        "A large share of the task's labels is estimated to be wrong.",
    ),
    Rule(
        "contradictory",
        "task",
        "has support and query labels that contradict each other",
        "The query labels follow another naming of the classes than the support labels.",
    ),
    Rule(
        "duplicate",
        "task",
        "repeats another task",
        "Another task has the same images, in any order.",
    ),
    Rule(
        "outlier",
        "task",
        "is unlike the other tasks",
        "The loss after adaptation is an outlier among all tasks, and no labels explain it.",
    ),
)
BY_NAME: dict[RuleName, Rule] = {rule.name: rule for rule in _ALL}
