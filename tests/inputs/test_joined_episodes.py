"""Tasks with support and query together, cut as the code that made them would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.config.tasks import EpisodesConfig, JoinedConfig, ValuesConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.arrays import write_arrays
from metaaudit.inputs.episodes import read_episodes
from metaaudit.inputs.task_set import SETS, Task, TaskSet
from metaaudit.inputs.tasks import load_tasks

Arrays = dict[str, Any]


def joined(ways: int = 3, each: int = 4, tasks: int = 2) -> Arrays:
    """Tasks whose instances are one class after another."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(ways), each)
    shape = (tasks, len(labels), 1, 3, 3)
    return {
        "data": rng.integers(0, 256, shape, dtype=np.uint8),
        "labels": np.tile(labels, (tasks, 1)),
    }


def write(path: Path, content: Arrays) -> Path:
    write_arrays(path, {name: np.asarray(array) for name, array in content.items()})
    return path


def read(path: Path, shots: int, order: str = "interleaved") -> TaskSet:
    how = JoinedConfig.model_validate({"shots": shots, "order": order})
    return read_episodes(path, ValuesConfig(), how)


def indices(task_set: TaskSet, task: Task) -> list[list[int]]:
    """Which of a task's instances are in its support, and which in its query."""
    found = []
    for name in SETS:
        ids = [task_set.pool.ids[row] for row in task.rows(name)]
        assert all(image_id.startswith(f"{task.task_id}/data/") for image_id in ids)
        found.append([int(image_id.rpartition("/")[2]) for image_id in ids])
    return found


@pytest.mark.parametrize("suffix", ["npz", "h5"])
@pytest.mark.parametrize(("ways", "shots"), [(3, 2), (5, 1), (2, 5)])
def test_interleaved_is_what_learn2learn_does(
    tmp_path: Path, suffix: str, ways: int, shots: int
) -> None:
    content = joined(ways, 2 * shots)
    task_set = read(write(tmp_path / f"a.{suffix}", content), shots)
    adaptation = np.zeros(2 * shots * ways, dtype=bool)
    adaptation[np.arange(shots * ways) * 2] = True
    for row, task in enumerate(task_set.tasks):
        for name, chosen in (("support", adaptation), ("query", ~adaptation)):
            wanted = content["data"][row][chosen]
            assert np.array_equal(task_set.pool.pixels[task.rows(name)], wanted)
            labels = content["labels"][row][chosen]
            assert np.array_equal(task.labels(name), labels)


CUTS: dict[str, tuple[list[int], int, str, list[int]]] = {
    "interleaved, more queries": ([0, 0, 0, 0, 0, 1, 1, 1, 1, 1], 2, "interleaved", [0, 2, 5, 7]),
    "interleaved, mixed": ([0, 1, 1, 0, 1, 0, 0, 1], 2, "interleaved", [0, 1, 4, 5]),
    "interleaved, absent": ([0, -1, 0, 0, 1, 1, -1, 1], 1, "interleaved", [0, 4]),
    "blocked": ([0, 0, 0, 0, 1, 1, 1, 1], 3, "blocked", [0, 1, 2, 4, 5, 6]),
    "blocked, mixed": ([1, 0, 0, 1, 1, 0, 1, 0], 2, "blocked", [0, 1, 2, 3]),
    "as few as can be": ([0, 0, 0, 1, 1, 1], 2, "interleaved", [0, 2, 3, 5]),
}


@pytest.mark.parametrize(("labels", "shots", "order", "support"), CUTS.values(), ids=CUTS.keys())
def test_where_tasks_are_cut(
    tmp_path: Path, labels: list[int], shots: int, order: str, support: list[int]
) -> None:
    content = {"data": joined(1, len(labels), 1)["data"], "labels": [labels]}
    task_set = read(write(tmp_path / "a.npz", content), shots, order)
    query = [i for i, label in enumerate(labels) if label >= 0 and i not in support]
    assert indices(task_set, task_set.tasks[0]) == [support, query]


def test_both_files_are_cut(tmp_path: Path) -> None:
    write(tmp_path / "train.npz", joined() | {"task_id": ["a", "b"]})
    write(tmp_path / "eval.h5", joined(2) | {"class_names": [["x", "y"], ["x", "z"]]})
    config = EpisodesConfig(
        format="episodes",
        train=tmp_path / "train.npz",
        eval=tmp_path / "eval.h5",
        joined=JoinedConfig(shots=2, order="blocked"),
    )
    train, evaluation = load_tasks(config)
    assert train.task_ids == ["a", "b"]
    assert indices(train, train.tasks[1])[0] == [0, 1, 4, 5, 8, 9]
    assert evaluation.tasks[1].class_names == ("x", "z")


def changed(**changes: Any) -> Arrays:
    return joined() | changes


PAIR = {
    "support_x": np.zeros((1, 2, 3), np.uint8),
    "support_y": [[0, 1]],
    "query_x": np.zeros((1, 2, 3), np.uint8),
    "query_y": [[0, 1]],
}

BAD: dict[str, tuple[Arrays, int | None, str]] = {
    "no cut": (joined(), None, "support and query together; expected tasks.joined"),
    "nothing to cut": (PAIR, 1, "holds support_x, and tasks.joined is for files with data and"),
    "two namings": (joined() | PAIR, 2, "holds 'support_x' and 'data'; expected the arrays of one"),
    "two namings, no cut": (joined() | PAIR, None, "holds 'support_x' and 'data'"),
    "no labels": ({"data": joined()["data"]}, 2, "lacks labels; expected data, labels"),
    "ids of a set": (changed(query_id=[["a"] * 12] * 2), 2, "holds 'query_id' and 'data'"),
    "too few": (joined(each=2), 2, "task 'task-0': class 0 has 2 instances; expected at least 3"),
    "no query": (joined(each=1), 1, "task 'task-0': its query set is empty"),
    "labels from 1": (changed(labels=joined()["labels"] + 1), 2, "has label 3 but not 0"),
    "negative label": (changed(labels=joined()["labels"] - 2), 2, "data 0: has label -2"),
    "large label": (changed(labels=joined()["labels"] * 99), 2, "data 4: has label 99; expected"),
    "float labels": (changed(labels=joined()["labels"] / 2), 2, "labels: has dtype float64"),
    "flat labels": (changed(labels=[0, 1]), 2, r"labels: has shape \(2,\); expected \(2, 12\)"),
    "flat data": (changed(data=np.zeros((2, 12), np.uint8)), 2, "data: has shape"),
    "integer data": (changed(data=joined()["data"].astype(int)), 2, "data: has dtype int64"),
    "NaN": (
        changed(data=np.full((2, 12, 4), np.nan)),
        2,
        "task 'task-0', data 0: its input holds NaN",
    ),
    "no tasks": ({name: array[:0] for name, array in joined().items()}, 2, "at least one of each"),
}


@pytest.mark.parametrize("suffix", ["npz", "h5"])
@pytest.mark.parametrize(("content", "shots", "part"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_cut_gives_one_line(
    tmp_path: Path, suffix: str, content: Arrays, shots: int | None, part: str
) -> None:
    path = write(tmp_path / f"bad.{suffix}", content)
    how = None if shots is None else JoinedConfig(shots=shots)
    with pytest.raises(TaskSetError, match=part) as caught:
        read_episodes(path, ValuesConfig(), how)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_flipped_bits_give_tasks_or_one_line(tmp_path: Path, suffix: str) -> None:
    """In an ``.npz`` all has checksums; in HDF5 the arrays have, but not what tells of them."""
    path = write(tmp_path / f"a.{suffix}", joined())
    whole, wanted = path.read_bytes(), read(path, 2)
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, len(whole), 150).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            found = read(path, 2)
            assert suffix == "h5" or found.content_hash == wanted.content_hash
        except TaskSetError as error:
            refused += 1
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
    assert refused
