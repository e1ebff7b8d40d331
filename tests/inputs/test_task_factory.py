"""Tasks from the user's own code, which meet every check that those in files do."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.config.tasks import EpisodesConfig, TaskFactoryConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.arrays import write_arrays
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks

START = """
import numpy as np

def task(ways=2, shots=2, queries=3, seed=0, **changes):
    rng = np.random.default_rng(seed)
    support_y, query_y = np.arange(ways * shots) % ways, np.arange(queries) % ways
    shape = (1, 3, 3)
    return {
        "support_x": rng.integers(0, 256, (len(support_y), *shape), dtype=np.uint8),
        "support_y": support_y,
        "query_x": rng.integers(0, 256, (len(query_y), *shape), dtype=np.uint8),
        "query_y": query_y,
    } | changes

def without(name):
    whole = task()
    del whole[name]
    return whole

"""

numbers = itertools.count()


def load(folder: Path, body: str, **changes: Any) -> tuple[TaskSet, TaskSet]:
    """Tasks of a factory ``make`` with this body."""
    module = f"own_tasks_{next(numbers)}"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    (folder / f"{module}.py").write_text(f"{START}def make(**args):\n{lines}\n")
    content = {"format": "factory", "factory": f"{module}:make", "path": folder}
    return load_tasks(TaskFactoryConfig.model_validate(content | changes))


def test_tasks_of_different_sizes(tmp_path: Path) -> None:
    body = "return [task(2, 1, 4), task(3, 2, 5, seed=1)], (task(seed=i) for i in range(3))"
    train, evaluation = load(tmp_path, body)
    assert [task.shape for task in train.tasks] == [(2, 4), (6, 5)]
    assert (train.ways, evaluation.ways) == (3, 2)
    assert train.task_ids == ["task-0", "task-1"]
    assert evaluation.task_ids == ["task-0", "task-1", "task-2"]
    rng = np.random.default_rng(1)
    support = rng.integers(0, 256, (6, 1, 3, 3), dtype=np.uint8)
    assert np.array_equal(train.pool.pixels[train.tasks[1].support], support)
    assert train.pool.ids[train.tasks[1].query[0]] == "task-1/query/0"
    assert len(train.pool.pixels) == len(train.pool.ids) == 17


def test_ids_names_arguments_and_image_options(tmp_path: Path) -> None:
    body = """
x = np.full((2, 4), args["value"], np.uint8)
one = {"support_x": x, "support_y": [0, 1], "query_x": x, "query_y": (1, -1)}
ids = {"task_id": "a", "support_id": ["p", "q"], "query_id": ["q", ""], "class_names": ["x", "y"]}
return [one | ids], [one]
"""
    image = {"scale": 100.0, "mean": [1.0]}
    train, evaluation = load(tmp_path, body, args={"value": 50}, image=image)
    (task,) = train.tasks
    assert (task.task_id, task.class_names, task.shape) == ("a", ("x", "y"), (2, 1))
    assert train.pool.ids == ("p", "q")
    assert len(train.pool.pixels) == 2
    assert task.query.tolist() == [1]
    assert np.array_equal(train.pool.values(task.support), np.full((2, 4), -0.5))
    assert evaluation.pool.ids[-1] == "task-0/query/0"


def test_the_same_tasks_as_from_files(tmp_path: Path) -> None:
    body = "return [task(seed=0), task(seed=1)], [task(seed=2)]"
    made = load(tmp_path, body)
    scope: dict[str, Any] = {}
    exec(START, scope)
    for name, seeds in (("train", (0, 1)), ("eval", (2,))):
        tasks = [scope["task"](seed=seed) for seed in seeds]
        arrays = {key: np.stack([task[key] for task in tasks]) for key in tasks[0]}
        write_arrays(tmp_path / f"{name}.npz", arrays)
    files = EpisodesConfig(
        format="episodes", train=tmp_path / "train.npz", eval=tmp_path / "eval.npz"
    )
    for ours, theirs in zip(made, load_tasks(files), strict=True):
        assert ours.content_hash == theirs.content_hash


def test_tensors_and_a_buffer_that_is_used_again(tmp_path: Path) -> None:
    body = """
import torch
x = torch.zeros(4, 2)
def tasks():
    for value in (1.0, 2.0):
        x.fill_(value)
        yield {"support_x": x, "support_y": torch.tensor([0, 1, 0, 1]),
               "query_x": x, "query_y": torch.tensor([0, 1, 0, 1])}
return tasks(), tasks()
"""
    for task_set in load(tmp_path, body):
        pixels = task_set.pool.pixels
        assert pixels.dtype == np.float32
        assert pixels[task_set.tasks[0].support].max() == 1.0
        assert pixels[task_set.tasks[1].query].min() == 2.0


def test_a_generator_may_import_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "own_lazy.py").write_text("SEED = 5\n")
    body = """
def tasks():
    import own_lazy
    yield task(seed=own_lazy.SEED)
return tasks(), tasks()
"""
    assert len(load(tmp_path, body)[1]) == 1


def test_one_task_is_asked_for_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = """
def tasks():
    for row in range(3):
        print("task", row)
        yield task(task_id="same")
return tasks(), tasks()
"""
    with pytest.raises(TaskSetError, match="training: task_id: row 1 repeats 'same'"):
        load(tmp_path, body)
    assert capsys.readouterr() == ("", "task 0\ntask 1\n")


def of(change: str) -> str:
    return f"return [task(), task(seed=1, {change})], [task()]"


BAD: dict[str, tuple[str, str]] = {
    "nothing": ("return None", "returned a NoneType; expected the training and the evaluation"),
    "one list": ("return [task()]", "returned a list of 1; expected"),
    "three lists": ("return [], [], []", "returned a tuple of 3"),
    "one mapping": ("return task()", "returned a dict; expected the training"),
    "a mapping as tasks": ("return task(), [task()]", "training task 0: is a str; expected a mapp"),
    "numbers as tasks": ("return 1, 2", "training: is a int; expected"),
    "a number as a task": ("return [1], [task()]", "training task 0: is a int"),
    "no tasks": ("return [task()], []", "evaluation: holds no tasks"),
    "a generator that fails": (
        "def tasks():\n    yield task()\n    raise ValueError('a\\nb')\nreturn tasks(), tasks()",
        r"failed with ValueError: a b$",
    ),
    "a task that fails": (
        "class Lazy(dict):\n    def __getitem__(self, key):\n        raise LookupError\n"
        "return [Lazy(task())], []",
        r"failed with LookupError$",
    ),
    "no labels": ("return [without('query_y')], []", "training task 0: lacks query_y; expected"),
    "an unknown key": (of("suport_id=['a']"), "task 1: has the unknown key 'suport_id'; expected"),
    "a key of another code base": (of("x_spt=1"), "has the unknown key 'x_spt'"),
    "ragged": (of("query_x=[[1], [1, 2], [3]]"), "query_x: is a list that NumPy makes no array of"),
    "objects": (of("query_x=[None] * 3"), "query_x: has "),
    "a tensor with a gradient": (
        "import torch\n" + of("query_x=torch.zeros(3, 1, 3, 3, requires_grad=True)"),
        "query_x: is a Tensor that NumPy makes no array of",
    ),
    "integers": (of("query_x=np.zeros((3, 1, 3, 3), int)"), "query_x: has dtype int64"),
    "two types": (
        of("query_x=np.zeros((3, 1, 3, 3))"),
        "query_x: has dtype float64; expected uint8",
    ),
    "float labels": (of("query_y=[0.0, 1.0, 0.0]"), "query_y: has dtype float64; expected integer"),
    "text labels": (of("query_y=['a', 'b', 'a']"), "query_y: has dtype <U1; expected integers"),
    "few labels": (of("query_y=[0, 1]"), r"task 1: query_y: has shape \(2,\); expected \(3,\)"),
    "one label": (of("query_y=0"), r"query_y: has shape \(\)"),
    "no dimensions": (
        of("support_x=np.zeros(4, np.uint8)"),
        r"support_x: has shape \(4,\); expected \[instances, ...\]",
    ),
    "other inputs": (of("query_x=np.zeros((3, 9), np.uint8)"), r"query_x: has shape \(3, 9\)"),
    "no queries": (
        of("query_x=np.zeros((0, 1, 3, 3), np.uint8), query_y=np.zeros(0, int)"),
        "at least one of each",
    ),
    "an absent support": (of("support_y=[-1] * 4"), "task 'task-1': its support set is empty"),
    "labels from 1": (
        of("support_y=[1, 2, 1, 2], query_y=[1, 2, 1]"),
        "task 'task-1': has label 2 but not 0",
    ),
    "an unknown query label": (of("query_y=[0, 1, 2]"), "label 2 is in its query but not in its"),
    "a label out of range": (of("query_y=[0, 1, 4]"), "task 1, query 2: has label 4; expected 0.."),
    "a negative label": (of("query_y=[0, 1, -2]"), "has label -2"),
    "NaN": (
        "nan = np.full((3, 1, 3, 3), np.nan)\n"
        "return [task(query_x=nan, support_x=np.zeros((4, 1, 3, 3)))], [task()]",
        "task 0, query 0: its input holds NaN or infinity",
    ),
    "an empty id": (of("query_id=['a', '', 'b']"), "query 1: its query_id is empty"),
    "an id of two inputs": (of("query_id=['a', 'a', 'b']"), "id 'a' has two different inputs"),
    "numbers as ids": (of("query_id=[1, 2, 3]"), "query_id: has dtype int64; expected text"),
    "a number as task id": (of("task_id=1"), "task_id: has dtype int64; expected text"),
    "an empty task id": (of("task_id=''"), "task_id: row 1 is empty"),
    "a list of task ids": (of("task_id=['a']"), r"task_id: has shape \(1,\); expected \(\)"),
    "a control character": (of("task_id='a\\x1b'"), r"task_id: 'a\\x1b' holds a control character"),
    "few class names": (of("class_names=['a']"), "names 1 classes; expected 2 names"),
    "one class name": (of("class_names='a'"), "class_names: has shape"),
    "tasks of two shapes": (
        "x = np.zeros((4, 9), np.uint8)\nreturn [task(), task(support_x=x, query_x=x[:3])], []",
        r"training: task 'task-1': has inputs of shape \[9\]; expected \[1, 3, 3\], as those",
    ),
    "tasks of two types": (
        "x = np.zeros((4, 1, 3, 3))\nreturn [task(), task(support_x=x, query_x=x[:3])], []",
        "has inputs of dtype float64; expected uint8, as those before it",
    ),
    "another shape in evaluation": (
        "x = np.zeros((4, 9), np.uint8)\nreturn [task()], [task(support_x=x, query_x=x[:3])]",
        r"evaluation: has inputs of shape \(9,\); expected \(1, 3, 3\), as training",
    ),
}


@pytest.mark.parametrize(("body", "part"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_used_gives_one_line(tmp_path: Path, body: str, part: str) -> None:
    with pytest.raises(TaskSetError, match=part) as caught:
        load(tmp_path, body)
    assert str(caught.value).startswith("tasks.factory own_tasks_")
    assert "\n" not in str(caught.value)


def test_the_image_options_have_to_fit(tmp_path: Path) -> None:
    with pytest.raises(TaskSetError, match=r"tasks\.image\.mean: has 2 numbers"):
        load(tmp_path, "return [task()], [task()]", image={"mean": [1.0, 2.0]})


def test_two_folders_with_one_module_name(tmp_path: Path) -> None:
    found = []
    for value in ("a", "b", "a"):
        body = f"def make():\n    return [task(task_id='{value}')], [task()]\n"
        (tmp_path / value).mkdir(exist_ok=True)
        (tmp_path / value / "own_shared.py").write_text(START + body)
        config = TaskFactoryConfig(
            format="factory", factory="own_shared:make", path=tmp_path / value
        )
        found.append(load_tasks(config)[0].task_ids)
    assert found == [["a"], ["b"], ["a"]]
