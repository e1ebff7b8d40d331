"""Faults of torchmeta's HDF5 files, of ready-made tasks and of a factory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.cli.faults import (
    CIFAR,
    MINI_H5,
    OMNIGLOT_H5,
    TRAIN_H5,
    Bad,
    change_arrays,
    change_hdf5,
    claimed_array,
    claimed_dataset,
    cut,
    external_link,
    flip,
    put,
    remove,
    replace_dataset,
    soft_link,
    swap,
    text,
    virtual,
)

LISTS = {"omniglot": "data/vinyals_train_labels.json", "cifar": "data/fc100/train_labels.json"}
GREEK, TRAIN_ANT, RAY = "images_background/Greek/a1", "datasets/ant", "fish/ray"
HDF5 = (
    ("torchmeta omniglot", OMNIGLOT_H5, GREEK, "images_background/Greek/a2"),
    ("torchmeta miniimagenet", MINI_H5, TRAIN_ANT, "datasets/bee"),
    ("torchmeta cifar100", CIFAR, RAY, "fish/shark"),
    ("own .h5", TRAIN_H5, "support_x", "query_x"),
    ("maml-pytorch .h5", TRAIN_H5, "y_qry", "y_spt"),
    ("torchmeta .h5", TRAIN_H5, "test_inputs", "train_inputs"),
    ("joined .h5", TRAIN_H5, "data", "labels"),
)
HDF5_CASES = {
    **{
        f"{good}: {fault}": Bad(good, names, reason, broken)
        for good, name, dataset, other in HDF5
        for fault, names, reason, broken in (
            ("truncated", name, "cannot be read", cut(name)),
            ("flipped header", name, "cannot be read", flip(name, 1)),
            ("empty", name, "cannot be read", put(name, b"")),
            ("external link", f"{name}: {dataset}", "is a link", external_link(name, dataset)),
            ("soft link", f"{name}: {dataset}", "is a link", soft_link(name, dataset, other)),
            ("virtual", f"{name}: {dataset}", "is stored in another file", virtual(name, dataset)),
        )
    },
    **{
        f"{good}: {fault}": Bad(good, names, reason, broken)
        for good, name, dataset, _ in HDF5[:3]
        for fault, names, reason, broken in (
            (
                "of floats",
                f"{name}: {dataset}",
                "is float32 [4, 8, 8",
                replace_dataset(name, dataset, lambda v: v.astype("f4")),
            ),
            (
                "too few images",
                "data",
                "has 3 images for tasks.train",
                replace_dataset(name, dataset, lambda v: v[:3]),
            ),
            (
                "two sizes",
                name,
                "set tasks.image.size",
                replace_dataset(name, dataset, lambda v: v[:, :7]),
            ),
            (
                "claimed size",
                f"{name}: {dataset}",
                "0 bytes of them are stored",
                change_hdf5(name, lambda f, d=dataset: claimed_dataset(f, d, (1 << 20, 64, 64))),
            ),
            (
                "no images",
                f"{name}: {dataset}",
                "expected uint8 [images, height, width]",
                replace_dataset(name, dataset, lambda v: v[:, 0, 0]),
            ),
            (
                "a group",
                name,
                "is a group",
                change_hdf5(name, lambda f, d=dataset: (f.move(d, "old"), f.create_group(d))),
            ),
        )
    },
    "torchmeta omniglot: unknown class": Bad(
        "torchmeta omniglot",
        f"{LISTS['omniglot']}: label 0",
        "is not in data.hdf5",
        swap(LISTS["omniglot"], "a1", "a9"),
    ),
    "torchmeta omniglot: class in two splits": Bad(
        "torchmeta omniglot",
        "data",
        "is in the splits",
        swap(
            "data/vinyals_test_labels.json",
            '"images_evaluation", "Latin", "a1"',
            '"images_background", "Greek", "a1"',
        ),
    ),
    "torchmeta omniglot: no lists": Bad(
        "torchmeta omniglot",
        OMNIGLOT_H5,
        "has no labels beside it",
        lambda folder: [path.unlink() for path in (folder / "data").glob("*.json")],
    ),
    "torchmeta miniimagenet: no list": Bad(
        "torchmeta miniimagenet",
        MINI_H5,
        "has no labels beside it",
        remove("data/train_labels.json"),
    ),
    "torchmeta miniimagenet: list cut": Bad(
        "torchmeta miniimagenet",
        "train_labels.json",
        "is no readable JSON",
        cut("data/train_labels.json", 1),
    ),
    "torchmeta miniimagenet: deep list": Bad(
        "torchmeta miniimagenet",
        "train_labels.json",
        "is no readable JSON",
        put("data/train_labels.json", b"[" * 200000),
    ),
    "torchmeta cifar100: list of names": Bad(
        "torchmeta cifar100",
        f"{LISTS['cifar']}: label 0",
        "a list of 2 texts",
        text(LISTS["cifar"], '["fish"]'),
    ),
    "torchmeta cifar100: one split alone": Bad(
        "torchmeta cifar100",
        "tasks.eval.split",
        "which is taken by default",
        remove("data/fc100/test_labels.json"),
    ),
    "torchmeta cifar100: path for a name": Bad(
        "torchmeta cifar100",
        f"{LISTS['cifar']}: label 0",
        "no paths",
        swap(LISTS["cifar"], "fish", ".."),
    ),
}

NPZ = "data/train.npz"


def in_npz(good: str, names: str, reason: str, change: Callable[[dict[str, Any]], Any]) -> Bad:
    return Bad(f"{good} .npz", names, reason, change_arrays(change))


def plus(name: str, number: int) -> Callable[[dict[str, Any]], Any]:
    return lambda a: a.update({name: a[name] + number})


NAMES = {
    "own": ("support_x", "support_y", "query_x", "query_y"),
    "maml-pytorch": ("x_spt", "y_spt", "x_qry", "y_qry"),
    "torchmeta": ("train_inputs", "train_targets", "test_inputs", "test_targets"),
}
EPISODE_CASES = {
    **{
        f"{good} .npz: {fault}": Bad(f"{good} .npz", NPZ, reason, broken)
        for good in ("own", "maml-pytorch", "torchmeta", "joined")
        for fault, reason, broken in (
            ("truncated", "is not a zip", cut(NPZ)),
            ("flipped header", "does not begin as a zip", flip(NPZ, 0)),
            ("flipped array", "Bad CRC-32", flip(NPZ, 300)),
        )
    },
    **{
        f"{good} .npz: {fault}": in_npz(good, NPZ, reason, change)
        for good, (x, y, other_x, other_y) in NAMES.items()
        for fault, reason, change in (
            ("missing array", f"lacks {other_y}", lambda a, n=other_y: a.pop(n)),
            (
                "wrong dtype",
                f"{x}: has dtype int64",
                lambda a, n=x: a.update({n: a[n].astype(int)}),
            ),
            (
                "labels from 1",
                "has label 2 but not 0",
                lambda a, n=y, m=other_y: a.update({n: a[n] + 1, m: a[m] + 1}),
            ),
            (
                "class not in support",
                "label 2 is in its query but not in its support",
                lambda a, n=other_y: a[n].__setitem__((0, 0), 2),
            ),
            (
                "two dtypes",
                f"{other_x}: has dtype float64",
                lambda a, n=other_x: a.update({n: a[n].astype("f8")}),
            ),
            (
                "infinite input",
                "holds NaN or infinity",
                lambda a, n=other_x: a[n].__setitem__((1, 0, 0, 0, 0), np.inf),
            ),
        )
    },
    "own .npz: claimed size": Bad("own .npz", NPZ, "cannot be read", claimed_array),
    **{
        f"own .h5: {fault}": Bad(
            "own .h5",
            f"{TRAIN_H5}: {name}",
            reason,
            change_hdf5(TRAIN_H5, lambda f, n=name, s=shape: claimed_dataset(f, n, s)),
        )
        for fault, name, shape, reason in (
            ("claimed inputs", "support_x", (2, 4, 1, 8, 8), "0 bytes of them are stored"),
            ("claimed labels", "support_y", (2, 1 << 28), "0 bytes of them are stored"),
        )
    },
    "own .npz: two namings": in_npz(
        "own", NPZ, "the arrays of one naming", lambda a: a.update(x_spt=a["support_x"])
    ),
    "own .npz: task twice": in_npz(
        "own",
        f"{NPZ}: task_id",
        "row 1 repeats 'a'",
        lambda a: a.update(task_id=np.array(["a", "a"])),
    ),
    "own .npz: control character": in_npz(
        "own",
        f"{NPZ}: task_id",
        "control character",
        lambda a: a.update(task_id=np.array(["a", "b\n"])),
    ),
    "own .npz: id of two inputs": in_npz(
        "own",
        NPZ,
        "id 'i' has two different inputs",
        lambda a: a.update(support_id=np.full((2, 4), "i")),
    ),
    "own .npz: mean of three channels": Bad(
        "own .npz",
        "tasks.image.mean",
        "has 3 numbers",
        settings={"tasks.image": {"mean": [0.1, 0.2, 0.3]}},
    ),
    "own .npz: joined": Bad(
        "own .npz", NPZ, "remove tasks.joined", settings={"tasks.joined": {"shots": 1}}
    ),
    "own .npz: other suffix": Bad(
        "own .npz", "config.npy", "the suffix '.npy'", settings={"tasks.train": "config.npy"}
    ),
    "joined .npz: not said how": Bad(
        "joined .npz", NPZ, "set tasks.joined.shots", settings={"tasks.joined": None}
    ),
    "joined .npz: too many shots": Bad(
        "joined .npz", NPZ, "lower tasks.joined.shots", settings={"tasks.joined.shots": 3}
    ),
    "joined .npz: no query left": Bad(
        "joined .npz",
        NPZ,
        "its query set is empty",
        settings={"tasks.joined": {"shots": 4, "order": "blocked"}},
    ),
    "joined .npz: labels from 1": in_npz("joined", NPZ, "has label 2 but not 0", plus("labels", 1)),
    "joined .npz: wrong dtype": in_npz(
        "joined", f"{NPZ}: labels", "integers", lambda a: a.update(labels=a["labels"] * 1.0)
    ),
}

OWN = "data/own_tasks.py"
FACTORY_CASES = {
    "factory: no module": Bad(
        "factory",
        "own_task:tasks",
        "ModuleNotFoundError",
        settings={"tasks.factory": "own_task:tasks"},
    ),
    "factory: no callable": Bad(
        "factory", "own_tasks", "task", settings={"tasks.factory": "own_tasks:none"}
    ),
    "factory: damaged module": Bad("factory", "own_tasks:tasks", "SyntaxError", cut(OWN, 3)),
    "factory: raises": Bad(
        "factory",
        "own_tasks:tasks",
        "ZeroDivisionError",
        swap(OWN, "return [task(0)", "1 / 0\n    return [task(0)"),
    ),
    "factory: ends the process": Bad(
        "factory",
        "own_tasks:tasks",
        "",
        swap(OWN, "return [task(0)", "raise SystemExit(0)\n    return [task(0)"),
    ),
    "factory: one side": Bad(
        "factory",
        "own_tasks:tasks",
        "training task 0: is a str",
        swap(OWN, ", [task(2), task(3)]", ""),
    ),
    "factory: no tasks": Bad(
        "factory", "own_tasks:tasks", "holds no tasks", swap(OWN, "[task(0), task(1)]", "[]")
    ),
    "factory: unknown argument": Bad(
        "factory", "own_tasks:tasks", "TypeError", settings={"tasks.args": {"seed": 1}}
    ),
    "factory: lacks a key": Bad(
        "factory", "own_tasks:tasks", "lacks query_y", swap(OWN, ', "query_y": y[4:]', "")
    ),
    "factory: labels from 1": Bad(
        "factory", "own_tasks:tasks", "has label 2 but not 0", swap(OWN, "% 2", "% 2 + 1")
    ),
    "factory: class not in support": Bad(
        "factory", "own_tasks:tasks", "but not in its support", swap(OWN, "% 2", "// 4 * 2 % 3")
    ),
    "factory: wrong dtype": Bad(
        "factory",
        "own_tasks:tasks",
        "has dtype int64",
        swap(OWN, "rng.random((8, 1, 8, 8), dtype=np.float32)", "rng.integers(0, 9, (8, 1, 8, 8))"),
    ),
    "factory: two shapes": Bad(
        "factory",
        "own_tasks:tasks",
        "has inputs of shape",
        swap(OWN, "(8, 1, 8, 8)", "(8, 1, 8, 8 + seed)"),
    ),
}
