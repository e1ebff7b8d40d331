"""The ``plant`` section: what it changes, where it is told of, and what depends on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.config import load_config
from metaaudit.config.plant import PlantConfig
from metaaudit.config.tasks import ValuesConfig
from metaaudit.errors import ConfigError, TaskSetError
from metaaudit.inputs.episodes import read_episodes
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet
from metaaudit.loading import prepare
from metaaudit.runs.saved import SavedRun
from metaaudit.training import Planted, flip_labels, plant, planted
from tests.small import Case, cli, digits, succeeds, write_case

PLANT = {"flips": 0.1, "permuted": 0.25}


@pytest.fixture(scope="module")
def clean() -> TaskSet:
    return digits(40, 1, 5, 4, 4)[0]


def made_up(n_tasks: int) -> TaskSet:
    """Tasks of one pixel an image, 5 ways with 5 support and 5 query instances a class."""
    pool = ImagePool(np.arange(250, dtype=np.float32)[:, None], tuple(map(str, range(250))))
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(5), 5)
    tasks = []
    for row in range(n_tasks):
        images = rng.permutation(250)[:50]
        tasks.append(Task(f"task-{row}", images[:25], labels, images[25:], labels))
    return TaskSet(pool, tuple(tasks))


def shares(found: Planted) -> np.ndarray:
    """Share of changed labels by task."""
    share: np.ndarray = found.wrong.reshape(len(found.clean), -1).mean(axis=1)
    return share


def same(one: Planted, other: Planted) -> bool:
    return one.task_set.content_hash == other.task_set.content_hash and bool(
        (one.wrong == other.wrong).all()
    )


@pytest.mark.parametrize("seed", [0, 7])
def test_permuted_is_what_plant_does(seed: int) -> None:
    """To the byte: a ground truth by retraining may have been made so."""
    train = made_up(200)
    found = planted(train, PlantConfig(permuted=0.2, seed=seed))
    expected = plant(train, flip_tasks=0, flip_share=0.1, permute_tasks=40, seed=seed)
    assert same(found, expected)
    assert (found.permuted, found.flipped) == (expected.permuted, ())
    assert len(found.permuted) == 40


@pytest.mark.parametrize(("key", "confusable"), [("flips", False), ("confusable", True)])
def test_flips_are_what_flip_labels_does(clean: TaskSet, key: str, confusable: bool) -> None:
    found = planted(clean, PlantConfig.model_validate({key: 0.1, "seed": 3}))
    expected = flip_labels(clean, 0.1, seed=3, confusable=confusable)
    assert same(found, expected)
    assert found.flipped == expected.flipped
    assert found.corrupted == ()


@pytest.mark.parametrize("share", [0.5, 0.8, 1.0])
def test_corrupted_tasks_have_that_share_of_wrong_labels(clean: TaskSet, share: float) -> None:
    found = planted(clean, PlantConfig(corrupted=0.25, corrupted_labels=share))
    assert len(found.corrupted) == 10
    assert found.flipped == found.corrupted
    expected = np.where(np.isin(np.arange(40), found.corrupted), share, 0)
    np.testing.assert_allclose(shares(found), expected)


def test_several_kinds_are_in_different_tasks(clean: TaskSet) -> None:
    found = planted(clean, PlantConfig(flips=0.1, corrupted=0.2, permuted=0.3, seed=1))
    kinds = found.by_kind
    assert {kind: len(rows) for kind, rows in kinds.items() if kind != "flipped"} == {
        "corrupted": 8,
        "permuted": 12,
    }
    everywhere = [row for rows in kinds.values() for row in rows]
    assert len(everywhere) == len(set(everywhere))
    each = shares(found)
    np.testing.assert_allclose(each[list(kinds["corrupted"])], 0.8)
    np.testing.assert_allclose(each[list(kinds["permuted"])], 0.5)
    left = np.setdiff1d(np.arange(40), [*kinds["corrupted"], *kinds["permuted"]])
    # A tenth of the labels of the 20 tasks left, not of all 40.
    assert each[left].mean() == pytest.approx(0.1)
    assert set(kinds["flipped"]) == set(left[each[left] > 0])
    for after, before in zip(found.task_set.tasks, clean.tasks, strict=True):
        assert after.task_id == before.task_id
    changed = [
        found.task_set.tasks[row].labels(name)[i] != clean.tasks[row].labels(name)[i]
        for row, name, i in clean.instances()
    ]
    np.testing.assert_array_equal(found.wrong, changed)


def test_every_task_may_be_changed() -> None:
    """Shares are rounded, both perhaps up."""
    found = planted(made_up(3), PlantConfig(corrupted=0.5, permuted=0.5))
    assert len(found.corrupted) + len(found.permuted) == 3


def test_the_seed_counts(clean: TaskSet) -> None:
    asked = {"flips": 0.1, "corrupted": 0.2, "permuted": 0.3}
    one, again, other = (
        planted(clean, PlantConfig.model_validate({**asked, "seed": seed})) for seed in (0, 0, 1)
    )
    assert same(one, again)
    assert not same(one, other)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"permuted": 0.01}, "plant.permuted: is 0.01 of 40 tasks, less than one"),
        ({"corrupted": 0.01}, "plant.corrupted: is 0.01 of 40 tasks"),
        ({"flips": 0.0001}, "plant.flips: is 0.0001 of 1600 labels"),
        ({"confusable": 0.0001}, "plant.confusable: is 0.0001 of 1600 labels"),
        ({"flips": 0.1, "permuted": 0.995}, "plant.flips: is 0.1 of 0 labels in the tasks left"),
    ],
)
def test_a_share_of_nothing_is_refused(clean: TaskSet, section: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        planted(clean, PlantConfig.model_validate(section))


def test_a_task_of_one_class_has_no_wrong_labels() -> None:
    one = made_up(2).tasks[0]
    single = Task("alone", one.support, one.support_y * 0, one.query, one.query_y * 0)
    with pytest.raises(TaskSetError, match="alone: has one class"):
        planted(TaskSet(made_up(2).pool, (one, single)), PlantConfig(permuted=0.5))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{flips: 0.1, confusable: 0.1}", "two ways to change labels"),
        ("{corrupted: 0.6, permuted: 0.6}", "shares of different tasks"),
        ("{flips: 1.0}", "flips"),
        ("{permuted: -0.1}", "permuted"),
        ("{corrupted_labels: 0.0}", "corrupted_labels"),
    ],
)
def test_sections_that_make_no_sense(trained_case: Case, section: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(trained_case.config, [f"plant={section}"])


def test_training_tasks_alone_are_changed(trained_case: Case) -> None:
    """The hash too, on which caches and fingerprints depend."""
    plain = prepare(load_config(trained_case.config))
    noisy = prepare(load_config(trained_case.config, [f"plant={json.dumps(PLANT)}"]))
    assert plain.planted is None
    assert noisy.planted is not None
    assert noisy.train is noisy.planted.task_set
    assert noisy.planted.clean.content_hash == plain.train.content_hash
    assert noisy.train.content_hash != plain.train.content_hash
    assert noisy.evaluation.content_hash == plain.evaluation.content_hash
    expected = planted(plain.train, PlantConfig.model_validate(PLANT)).task_set.content_hash
    assert noisy.train.content_hash == expected


SAID = "labels were changed on purpose"


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A case with planted noise, trained and scored."""
    case = write_case(tmp_path_factory.mktemp("noisy"), {"plant": PLANT})
    assert SAID in succeeds(case.cli("train")).stderr
    outcome = succeeds(case.cli("score", "--run", case.run))
    assert outcome.stderr.count(SAID) == 1
    return case


def test_every_command_says_so(noisy: Case) -> None:
    assert (
        f"warning: {2 * 6 + 7} of the 96 training {SAID}" in succeeds(noisy.cli("validate")).stdout
    )
    dry = noisy.cli("score", "--run", noisy.folder / "dry", "--dry-run")
    assert SAID in succeeds(dry).stdout
    assert any(SAID in line for line in SavedRun.open(noisy.run).manifest["warnings"])
    plain = noisy.cli("validate", "--set", "plant={}")
    assert SAID not in succeeds(plain).stdout


def test_a_pruned_copy_has_the_planted_labels(noisy: Case, tmp_path: Path) -> None:
    """And is not to be planted in again."""
    new = tmp_path / "new.h5"
    options = ("--drop", "tasks", "--by", "label_noise", "--max-fraction", 0.25)
    files = ("--plan", tmp_path / "plan.json", "--apply", "--out", new)
    told = succeeds(cli("prune", noisy.run, *options, *files)).stdout
    assert told.count("--set 'plant={}'") == 2
    kept = read_episodes(new, ValuesConfig())
    train = prepare(load_config(noisy.config)).train
    labels = {task.task_id: task.pooled_labels for task in train.tasks}
    assert len(kept) == 6
    for task in kept.tasks:
        np.testing.assert_array_equal(task.pooled_labels, labels[task.task_id])
    again = noisy.cli("validate", "--set", f"tasks.train={new}", "--set", "plant={}")
    assert SAID not in succeeds(again).stdout


def test_a_checkpoint_is_edited_on_the_planted_tasks(noisy: Case, tmp_path: Path) -> None:
    new = tmp_path / "edited.safetensors"
    options = ("--drop", "tasks", "--by", "label_noise", "--max-fraction", 0.25)
    files = ("--plan", tmp_path / "plan.json", "--edit-checkpoint", new)
    told = succeeds(cli("prune", noisy.run, *options, *files)).stdout
    assert new.exists()
    assert "plant={}" not in told  # the configuration's own tasks go on


def test_another_noise_is_another_run(noisy: Case) -> None:
    outcome = noisy.cli("train", "--resume", "--set", "plant.seed=1")
    assert "another recipe or other tasks" in outcome.error
