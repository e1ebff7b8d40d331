"""From rows to findings: what is one, in which order, and by what it is known again."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from metaaudit.findings import BY_NAME, RULES, WATCHED, Finding, Findings, RuleName, fingerprint
from metaaudit.runs.flagging import Flagging
from metaaudit.runs.sign import SIGN
from metaaudit.runs.tables import InstanceRow, ItemRow, TaskRow
from tests.run_folder import content, instance_rows, item_rows, task_rows

TASKS = task_rows()
INSTANCES = instance_rows(TASKS)
ITEMS = item_rows(INSTANCES)


def found_in(
    tasks: Sequence[TaskRow] = TASKS,
    instances: Sequence[InstanceRow] = INSTANCES,
    items: Sequence[ItemRow] = ITEMS,
    evidence: Mapping[str, Sequence[str]] | None = None,
) -> Findings:
    return Flagging(tasks, instances, items, evidence or {}).findings(
        estimated_wrong_labels=3.25, eval_tasks=5, warnings=["one", "two"], sign=SIGN
    )


def changed(changes: Mapping[str, Mapping[str, Any]], tasks: Sequence[TaskRow] = TASKS) -> Any:
    """The tasks with other values, by id."""
    return [dataclasses.replace(row, **changes.get(row.task_id, {})) for row in tasks]


def subjects(findings: Findings, rule: RuleName) -> list[tuple[str, bool]]:
    return [(one.subject, one.flagged) for one in findings.of(rule)]


def test_counts_are_those_of_the_rows() -> None:
    found = found_in()
    counts = found.counts
    assert (counts.tasks, counts.instances, counts.items) == (8, 64, 64)
    assert (counts.eval_tasks, counts.mislabeled_instances) == (5, 2)
    assert counts.flagged == {
        "harmful": 2,
        "mislabeled": 2,
        "noisy": 2,
        "contradictory": 1,
        "duplicate": 2,
        "outlier": 1,
    }
    assert found.thresholds.influence_z == min(row.influence_z for row in TASKS if row.harmful)
    assert found.thresholds.mislabel_score == 0.98
    assert found.estimated_wrong_labels == 3.25
    assert found.warnings == ("one", "two")
    assert found.sign == SIGN


def test_every_rule_finds_its_own() -> None:
    found = found_in()
    assert subjects(found, "harmful") == [("task-0", True), ("task-1", True)]
    assert subjects(found, "noisy") == [("task-0", True), ("task-1", True)]
    assert subjects(found, "contradictory") == [("task-4", True)]
    assert subjects(found, "duplicate") == [("task-2", True), ("task-3", True)]
    assert subjects(found, "outlier") == [("task-5", True)]
    assert subjects(found, "mislabeled") == [
        ("image-0-support-0", True),
        ("image-1-support-0", True),
    ]


def test_findings_stand_by_rule() -> None:
    places = [RULES.index(one.rule) for one in found_in().findings]
    assert places == sorted(places)
    assert set(places) == set(range(len(RULES)))


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    clean = [
        dataclasses.replace(
            row, harmful=False, harmful_q=1.0, noisy_q=1.0, contradictory_q=1.0, outlier_q=1.0,
            duplicates=0, kinds="",
        )
        for row in TASKS
    ]  # fmt: skip
    instances = instance_rows(clean, mislabeled=0)
    found = found_in(clean, instances, item_rows(instances))
    assert found.findings == ()
    assert set(found.counts.flagged.values()) == {0}
    assert found.thresholds.influence_z is None
    assert found.thresholds.mislabel_score is None


BORDERLINE = {
    "harmful": ("harmful_q", "influence_z"),
    "noisy": ("noisy_q", "label_noise"),
    "contradictory": ("contradictory_q", "contradiction"),
    "outlier": ("outlier_q", "outlier_z"),
}


@pytest.mark.parametrize("rule", BORDERLINE)
def test_flagged_ones_first_then_the_worst(rule: RuleName) -> None:
    q_value, score = BORDERLINE[rule]
    flag = {"harmful": True} if rule == "harmful" else {"kinds": rule}
    unflagged = {"harmful": False, q_value: 1.0, score: 0.0, "kinds": ""}
    tasks = changed(
        {
            **{row.task_id: unflagged for row in TASKS},
            "task-0": {**unflagged, q_value: WATCHED, score: 0.9},
            "task-2": {**unflagged, **flag, q_value: 0.05, score: 0.3},
            "task-3": {**unflagged, q_value: 0.2, score: 0.95},
            "task-4": {**unflagged, q_value: WATCHED + 1e-9, score: 0.99},
            "task-6": {**unflagged, **flag, q_value: 0.02, score: 0.4},
            "task-7": {**unflagged, **flag, q_value: 0.05, score: 0.3},
        }
    )
    expected = [
        ("task-6", True),
        ("task-2", True),
        ("task-7", True),
        ("task-3", False),
        ("task-0", False),
    ]
    assert subjects(found_in(tasks), rule) == expected
    assert subjects(found_in(tasks[::-1]), rule) == expected
    assert found_in(tasks).counts.flagged[rule] == 3
    for one in found_in(tasks).of(rule):
        row = next(row for row in tasks if row.task_id == one.subject)
        assert (one.q_value, one.score) == (getattr(row, q_value), getattr(row, score))


def test_items_are_flagged_ones_first_in_their_order() -> None:
    q_values = {1: 0.2, 3: 0.25, 4: 0.26, 5: 0.24}
    items = [
        dataclasses.replace(row, q_value=q_values.get(place, row.q_value))
        for place, row in enumerate(ITEMS)
    ]
    items[1] = dataclasses.replace(items[1], mislabeled=False)
    found = found_in(items=items)
    assert subjects(found, "mislabeled") == [
        (items[0].instance_id, True),
        (items[1].instance_id, False),
        (items[3].instance_id, False),
        (items[5].instance_id, False),
    ]
    assert found.counts.flagged["mislabeled"] == 1
    assert found.counts.mislabeled_instances == 2, "occurrences are counted by their own flags"


def test_duplicates_involve_no_chance() -> None:
    found = found_in(changed({"task-3": {"duplicates": 3}})).of("duplicate")
    assert [(one.subject, one.score, one.q_value) for one in found] == [
        ("task-3", 3.0, None),
        ("task-2", 1.0, None),
    ]
    assert found[0].message == "task-3 has the same images as 3 other tasks"
    assert found[1].message == "task-2 has the same images as 1 other task"


def test_a_task_may_be_several_things() -> None:
    found = found_in(changed({"task-4": {"kinds": "contradictory duplicate", "duplicates": 1}}))
    rules = [one.rule for one in found.findings if one.subject == "task-4"]
    assert rules == ["contradictory", "duplicate"]
    # Each tells of the other.
    assert finding(found, "contradictory", "task-4").evidence[-1] == "also duplicate"
    assert finding(found, "duplicate", "task-4").evidence[-1] == "also contradictory"


def shuffled(findings: Findings) -> dict[tuple[str, str], str]:
    return {(one.rule, one.subject): one.fingerprint for one in findings.findings}


def test_fingerprints_are_of_the_rule_and_the_content() -> None:
    for one in found_in().findings:
        assert one.fingerprint == fingerprint(one.rule, content(one.subject))
    assert len(set(shuffled(found_in()).values())) == len(found_in().findings)


def test_fingerprints_depend_on_neither_ranks_nor_scores_nor_order() -> None:
    rng = random.Random(0)
    tasks = [
        dataclasses.replace(row, rank=9 - row.rank, influence=-row.influence, outer_loss=9.0,
                            influence_z=row.influence_z / 2, label_noise=row.label_noise / 3)
        for row in TASKS
    ]  # fmt: skip
    instances = [
        dataclasses.replace(row, rank=65 - row.rank, loss=7.0, mislabel_score=0.5)
        for row in INSTANCES
    ]
    items = [
        dataclasses.replace(row, rank=65 - row.rank, mislabel_score=0.5, influence=3.0)
        for row in ITEMS
    ]
    for rows in (tasks, instances, items):
        rng.shuffle(rows)
    assert shuffled(found_in(tasks, instances, items)) == shuffled(found_in())


def test_another_content_is_another_finding() -> None:
    other = found_in(changed({"task-0": {"content": content("other")}}))
    before, after = shuffled(found_in()), shuffled(other)
    assert {key for key in before if before[key] != after[key]} == {
        ("harmful", "task-0"),
        ("noisy", "task-0"),
    }


def finding(findings: Findings, rule: RuleName, subject: str) -> Finding:
    (found,) = (one for one in findings.of(rule) if one.subject == subject)
    return found


def test_evidence_of_a_task() -> None:
    evidence = {"task-0": ["2 of its 4 images are in evaluation tasks too"], "task-9": ["nothing"]}
    one = finding(found_in(evidence=evidence), "harmful", "task-0")
    row = TASKS[0]
    losses, norms = ([getattr(r, name) for r in TASKS] for name in ("outer_loss", "grad_norm"))
    cosines = [r.alignment for r in TASKS]
    assert one.evidence == (
        f"influence {row.influence:+.3g}, between {row.influence_low:+.3g} and "
        f"{row.influence_high:+.3g} (95%, over evaluation tasks)",
        "1 of 8 labels flagged as wrong, an estimated 25% wrong",
        f"loss after adaptation 1.5, median task {np.median(losses):.3g}",
        f"gradient norm 2, median task {np.median(norms):.3g}; its cosine with the other tasks' "
        f"mean +0.10, median {np.median(cosines):+.2f}",
        "also noisy",
        "2 of its 4 images are in evaluation tasks too",
    )
    assert "influence" not in finding(found_in(), "duplicate", "task-3").evidence[1]


def test_without_an_interval_none_is_told() -> None:
    tasks = changed({"task-0": {"influence_low": None, "influence_high": None}})
    lines = finding(found_in(tasks), "harmful", "task-0").evidence
    assert not any("influence" in line for line in lines)


def test_a_task_of_which_nothing_more_is_known() -> None:
    lines = finding(found_in(), "contradictory", "task-4").evidence
    assert lines[-1].startswith("gradient norm")
    assert not any(line.startswith("also") for line in lines)


@pytest.mark.parametrize(
    ("rule", "subject", "told"),
    [
        ("harmful", "task-0", "its influence is 12.0 robust standard deviations above the median"),
        ("noisy", "task-1", "has an estimated 25% of wrong labels"),
        ("contradictory", "task-4", "other names of the classes, by a likelihood ratio of 10^13"),
        ("outlier", "task-5", "its loss after adaptation is 9.0 robust standard deviations above"),
    ],
)
def test_messages(rule: RuleName, subject: str, told: str) -> None:
    message = finding(found_in(), rule, subject).message
    assert message.startswith(f"{subject} ")
    assert told in message


def test_an_image_is_found_with_all_its_places() -> None:
    image = ITEMS[0].instance_id
    # It occurs a second time, in a query set and less suspiciously.
    instances = [
        dataclasses.replace(row, instance_id=image, mislabeled=False)
        if (row.task_id, row.set, row.index) == ("task-6", "query", 3)
        else row
        for row in INSTANCES
    ]
    item = dataclasses.replace(
        ITEMS[0], label="cat | dog", suggested_label="owl", occurrences=2, flagged=1
    )
    one = finding(found_in(instances=instances[::-1], items=[item]), "mislabeled", image)
    assert one.message == f"{image} is labelled cat | dog; its tasks suggest owl"
    assert one.evidence == ("occurs 2 times, flagged in 1",)
    assert (one.label, one.suggested_label) == ("cat | dog", "owl")
    assert [(at.task_id, at.set, at.index) for at in one.places] == [
        ("task-0", "support", 0),
        ("task-6", "query", 3),
    ]
    assert (one.q_value, one.score) == (item.q_value, item.mislabel_score)


def test_tasks_have_no_places_and_labels() -> None:
    for one in found_in().findings:
        of_task = BY_NAME[one.rule].subject == "task"
        assert bool(one.places) != of_task
        assert (one.label is None) == (one.suggested_label is None) == of_task
    (once,) = {one.evidence for one in found_in().of("mislabeled")}
    assert once == ("occurs once, flagged in 1",)


def test_findings_read_back_as_they_are() -> None:
    found = found_in()
    assert Findings.model_validate_json(found.model_dump_json()) == found
