"""Tasks in files: round trips, and the one line that a broken file gives."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaaudit.config.tasks import EpisodesConfig, ValuesConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.arrays import write_arrays
from metaaudit.inputs.episodes import load_episodes, read_episodes, write_episodes
from metaaudit.inputs.task_set import SETS, ImagePool, Task, TaskSet
from metaaudit.inputs.tasks import load_tasks

Arrays = dict[str, Any]
DEFAULT = ValuesConfig()
SUFFIXES = ["npz", "h5", "hdf5"]


def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "support_x": rng.integers(0, 256, (2, 4, 1, 3, 3), dtype=np.uint8),
        "support_y": np.array([[0, 1, 0, 1], [1, 0, 1, 0]]),
        "query_x": rng.integers(0, 256, (2, 3, 1, 3, 3), dtype=np.uint8),
        "query_y": np.array([[0, 1, 1], [1, 0, 0]]),
    }


def write(path: Path, content: Arrays) -> Path:
    write_arrays(path, {name: np.asarray(array) for name, array in content.items()})
    return path


def with_changes(**changes: Any) -> Arrays:
    return arrays() | changes


def check_same_inputs(found: TaskSet, wanted: TaskSet) -> None:
    for ours, theirs in zip(found.tasks, wanted.tasks, strict=True):
        assert ours.task_id == theirs.task_id
        assert ours.class_names == theirs.class_names
        for name in SETS:
            rows, others = ours.rows(name), theirs.rows(name)
            assert np.array_equal(found.pool.values(rows), wanted.pool.values(others))
            assert np.array_equal(ours.labels(name), theirs.labels(name))
            ids = [found.pool.ids[row] for row in rows]
            assert ids == [wanted.pool.ids[row] for row in others]


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=5)


@st.composite
def task_sets(draw: st.DrawFn) -> TaskSet:
    """Task sets of different sizes over one pool, with ids and class names of any text."""
    ids = draw(st.lists(TEXT, min_size=2, max_size=6, unique=True))
    shape = draw(st.sampled_from([(1, 2, 2), (2, 3), (4,)]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    kind = draw(st.sampled_from(["uint8", "float16", "float32", "float64"]))
    pixels = rng.integers(0, 256, (len(ids), *shape)).astype(kind)
    tasks = []
    for task_id in draw(st.lists(TEXT, min_size=1, max_size=3, unique=True)):
        ways = draw(st.integers(1, 3))
        sizes = draw(st.tuples(st.integers(ways, 5), st.integers(1, 4)))
        rows = [rng.integers(0, len(ids), size) for size in sizes]
        support_y = rng.permutation(np.arange(sizes[0]) % ways)
        query_y = rng.integers(0, ways, sizes[1])
        names = tuple(draw(st.lists(TEXT, min_size=ways, max_size=ways)))
        named = names if draw(st.booleans()) else ()
        tasks.append(Task(task_id, rows[0], support_y, rows[1], query_y, named))
    return TaskSet(ImagePool(pixels, tuple(ids)), tuple(tasks))


@pytest.mark.parametrize("suffix", ["npz", "h5"])
@given(task_set=task_sets())
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_round_trip(tmp_path: Path, suffix: str, task_set: TaskSet) -> None:
    path = tmp_path / f"tasks.{suffix}"
    write_episodes(path, task_set)
    found = read_episodes(path, DEFAULT)
    assert found.content_hash == task_set.content_hash
    check_same_inputs(found, task_set)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "image", [{"invert": True}, {"scale": 1.0}, {"scale": 127.5, "invert": True}]
)
def test_image_options_are_baked_in(tmp_path: Path, suffix: str, image: Any) -> None:
    source = write(tmp_path / f"a.{suffix}", arrays())
    task_set = read_episodes(source, ValuesConfig(**image))
    write_episodes(tmp_path / f"b.{suffix}", task_set)
    check_same_inputs(read_episodes(tmp_path / f"b.{suffix}", DEFAULT), task_set)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_equal_content_gives_equal_bytes(tmp_path: Path, suffix: str) -> None:
    task_set = read_episodes(write(tmp_path / "a.npz", arrays()), DEFAULT)
    paths = [tmp_path / f"{name}.{suffix}" for name in "xy"]
    for path in paths:
        write_episodes(path, task_set)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_defaults_absent_slots_and_shared_images(tmp_path: Path, suffix: str) -> None:
    content = arrays()
    content["support_y"][1, 2] = -1
    content["query_x"][1] = content["query_x"][0]
    content["query_id"] = [["p", "q", "r"], ["p", "q", "r"]]
    task_set = read_episodes(write(tmp_path / f"a.{suffix}", content), DEFAULT)
    assert task_set.task_ids == ["task-0", "task-1"]
    assert [task.shape for task in task_set.tasks] == [(4, 3), (3, 3)]
    ids = [task_set.pool.ids[row] for row in task_set.tasks[1].support]
    assert ids == ["task-1/support/0", "task-1/support/1", "task-1/support/3"]
    assert np.array_equal(task_set.tasks[0].query, task_set.tasks[1].query)
    assert len(task_set.pool.ids) == len(task_set.pool.pixels) == 10
    assert task_set.pool.input_shape == (1, 3, 3)


def test_text_of_other_writers_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", arrays())
    with h5py.File(path, "a") as file:
        file["task_id"] = ["eins", "zwölf"]  # variable length
    assert read_episodes(path, DEFAULT).task_ids == ["eins", "zwölf"]
    np.savez(tmp_path / "a.npz", task_id=np.array([b"a", b"b"]), **arrays())
    assert read_episodes(tmp_path / "a.npz", DEFAULT).task_ids == ["a", "b"]


NAMINGS = {
    "maml-pytorch": ("x_spt", "y_spt", "x_qry", "y_qry"),
    "torchmeta": ("train_inputs", "train_targets", "test_inputs", "test_targets"),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("names", NAMINGS.values(), ids=NAMINGS.keys())
def test_names_of_other_code_bases(tmp_path: Path, suffix: str, names: tuple[str, ...]) -> None:
    ids = {"task_id": ["a", "b"], "query_id": [["p", "q", "r"], ["s", "t", "u"]]}
    own = write(tmp_path / f"own.{suffix}", with_changes(**ids))
    renamed = dict(zip(names, arrays().values(), strict=True)) | ids
    other = write(tmp_path / f"other.{suffix}", renamed)
    wanted = read_episodes(own, DEFAULT)
    assert read_episodes(other, DEFAULT).content_hash == wanted.content_hash
    renamed[names[3]] = [[0, 1, 2], [0, 0, 0]]
    with pytest.raises(TaskSetError, match="label 2 is in its query"):
        read_episodes(write(other, renamed), DEFAULT)
    del renamed[names[1]]
    with pytest.raises(TaskSetError, match=f"lacks {names[1]}; expected {', '.join(names)}"):
        read_episodes(write(other, renamed), DEFAULT)
    with pytest.raises(TaskSetError, match=f"holds 'support_x' and '{names[0]}'; expected"):
        read_episodes(write(other, renamed | arrays()), DEFAULT)


def test_foreign_orders_of_bytes_and_axes(tmp_path: Path) -> None:
    content = {name: a.astype(np.float32) for name, a in arrays().items() if a.ndim > 2}
    wanted = read_episodes(write(tmp_path / "a.npz", with_changes(**content)), DEFAULT)
    turned = {name: np.asfortranarray(a.astype(">f4")) for name, a in content.items()}
    found = read_episodes(write(tmp_path / "b.npz", with_changes(**turned)), DEFAULT)
    assert found.content_hash == wanted.content_hash


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_no_input_is_held_twice(tmp_path: Path, suffix: str) -> None:
    """Beside the pool there is one task, and a block of HDF5, and not the whole of an array."""
    shape, megabyte = (64, 8, 1, 128, 128), 1 << 20
    content = {
        "support_x": np.zeros(shape, np.float32),
        "support_y": np.tile(np.arange(8) % 2, (64, 1)),
        "query_x": np.zeros(shape, np.float32),
        "query_y": np.tile(np.arange(8) % 2, (64, 1)),
    }
    path = write(tmp_path / f"large.{suffix}", content)
    del content
    tracemalloc.start()
    task_set = read_episodes(path, DEFAULT)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert task_set.pool.pixels.nbytes == 64 * megabyte
    assert peak < (64 + 40) * megabyte


def test_load_tasks_reads_both_files(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", arrays())
    write(tmp_path / "b.h5", with_changes(task_id=["x", "y"]))
    config = EpisodesConfig(format="episodes", train=tmp_path / "a.npz", eval=tmp_path / "b.h5")
    train, evaluation = load_tasks(config)
    assert [train.task_ids, evaluation.task_ids] == [["task-0", "task-1"], ["x", "y"]]
    flat = {name: a.reshape(*a.shape[:2], -1) for name, a in arrays().items() if a.ndim > 2}
    write(tmp_path / "b.h5", with_changes(**flat))
    with pytest.raises(TaskSetError, match=r"inputs of shape \(9,\); expected \(1, 3, 3\)"):
        load_episodes(config)


def floats(value: float) -> Arrays:
    content = {name: a.astype(np.float32) for name, a in arrays().items() if a.ndim > 2}
    content["query_x"][1, 2, 0, 1, 1] = value
    return with_changes(**content)


def truncated(name: str, count: int) -> Arrays:
    return with_changes(**{name: arrays()[name][:count]})


BAD: dict[str, tuple[Arrays, str]] = {
    "query label not in support": (
        with_changes(query_y=[[0, 1, 2], [0, 0, 0]]),
        "task 'task-0': label 2 is in its query but not in its support",
    ),
    "gap in labels": (
        with_changes(support_y=[[0, 1, 0, 1], [0, 2, 0, 2]], query_y=[[0, 0, 0]] * 2),
        "task 'task-1': has label 2 but not 1",
    ),
    "label out of range": (
        with_changes(query_y=[[0, 1, 2**62], [0, 0, 0]]),
        "task 'task-0', query 2: has label 4611686018427387904",
    ),
    "negative label": (with_changes(query_y=[[0, 1, -2], [0, 0, 0]]), "has label -2"),
    "float labels": (
        with_changes(query_y=arrays()["query_y"].astype(float)),
        "query_y: has dtype float64; expected integers; array.astype",
    ),
    "bool labels": (with_changes(query_y=arrays()["query_y"] > 0), "dtype bool"),
    "unequal tasks": (truncated("query_x", 1), r"query_x: has shape \(1, 3, 1, 3, 3\); expected"),
    "unequal labels": (truncated("support_y", 1), r"support_y: has shape \(1, 4\)"),
    "unequal inputs": (with_changes(query_x=arrays()["query_x"][..., :2]), "query_x: has shape"),
    "no tasks": ({name: a[:0] for name, a in arrays().items()}, "at least one of each"),
    "no query": ({n: a[:, :0] if n[0] == "q" else a for n, a in arrays().items()}, "query_x: has"),
    "all slots absent": (with_changes(query_y=[[0, 1, 1], [-1, -1, -1]]), "query set is empty"),
    "flat": (with_changes(support_x=np.zeros((2, 4), np.uint8)), "tasks, instances"),
    "missing array": ({"support_x": arrays()["support_x"]}, "lacks support_y, query_x, query_y"),
    "unknown array": (with_changes(suport_id=[["a"]]), "unknown array 'suport_id'"),
    "NaN": (floats(np.nan), "task 'task-1', query 2: its input holds NaN"),
    "infinity": (floats(np.inf), "holds NaN or infinity"),
    "integer inputs": (with_changes(query_x=arrays()["query_x"].astype(int)), "dtype int64"),
    "mixed inputs": (
        with_changes(query_x=floats(0)["query_x"]),
        "has dtype float32; expected uint8",
    ),
    "repeated task": (with_changes(task_id=["a", "a"]), "row 1 repeats 'a'"),
    "empty task id": (with_changes(task_id=["a", ""]), "row 1 is empty"),
    "numbers as ids": (with_changes(task_id=[1, 2]), "task_id: has dtype int64; expected text"),
    "empty id": (with_changes(query_id=[["a", "b", ""]] * 2), "query_id is empty"),
    "id of two images": (with_changes(query_id=[["a", "b", "a"]] * 2), "'a' has two different"),
    "line break in a task id": (
        with_changes(task_id=["a", "b\nc"]),
        r"task_id: 'b\\nc' holds a control character",
    ),
    "NUL in an id": (
        with_changes(query_id=[["a", "b\0c", "d"]] * 2),
        r"query_id: 'b\\x00c' holds a control character",
    ),
    "escape in a class name": (
        with_changes(class_names=[["a", "b"], ["a", "\x1b[31m"]]),
        r"class_names: '\\x1b\[31m' holds a control character",
    ),
    "few class names": (with_changes(class_names=[["a", "b"], ["a", ""]]), "names 1 classes"),
    "labels from 1": (
        with_changes(support_y=[[1, 2, 1, 2]] * 2, query_y=[[1, 2, 2]] * 2),
        "task 'task-0': has label 2 but not 0; expected labels 0..ways-1; renumber them",
    ),
    "another naming's array": (with_changes(x_spt=[[1]]), "holds 'support_x' and 'x_spt'"),
    "wrong ids": (with_changes(query_id=[["a"], ["b"]]), r"query_id: has shape \(2, 1\)"),
}


@pytest.mark.parametrize("name", ["task_id", "support_id", "query_id", "class_names"])
def test_half_a_character_gives_one_line(tmp_path: Path, name: str) -> None:
    shape = {"task_id": (2,), "support_id": (2, 4), "query_id": (2, 3), "class_names": (2, 2)}[name]
    content = with_changes(**{name: np.full(shape, "\ud800")})
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(TaskSetError, match=r"'\\ud800' holds .* half a Unicode character"):
        read_episodes(tmp_path / "bad.npz", DEFAULT)


@pytest.mark.parametrize("suffix", ["npz", "h5"])
@pytest.mark.parametrize(("content", "part"), BAD.values(), ids=BAD.keys())
def test_bad_content_gives_one_line(
    tmp_path: Path, suffix: str, content: Arrays, part: str
) -> None:
    path = write(tmp_path / f"bad.{suffix}", content)
    with pytest.raises(TaskSetError, match=part) as caught:
        read_episodes(path, DEFAULT)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code of a file ran",)


def npz_with_objects(path: Path) -> None:
    objects = np.array([Evil()], dtype=object)
    np.savez(path, task_id=objects, **arrays())


def single(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.ones(3))


def bare_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


def half(path: Path) -> None:
    write(path, arrays())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    write(path, arrays())
    data = bytearray(path.read_bytes())
    with h5py.File(path) as file:
        chunk = file["support_x"].id.get_chunk_info(0)
    data[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(data)


def replaced_link(link: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        write(path.with_name("other.h5"), arrays())
        write(path, arrays())
        with h5py.File(path, "a") as file:
            del file["query_x"]
            file["query_x"] = link

    return make


def with_bytes(extra: int) -> Callable[[Path], None]:
    """A whole ``.npz`` with an array that is longer or shorter than it says."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays().items():
                stream = io.BytesIO()
                np.save(stream, array)
                data = stream.getvalue() + bytes(max(extra, 0))
                archive.writestr(f"{name}.npy", data[:extra] if extra < 0 else data)

    return make


def stored_outside(path: Path) -> None:
    content = arrays()
    outside = path.with_name("raw.bin")
    outside.write_bytes(content["query_x"].tobytes())
    write(path, content)
    with h5py.File(path, "a") as file:
        del file["query_x"]
        shape = content["query_x"].shape
        where = [(str(outside), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("query_x", shape, "u1", external=where)


def virtual(path: Path) -> None:
    other = write(path.with_name("other.h5"), arrays())
    write(path, arrays())
    with h5py.File(path, "a") as file:
        del file["query_x"]
        layout = h5py.VirtualLayout((2, 3, 1, 3, 3), "u1")
        layout[...] = h5py.VirtualSource(other, "query_x", (2, 3, 1, 3, 3))
        file.create_virtual_dataset("query_x", layout)


def huge(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name in ("support_x", "support_y", "query_x", "query_y"):
            file.create_dataset(name, (10**9, 10**6, 28), "u1", chunks=(1, 1, 28))


BAD_FILES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("objects.npz", npz_with_objects, "task_id: holds Python objects"),
    ("pickle.npz", bare_pickle, "cannot be read"),
    ("single.npz", single, "holds one array"),
    ("empty.npz", lambda path: path.touch(), "cannot be read"),
    ("empty.h5", lambda path: path.touch(), "cannot be read"),
    ("half.npz", half, "cannot be read"),
    ("half.h5", half, "cannot be read"),
    ("flipped.h5", flipped, "cannot be read"),
    ("external.h5", replaced_link(h5py.ExternalLink("other.h5", "query_x")), "query_x: is a link"),
    ("soft.h5", replaced_link(h5py.SoftLink("/support_x")), "query_x: is a link"),
    ("outside.h5", stored_outside, "query_x: is stored in another file"),
    ("virtual.h5", virtual, "query_x: is stored in another file"),
    ("huge.h5", huge, "does not fit into memory"),
    ("long.npz", with_bytes(1), "cannot be read .an array is longer than its header says"),
    ("short.npz", with_bytes(-1), "cannot be read"),
    ("wrong.csv", lambda path: path.touch(), "has the suffix '.csv'"),
    ("missing.npz", lambda path: None, "does not exist"),
    ("folder.npz", lambda path: path.mkdir(), "is a folder"),
]


@pytest.mark.parametrize(
    ("name", "make", "part"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES]
)
def test_bad_file_gives_one_line(
    tmp_path: Path, name: str, make: Callable[[Path], Any], part: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(TaskSetError, match=part) as caught:
        read_episodes(tmp_path / name, DEFAULT)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    whole = read_episodes(write(tmp_path / "a.npz", arrays()), DEFAULT)
    task = whole.tasks[0]
    empty = Task("t", task.support, task.support_y, task.query[:0], task.query_y[:0])
    named = Task("a\0", task.support, task.support_y, task.query, task.query_y)
    out = tmp_path / "out"
    for name, tasks, part in (
        ("b.csv", whole.tasks, "suffix"),
        ("b.npz", (), "would hold no tasks"),
        ("b.h5", (empty,), "query set is empty"),
        ("b.h5", (named,), r"'a\\x00' holds a control character"),
    ):
        with pytest.raises(TaskSetError, match=part):
            write_episodes(out / name, TaskSet(whole.pool, tasks))
    assert not out.exists()
