"""Tasks of different ways, shots and query counts in one data set, as Meta-Dataset has them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import yaml

from metaaudit.inputs.task_set import SETS, TaskSet
from tests.small import WAYS, Case, cli, digits, settings, succeeds

Array = npt.NDArray[Any]

STEPS = {"inner_lr": 0.3, "steps": 2}
LEARNERS: dict[str, dict[str, Any]] = {
    "maml": STEPS,
    "anil": STEPS,
    "protonet": {},
    "ridge": {"l2": 0.5},
}

SHAPES = ((WAYS, 1, 1), (WAYS, 1, 3), (2, 3, 3), (WAYS, 2, 2), (2, 1, 4))
"""Ways, shots and queries a class: three tasks each. The third and the fourth have one size, six
support and six query instances, and so are computed together."""

SAME = 1e-5
"""Relative to the largest: float32, where products of other sizes round otherwise."""


def part(shape: tuple[int, int, int], seed: int) -> tuple[TaskSet, TaskSet]:
    ways, shots, queries = shape
    return digits(n_train=3, n_eval=1, ways=ways, shots=shots, queries=queries, seed=seed)


def name(shape: tuple[int, int, int]) -> str:
    return "-".join(map(str, shape))


def write_padded(path: Path, parts: Iterable[tuple[str, TaskSet]]) -> None:
    """Writes tasks of all parts, in turn, into arrays with gaps: label -1 and an input of NaN.

    Instances are at the end of their rows in every other task.
    """
    tasks = [
        (f"{prefix}/{row}", task_set, task_set.tasks[row])
        for row in range(3)
        for prefix, task_set in parts
        if row < len(task_set)
    ]
    arrays: dict[str, Array] = {"task_id": np.array([task_id for task_id, _, _ in tasks])}
    for which in SETS:
        slots = max(len(task.rows(which)) for _, _, task in tasks)
        x = np.full((len(tasks), slots, 1, 8, 8), np.nan, dtype=np.float32)
        y = np.full((len(tasks), slots), -1)
        for row, (_, task_set, task) in enumerate(tasks):
            count = len(task.rows(which))
            place = slice(slots - count, slots) if row % 2 else slice(count)
            x[row, place] = task_set.pool.values(task.rows(which))
            y[row, place] = task.labels(which)
        arrays |= {f"{which}_x": x, f"{which}_y": y}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def write_mixed(folder: Path, learner: str) -> Case:
    """Training and evaluation tasks of all shapes, and training tasks of each shape alone."""
    folder.mkdir()
    parts = {name(shape): part(shape, seed) for seed, shape in enumerate(SHAPES)}
    train = {prefix: sets[0] for prefix, sets in parts.items()}
    write_padded(folder / "train.npz", list(train.items()))
    write_padded(folder / "eval.npz", [(prefix, sets[1]) for prefix, sets in parts.items()])
    for prefix, task_set in train.items():
        write_padded(folder / f"{prefix}.npz", [(prefix, task_set)])
    changes = {"learner": {"name": learner, **LEARNERS[learner]}}
    case = Case(folder)
    case.config.write_text(yaml.safe_dump(settings(changes)), encoding="utf-8")
    return case


@pytest.fixture(scope="module", params=LEARNERS)
def mixed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A case for each learner, trained and scored: read it, write only beside what is there."""
    case = write_mixed(tmp_path_factory.mktemp("mixed") / request.param, request.param)
    succeeds(case.cli("train"))
    case.score()
    return case


def table(run: Path, which: str) -> list[dict[str, str]]:
    with (run / which).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def tasks_by_id(run: Path) -> dict[str, dict[str, str]]:
    return {row["task_id"]: row for row in table(run, "tasks.csv")}


def of_instances(run: Path, what: str) -> dict[str, Array]:
    """What ``scores.h5`` has of the instances, in order, by task."""
    with h5py.File(run / "scores.h5") as scores:
        ids = [task_id.decode() for task_id in scores["task_ids"][:]]
        task, values = scores["instances/task"][:], scores[f"instances/{what}"][:]
    return {task_id: values[task == row] for row, task_id in enumerate(ids)}


def influences(run: Path) -> dict[str, Array]:
    """Influence on each evaluation task, times the number of training tasks, by task."""
    with h5py.File(run / "scores.h5") as scores:
        ids = [task_id.decode() for task_id in scores["task_ids"][:]]
        values = len(ids) * scores["task_influence"][:]
    return dict(zip(ids, values, strict=True))


def check_same(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=SAME * float(np.abs(wanted).max()))


def test_every_task_is_validated_scored_and_reported(mixed: Case) -> None:
    said = succeeds(mixed.cli("validate")).stdout
    with np.load(mixed.folder / "train.npz") as file:
        assert all((file[f"{which}_y"] == -1).any() for which in SETS)
    assert "training tasks: 15, 156 instances" in said
    assert "3-way with 3 support and 3 query" in said
    assert "1 to 3 support and 1 to 4 query a class in training" in said
    tasks, instances = tasks_by_id(mixed.run), table(mixed.run, "instances.csv")
    wanted = {f"{name(shape)}/{row}": shape for shape in SHAPES for row in range(3)}
    assert tasks.keys() == wanted.keys()
    assert all(np.isfinite(float(row["influence"])) for row in tasks.values())
    for task_id, (ways, shots, queries) in wanted.items():
        rows = [row for row in instances if row["task_id"] == task_id]
        for which, count in (("support", ways * shots), ("query", ways * queries)):
            indices = sorted(int(row["index"]) for row in rows if row["set"] == which)
            assert indices == list(range(count))
        # The network has outputs for three classes, of which a task of two has no third.
        assert {int(row["suggested_label"]) for row in rows} <= set(range(ways))
        assert all(0 <= float(row["mislabel_score"]) <= 1 for row in rows)
    html = mixed.folder / "report.html"
    succeeds(cli("report", mixed.run, "-f", f"html={html}"))
    assert all(task_id in html.read_text(encoding="utf-8") for task_id in list(tasks)[:3])


@pytest.mark.parametrize("size", [1, 100])
def test_scores_do_not_depend_on_how_many_tasks_are_computed_at_once(
    mixed: Case, size: int
) -> None:
    run = mixed.score(f"by-{size}", "--set", f"compute.task_batch={size}")
    with h5py.File(run / "scores.h5") as found, h5py.File(mixed.run / "scores.h5") as wanted:
        assert found["task_ids"][:].tolist() == wanted["task_ids"][:].tolist()
        for what in (
            "task_influence",
            *(f"instances/{name}" for name in ("influence", "loss", "signal")),
            "instances/mislabel_score",
        ):
            assert wanted[what][:].any()
            check_same(found[what][:], wanted[what][:])


@pytest.mark.parametrize("shape", SHAPES[::2], ids=name)
def test_a_task_does_not_depend_on_the_shapes_of_the_others(
    mixed: Case, shape: tuple[int, int, int]
) -> None:
    """By ``dot``, whose influence of a task has nothing of the others in it but their number."""
    dot = ("--set", "influence.method=dot")
    every = mixed.folder / "dot"
    if not every.exists():
        mixed.score("dot", *dot)
    alone = (*dot, "--set", f"tasks.train={name(shape)}.npz", "--set", "compute.task_batch=1")
    run = mixed.score(f"alone-{name(shape)}", *alone)
    found, wanted = tasks_by_id(run), tasks_by_id(every)
    assert sorted(found) == [f"{name(shape)}/{row}" for row in range(3)]
    for what in ("outer_loss", "grad_norm"):
        for task_id, row in found.items():
            assert float(row[what]) == pytest.approx(float(wanted[task_id][what]), rel=SAME)
    for task_id, values in influences(run).items():
        check_same(values, influences(every)[task_id])
    for what in ("loss", "signal"):
        together = of_instances(every, what)
        for task_id, values in of_instances(run, what).items():
            check_same(values, together[task_id])
