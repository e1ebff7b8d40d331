"""The factor cache: what it may return, and what it must notice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from filelock import FileLock

from metaaudit import audit
from metaaudit.curvature import FactorCache, factor_cache
from metaaudit.curvature.factor_cache import Arrays, seal
from metaaudit.errors import RunError
from tests.small import Case, digits, files, succeeds, write_case

KEY: dict[str, Any] = {
    "weights": "a" * 64,
    "dtype": "float32",
    "learner": {"name": "maml", "inner_lr": 0.4, "steps": 3},
    "source": None,
}

CHANGED: list[dict[str, Any]] = [
    {"weights": "a" * 63 + "b"},
    {"dtype": "float64"},
    {"learner": {"name": "maml", "inner_lr": 0.4, "steps": 4}},
    {"learner": {"name": "maml", "inner_lr": 0.4000000000000001, "steps": 3}},
    {"source": "null"},
    {"one more": 1},
]


def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "gradients": rng.normal(size=(6, 40)).astype(np.float32),
        "losses": rng.normal(size=6),
        "correct": rng.random(6) > 0.5,
        "rows": np.arange(6),
    }


def assert_same(got: Arrays, expected: Arrays) -> None:
    assert set(got) == set(expected)
    for name, values in expected.items():
        assert got[name].dtype == values.dtype, name
        np.testing.assert_array_equal(got[name], values, err_msg=name)


def refuse() -> Arrays:
    raise AssertionError("computed again")


def get(
    cache: FactorCache, compute: Any = arrays, key: dict[str, Any] | None = None, label: str = "x"
) -> Arrays:
    return cache.get("gradients", KEY if key is None else key, compute, label=label)


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.h5")
    return path


def test_second_request_reads_what_the_first_computed(tmp_path: Path) -> None:
    first = FactorCache(tmp_path)
    assert not first.holds("gradients", KEY)
    assert_same(get(first), arrays())
    assert first.uses["x"].status == "computed"
    assert first.holds("gradients", KEY)

    second = FactorCache(tmp_path)
    assert_same(get(second, refuse), arrays())
    assert second.uses["x"].status == "hit"
    assert second.uses["x"].key == first.uses["x"].key
    assert second.warnings == []


def test_order_of_the_key_does_not_matter(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    assert_same(get(FactorCache(tmp_path), refuse, dict(reversed(KEY.items()))), arrays())


@pytest.mark.parametrize("change", CHANGED, ids=[str(change) for change in CHANGED])
def test_any_other_dependency_misses(tmp_path: Path, change: dict[str, Any]) -> None:
    cache = FactorCache(tmp_path)
    get(cache)
    other = {"other": np.ones(2)}
    assert_same(get(cache, lambda: other, KEY | change), other)
    assert_same(get(cache, refuse), arrays())


def test_another_name_misses(tmp_path: Path) -> None:
    cache = FactorCache(tmp_path)
    get(cache)
    other = {"other": np.ones(2)}
    assert_same(cache.get("crossfit", KEY, lambda: other, label="x"), other)


def test_failed_computation_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Arrays:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(FactorCache(tmp_path), fail)
    assert [path for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    assert_same(get(FactorCache(tmp_path)), arrays())


KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
import h5py
import numpy as np
from metaaudit.curvature.factor_cache import FactorCache

create = h5py.Group.create_dataset
def create_and_die(self, name, **options):
    create(self, name, **options)
    self.file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

h5py.Group.create_dataset = create_and_die
FactorCache(Path(sys.argv[1])).get("gradients", {}, lambda: {"a": np.ones(3)}, label="x")
"""


@pytest.mark.slow
def test_killed_writer_leaves_no_entry(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITER, tmp_path], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert any(tmp_path.iterdir()), "the writer was killed before it began"
    assert list(tmp_path.glob("*.h5")) == []
    cache = FactorCache(tmp_path)
    assert not cache.holds("gradients", {})
    assert_same(get(cache, key={}), arrays())  # and the dead writer's lock does not block
    assert cache.warnings == []


def flipped(whole: bytes, offset: int, mask: int) -> bytes:
    damaged = bytearray(whole)
    damaged[offset] ^= mask
    return bytes(damaged)


# HDF5 itself crashes on some of these, so the damage has to be seen before it is asked.
@pytest.mark.parametrize("mask", [0xFF, 0x01, 0x80])
def test_flipped_byte_is_noticed_wherever_it_is(tmp_path: Path, mask: int) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for offset in range(mask % 7, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(flipped(whole, offset, mask))
        cache = FactorCache(tmp_path)
        assert_same(get(cache), arrays())
        assert cache.uses["x"].status == "computed", offset
        assert len(cache.warnings) == 1, offset
        assert f"cache file {path.name} was damaged" in cache.warnings[0]
        assert path.with_suffix(".damaged").read_bytes() == flipped(whole, offset, mask)


def test_truncated_file_is_rebuilt(tmp_path: Path) -> None:
    get(FactorCache(tmp_path))
    path = only_file(tmp_path)
    whole = path.read_bytes()
    for size in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        cache = FactorCache(tmp_path)
        assert_same(get(cache), arrays())
        assert cache.uses["x"].status == "computed"
        assert len(cache.warnings) == 1
        assert path.with_suffix(".damaged").read_bytes() == whole[:size]


def without_complete(file: h5py.File, aside: Path) -> None:
    del file.attrs["complete"]


def marked_incomplete(file: h5py.File, aside: Path) -> None:
    file.attrs["complete"] = False


def another_key(file: h5py.File, aside: Path) -> None:
    file.attrs["key"] = "0" * 64


def soft_link(file: h5py.File, aside: Path) -> None:
    file["again"] = h5py.SoftLink("/losses")


def external_link(file: h5py.File, aside: Path) -> None:
    with h5py.File(aside, "w") as other:
        other["losses"] = file["losses"][()]
    del file["losses"]
    file["losses"] = h5py.ExternalLink(str(aside), "/losses")


def group(file: h5py.File, aside: Path) -> None:
    file.create_group("group")


TAMPERINGS = (
    without_complete,
    marked_incomplete,
    another_key,
    soft_link,
    external_link,
    group,
)


@pytest.mark.parametrize("sealed", [False, True], ids=["as it is", "sealed anew"])
@pytest.mark.parametrize("tamper", TAMPERINGS, ids=lambda tamper: tamper.__name__)
def test_tampered_file_is_rebuilt(tmp_path: Path, tamper: Any, sealed: bool) -> None:
    folder = tmp_path / "cache"
    get(FactorCache(folder))
    with h5py.File(only_file(folder), "r+") as file:
        tamper(file, tmp_path / "aside.h5")
    if sealed:
        seal(only_file(folder))
    cache = FactorCache(folder)
    assert_same(get(cache), arrays())
    assert cache.uses["x"].status == "computed"
    assert len(cache.warnings) == 1
    assert_same(get(FactorCache(folder), refuse), arrays())


def test_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"factor cache cannot be written.*METAAUDIT_CACHE_DIR"):
        get(FactorCache(tmp_path / "file"), refuse)


LIMITED_WRITER = """
import resource, sys
from pathlib import Path
import numpy as np
from metaaudit.curvature.factor_cache import FactorCache

limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
cache = FactorCache(Path(sys.argv[1]))
values = np.arange(20_000.0).reshape(50, 400)
found = cache.get("gradients", {}, lambda: {"a": values}, label="x")
assert (found["a"] == values).all()
assert cache.uses["x"].status == "computed"
print(*cache.warnings)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 1000, 100_000])
def test_arrays_outlive_a_full_disk(tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-c", LIMITED_WRITER, tmp_path, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "was not written ([Errno 27] File too large)" in done.stdout
    assert {path.suffix for path in tmp_path.iterdir()} <= {".lock"}


def test_arrays_outlive_a_folder_that_became_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: Path, **_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", deny)
    cache = FactorCache(tmp_path)
    assert_same(get(cache), arrays())
    assert len(cache.warnings) == 1
    assert "was not written" in cache.warnings[0]
    assert "Permission denied" in cache.warnings[0]


def test_lock_is_acquired_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acquired: list[Path] = []
    acquire = FileLock.acquire

    def counted(lock: FileLock, *args: Any, **kwargs: Any) -> Any:
        acquired.append(Path(lock.lock_file))
        return acquire(lock, *args, **kwargs)

    monkeypatch.setattr(FileLock, "acquire", counted)
    get(FactorCache(tmp_path))
    assert len(acquired) == 1


def test_long_wait_for_another_process_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(FactorCache(tmp_path))
    monkeypatch.setattr(factor_cache, "QUIET_WAIT_S", 0.1)
    other = FileLock(only_file(tmp_path).with_suffix(".lock"), thread_local=False)
    other.acquire()
    told: list[str] = []

    def say(text: str) -> None:
        told.append(text)
        other.release()

    assert_same(get(FactorCache(tmp_path, say=say), refuse), arrays())
    assert told == [f"waiting for another process that holds {other.lock_file}"]


SLOW_COMPUTER = """
import sys, time
from pathlib import Path
import numpy as np
from metaaudit.curvature.factor_cache import FactorCache

folder = Path(sys.argv[1])
def compute():
    with (folder / "computed").open("a") as file:
        file.write("x")
    time.sleep(float(sys.argv[2]))
    return {"a": np.arange(5.0)}

(folder / f"ready-{sys.argv[3]}").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
arrays = FactorCache(folder / "cache").get("gradients", {}, compute, label="x")
print(arrays["a"].tolist())
"""


@pytest.mark.slow
def test_two_processes_at_once_compute_once(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SLOW_COMPUTER, tmp_path, "0.5", str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("ready-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    (tmp_path / "go").touch()
    shown = [worker.communicate(timeout=60)[0].strip() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert shown == [str([0.0, 1.0, 2.0, 3.0, 4.0])] * 2
    assert (tmp_path / "computed").read_text() == "x"


# What `score` asks the cache for.

STAGES = ("gradients", "evaluation gradients", "cross-fitting")


def statuses(run: Path) -> dict[str, str]:
    uses = json.loads((run / "manifest.json").read_text())["cache"]
    assert set(uses) == set(STAGES)
    return {stage: use["status"] for stage, use in uses.items()}


def test_another_evaluation_set_reuses_what_the_training_tasks_gave(trained_case: Case) -> None:
    assert set(statuses(trained_case.score("first")).values()) == {"computed"}
    from metaaudit.inputs.episodes import write_episodes

    write_episodes(trained_case.folder / "other.npz", digits(seed=1)[1])
    other = ("--set", "tasks.eval=other.npz")
    assert statuses(trained_case.score("second", *other)) == {
        "gradients": "hit",
        "evaluation gradients": "computed",
        "cross-fitting": "hit",
    }
    first, second = (
        (trained_case.folder / name / "tasks.csv").read_bytes() for name in ("first", "second")
    )
    assert first != second


def test_scores_from_the_cache_are_the_same_bit_by_bit(trained_case: Case) -> None:
    first, second = trained_case.score("first"), trained_case.score("second")
    assert set(statuses(second).values()) == {"hit"}
    for name in ("tasks.csv", "instances.csv", "scores.h5", "findings.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def other_weights(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    succeeds(case.cli("train", "--overwrite", "--set", "training.seed=1"))
    return ()


def other_data(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    with np.load(case.folder / "train.npz") as file:
        content = dict(file)
    # One label, in both sets, of the first task: classes 0 and 1 change their names.
    for name in ("support_y", "query_y"):
        content[name][0] = np.array([1, 0, 2])[content[name][0]]
    np.savez(case.folder / "train.npz", **content)
    return ()


def other_learner(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--set", "learner.inner_lr=0.2")


def other_precision(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--set", "compute.dtype=float64")


def other_pixels(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    return ("--set", "tasks.image.scale=254")


def other_code(case: Case, patch: pytest.MonkeyPatch) -> tuple[str, ...]:
    patch.setattr(audit, "code_hash", lambda: "0" * 64)
    return ()


MISSES = [
    (other_weights, STAGES),
    (other_data, ("gradients", "cross-fitting")),
    (other_learner, STAGES),
    (other_precision, STAGES),
    (other_pixels, STAGES),
    (other_code, STAGES),
    (lambda case, patch: ("--set", "mislabel.folds=3"), ("cross-fitting",)),
    (lambda case, patch: ("--set", "compute.task_batch=3"), ()),
    (lambda case, patch: ("--set", "influence.curvature=exact"), ()),
]


@pytest.mark.parametrize(
    ("change", "computed"),
    MISSES,
    ids=["weights", "data", "learner", "dtype", "pixels", "code", "folds", "batch", "curvature"],
)
def test_what_a_change_computes_again(
    trained_case: Case, change: Any, computed: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_case.score("first")
    options = change(trained_case, monkeypatch)
    found = statuses(trained_case.score("second", *options))
    assert {stage for stage, status in found.items() if status == "computed"} == set(computed)


def test_damaged_file_is_reported_and_rebuilt(trained_case: Case, cache_dir: Path) -> None:
    first = trained_case.score("first")
    for path in cache_dir.glob("crossfit-*.h5"):
        path.write_bytes(path.read_bytes()[:-100])
    outcome = trained_case.cli("score", "--run", trained_case.folder / "second")
    assert "was damaged" in succeeds(outcome).stderr
    second = trained_case.folder / "second"
    assert statuses(second)["cross-fitting"] == "computed"
    assert statuses(second)["gradients"] == "hit"
    assert (first / "instances.csv").read_bytes() == (second / "instances.csv").read_bytes()
    assert "was damaged" in json.loads((second / "findings.json").read_text())["warnings"][0]
    assert len(list(cache_dir.glob("*.damaged"))) == 1


def test_nothing_is_cached_where_loading_fails(tmp_path: Path, cache_dir: Path) -> None:
    case = write_case(tmp_path / "case")
    assert case.cli("score", "--run", case.run).exit_code == 2
    assert not cache_dir.exists() or files(cache_dir) == {}
    assert os.environ["METAAUDIT_CACHE_DIR"] == str(cache_dir)
