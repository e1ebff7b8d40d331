"""Labelled data sets: three kinds of files, cut into batches, and the one line that others give."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaaudit.config.tasks import LabelledConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.arrays import write_arrays
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.tasks import load_tasks, write_tasks
from tests.inputs.pictures import as_folder, as_zip, pictures
from tests.inputs.test_idx import images, labels, needs_mnist, write
from tests.small import DATA

Arrays = dict[str, Any]


def arrays(n: int = 20, classes: int = 3, seed: int = 0) -> Arrays:
    """Random inputs, sorted by class."""
    x = np.random.default_rng(seed).random((n, 4), dtype=np.float32)
    return {"x": x, "y": np.sort(np.arange(n) % classes)}


def asked(train: Path, evaluation: Path | None = None, **changes: Any) -> LabelledConfig:
    keys = {"batch": 6, **changes}
    return LabelledConfig(format="labelled", train=train, eval=evaluation or train, **keys)


def written(path: Path, **changes: Any) -> Path:
    """A file of arrays, some of them changed; ``None`` leaves one out."""
    chosen = {k: v for k, v in {**arrays(), **changes}.items() if v is not None}
    write_arrays(path, {name: np.asarray(value) for name, value in chosen.items()})
    return path


def pairs(task_set: TaskSet) -> Counter[tuple[bytes, str]]:
    """Every input with the name of its class."""
    return Counter(
        (task_set.pool.pixels[row].tobytes(), task.class_names[label])
        for task in task_set.tasks
        for row, label in zip(task.query, task.query_y, strict=True)
    )


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_arrays_are_cut_into_batches_without_a_support(tmp_path: Path, suffix: str) -> None:
    train, evaluation = load_tasks(asked(written(tmp_path / f"a{suffix}")))
    given = arrays()
    for task_set in (train, evaluation):
        assert [task.shape for task in task_set.tasks] == [(0, 6), (0, 6), (0, 6), (0, 2)]
        wanted = Counter((x.tobytes(), str(y)) for x, y in zip(given["x"], given["y"], strict=True))
        assert pairs(task_set) == wanted
        assert task_set.labelled
        assert task_set.ways == 3
        assert len(set(task_set.pool.ids)) == 20
    assert train.task_ids == [f"train-s0-0000{number}" for number in range(4)]
    assert evaluation.tasks[0].task_id == "eval-s0-00000"
    # Of a file that is sorted by class, batches hold several; the two sets are drawn apart.
    assert all(len(np.unique(task.query_y)) > 1 for task in train.tasks[:3])
    assert train.tasks[0].query_y.tolist() != evaluation.tasks[0].query_y.tolist()


def test_the_seed_decides_and_a_smaller_set_is_drawn_from_all(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz")
    first, again = (load_tasks(asked(path))[0] for _ in range(2))
    assert first.content_hash == again.content_hash
    other = load_tasks(asked(path, seed=1))[0]
    assert pairs(other) == pairs(first)
    assert other.tasks[0].query.tolist() != first.tasks[0].query.tolist()
    train, evaluation = load_tasks(asked(path, train_size=8, eval_size=5))
    assert train.n_instances == 8
    assert evaluation.n_instances == 5
    assert pairs(train) < pairs(first)
    assert len(train.pool.ids) == 8
    larger = load_tasks(asked(path, batch=100))[0]
    assert [task.shape for task in larger.tasks] == [(0, 20)]


def test_equal_ids_are_one_input_and_names_are_the_classes(tmp_path: Path) -> None:
    given = arrays(6)
    given["x"][5] = given["x"][0]
    ids = ["a", "b", "c", "d", "e", "a"]
    path = written(tmp_path / "a.npz", **given, id=ids, class_names=["cat", "dog", "eel", "fox"])
    train, _ = load_tasks(asked(path))
    assert train.pool.ids == ("a", "b", "c", "d", "e")
    assert train.n_instances == 6
    assert train.tasks[0].class_names == ("cat", "dog", "eel", "fox")
    assert train.ways == 4


def test_integers_of_any_size_and_order_are_read(tmp_path: Path) -> None:
    x = (np.arange(40).reshape(20, 2) / 8).astype(">f8")
    path = written(tmp_path / "a.npz", x=x, y=(np.arange(20) % 3).astype(np.uint8))
    train, _ = load_tasks(asked(path))
    assert train.pool.values(train.tasks[0].query).dtype == np.float64
    assert sorted(train.pool.values(np.arange(20))[:, 0].tolist()) == x[:, 0].tolist()


def test_idx_files_with_the_labels_beside_them(tmp_path: Path) -> None:
    pixels, of = images(), labels()
    train = write(tmp_path / "a", "train", pixels, of)
    held_out = write(tmp_path / "a", "t10k", images(12, seed=1), labels(12), ".gz")
    found, evaluation = load_tasks(asked(train, held_out))
    wanted = Counter((x.tobytes(), str(y)) for x, y in zip(pixels, of, strict=True))
    assert pairs(found) == wanted
    assert found.pool.input_shape == (1, 5, 5)
    assert evaluation.n_instances == 12
    colour = load_tasks(asked(train, held_out, image={"colour": "rgb", "size": 4}))[0]
    assert colour.pool.input_shape == (3, 4, 4)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_folders_of_images_by_class(tmp_path: Path, kind: str) -> None:
    files = pictures(["ant", "bee", "cow"])
    root = (
        as_folder(tmp_path / "set", files)
        if kind == "folder"
        else as_zip(tmp_path / "set.zip", files)
    )
    train, evaluation = load_tasks(asked(root))
    assert train.pool.input_shape == (3, 6, 6)
    assert set(train.pool.ids) == set(files)
    for task in evaluation.tasks:
        for row, label in zip(task.query, task.query_y, strict=True):
            assert evaluation.pool.ids[row].startswith(f"{task.class_names[label]}/")


@needs_mnist
def test_mnist() -> None:
    path = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"
    train, evaluation = load_tasks(asked(path, train_size=100, eval_size=50))
    assert (train.n_instances, evaluation.n_instances) == (100, 50)
    assert train.pool.input_shape == (1, 28, 28)
    assert train.tasks[0].class_names == tuple(map(str, range(10)))


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str, dtype: str) -> None:
    given = arrays()
    x = (given["x"] * 255).astype(dtype)
    names = ["cat", "dog", "é"]
    path = written(tmp_path / "a.npz", x=x, class_names=names)
    image = {"invert": True, "mean": [0.5]} if dtype == "uint8" else {}
    first, _ = load_tasks(asked(path, image=image))
    copy = tmp_path / f"copy{suffix}"
    write_tasks(copy, first)
    again, _ = load_tasks(asked(copy))
    order = {image_id: row for row, image_id in enumerate(again.pool.ids)}
    rows = np.array([order[image_id] for image_id in first.pool.ids])
    every = np.arange(20)
    np.testing.assert_array_equal(again.pool.values(rows), first.pool.values(every))
    label = {}
    for task_set in (first, again):
        for task in task_set.tasks:
            assert task.class_names == tuple(names)
            for row, y in zip(task.query, task.query_y, strict=True):
                assert label.setdefault(task_set.pool.ids[row], y) == y


NAN = arrays()["x"] * np.nan
TWO = ["a"] * 2 + [f"b{row}" for row in range(18)]

BAD_ARRAYS: dict[str, tuple[Arrays, str]] = {
    "no labels": ({"y": None}, "lacks y; expected x, y"),
    "no inputs": ({"x": None}, "lacks x; expected x, y"),
    "unknown": ({"z": [1]}, "unknown array 'z'; expected only x, y, id, class_names"),
    "flat": ({"x": np.arange(20.0)}, r"x: has shape \(20,\); expected \[instances, ...\]"),
    "lengths": ({"y": np.arange(19) % 3}, r"y: has shape \(19,\); expected \(20,\), to match x"),
    "ids": ({"id": ["a"]}, r"id: has shape \(1,\); expected \(20,\), to match x"),
    "empty": ({"x": np.empty((0, 4)), "y": np.empty(0, int)}, "at least one of each"),
    "floats": ({"y": np.zeros(20)}, "y: has dtype float64; expected integers"),
    "integers": ({"x": np.zeros((20, 4), int)}, "x: has dtype int64; expected uint8, float16"),
    "numbers for ids": ({"id": np.arange(20)}, "id: has dtype int64; expected text"),
    "numbers for names": ({"class_names": np.arange(3)}, "class_names: has dtype int64"),
    "negative": ({"y": np.arange(20) % 3 - 1}, r"y, row 0: is -1; expected 0\.\.2"),
    "gap": ({"y": np.arange(20) % 3 * 2}, "y: has label 4 but not 1; expected labels 0..classes-1"),
    "no name": ({"class_names": ["a", "b"]}, r"y, row 14: is 2; expected 0\.\.1, the classes"),
    "same name": ({"class_names": ["a", "b", "a"]}, "class_names: has an empty or repeated name"),
    "line break": ({"class_names": ["a", "b", "c\n"]}, "holds a control character"),
    "id line break": ({"id": ["a\n", *TWO[1:]]}, "holds a control character"),
    "no id": ({"id": ["", *TWO[1:]]}, "id, row 0: is empty"),
    "not finite": ({"x": NAN}, "row 0: its input holds NaN or infinity"),
    "two inputs": ({"id": TWO}, "id 'a' has two different inputs; expected one input an id"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_bad_arrays(tmp_path: Path, changes: Arrays, message: str, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", **changes)
    with pytest.raises(TaskSetError, match=message) as error:
        load_tasks(asked(path))
    assert str(error.value).startswith(str(path))


def test_a_damaged_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(TaskSetError, match="cannot be read"):
        load_tasks(asked(path))


def test_paths_of_no_known_kind(tmp_path: Path) -> None:
    with pytest.raises(TaskSetError, match=r"does not exist; expected a file of arrays \(\.npz"):
        load_tasks(asked(tmp_path / "nothing"))
    with pytest.raises(TaskSetError, match="does not exist"):
        load_tasks(asked(tmp_path / "nothing.npz"))
    (tmp_path / "file").write_bytes(b"something else")
    with pytest.raises(TaskSetError, match="an idx file of uint8 in 3 dimensions"):
        load_tasks(asked(tmp_path / "file"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(TaskSetError, match="holds no images"):
        load_tasks(asked(tmp_path / "folder"))


def test_a_folder_of_splits(tmp_path: Path) -> None:
    root = as_folder(tmp_path, pictures(["train/ant", "test/ant"]))
    message = "has images as split/class/image, in test, train; expected class/image"
    with pytest.raises(TaskSetError, match=message):
        load_tasks(asked(root))
    load_tasks(asked(root / "train", root / "test"))


def test_idx_images_without_labels(tmp_path: Path) -> None:
    path = write(tmp_path, "train", images(), labels())
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(TaskSetError, match="has no labels beside it"):
        load_tasks(asked(path))


@pytest.mark.parametrize("key", ["train_size", "eval_size"])
def test_more_instances_than_there_are(tmp_path: Path, key: str) -> None:
    path = written(tmp_path / "a.npz")
    with pytest.raises(
        TaskSetError, match=f"holds 20 instances; expected at least 21, as tasks.{key}"
    ):
        load_tasks(asked(path, **{key: 21}))


CLASSES = [
    (["a", "b", "c"], ["a", "b", "d"], "has no class 'c'; expected the 3 classes of"),
    (["a", "b", "c"], ["a", "b", "c", "d"], "has class 'd'; expected the 3 classes of"),
    (["a", "b", "c"], ["a", "c", "b"], "has the classes in another order; expected that of"),
]


@pytest.mark.parametrize(("ours", "theirs", "message"), CLASSES)
def test_the_two_sets_have_the_same_classes(
    tmp_path: Path, ours: list[str], theirs: list[str], message: str
) -> None:
    train = written(tmp_path / "a.npz", class_names=ours)
    evaluation = written(tmp_path / "b.npz", class_names=theirs)
    with pytest.raises(TaskSetError, match=message) as error:
        load_tasks(asked(train, evaluation))
    assert str(error.value).startswith(str(evaluation))


def test_the_two_sets_have_inputs_of_one_shape(tmp_path: Path) -> None:
    train = written(tmp_path / "a.npz")
    evaluation = written(tmp_path / "b.npz", x=np.zeros((20, 5), np.float32))
    with pytest.raises(TaskSetError, match=r"b.npz: holds inputs of shape \(5,\); expected \(4,\)"):
        load_tasks(asked(train, evaluation))


@pytest.mark.parametrize("image", [{"size": 8}, {"colour": "grey"}])
def test_arrays_are_not_resized(tmp_path: Path, image: dict[str, Any]) -> None:
    (key,) = image
    with pytest.raises(TaskSetError, match=f"tasks.image.{key}: is for images"):
        load_tasks(asked(written(tmp_path / "a.npz"), image=image))


def test_a_mean_that_fits_no_channel(tmp_path: Path) -> None:
    root = as_folder(tmp_path, pictures(["ant", "bee"]))
    with pytest.raises(TaskSetError, match="mean: has 2 numbers"):
        load_tasks(asked(root, image={"mean": [0.1, 0.2]}))
