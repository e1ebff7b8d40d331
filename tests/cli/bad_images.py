"""Faults of the formats that hold images: idx, folders, zips, CSV files, pickles."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.cli.faults import (
    FC100,
    IDX,
    IDX_LABELS,
    MINI,
    PACK,
    Bad,
    add,
    add_to_zip,
    again_and_again,
    change_pickle,
    claims_shape,
    claims_size,
    code,
    cut,
    few_digits,
    flip,
    flip_in,
    larger_digits,
    member_bit,
    nested,
    picture,
    put,
    remove,
    short_gzip,
    swap,
    text,
)

TOO_FEW = "at least 4 (shots + queries)"
ANT = "data/train/ant/ant_0.png"
SPLITS = {"tasks.splits": "splits.csv"}


def with_splits(rows: str, names: str, reason: str) -> Bad:
    broken = text("splits.csv", f"class,split\n{rows}")
    return Bad("image-folder", names, reason, broken, SPLITS)


IDX_CASES = {
    "idx: truncated": Bad("idx", IDX, "holds less than its header says", cut(IDX)),
    "idx: longer": Bad("idx", IDX, "holds more than its header", add(IDX, b"0")),
    "idx: truncated labels": Bad("idx", IDX_LABELS, "holds less than", cut(IDX_LABELS)),
    "idx: cut in its header": Bad("idx", IDX, "ends within its header", cut(IDX, 24 * 64 + 3)),
    "idx: empty": Bad("idx", IDX, "begins with nothing", put(IDX, b"")),
    "idx: flipped magic": Bad("idx", IDX, "begins with 40 00 08 03", flip(IDX, 0)),
    "idx: flipped size": Bad("idx", IDX, "claims the shape", flip(IDX, 4)),
    "idx: of floats": Bad("idx", IDX, "begins with 00 00 0d 03", flip(IDX, 2, 5)),
    "idx: labels of another number": Bad(
        "idx", IDX_LABELS, "holds 25 labels", flip(IDX_LABELS, 7, 1)
    ),
    "idx: no labels": Bad("idx", IDX, "has no labels beside it", remove(IDX_LABELS)),
    "idx: too few images": Bad("idx", "data", "class '3' has 3 images", few_digits),
    "idx: two sizes": Bad("idx", "t10k", "set tasks.image.size", larger_digits),
    "idx: more classes than there are": Bad(
        "idx",
        "tasks.train.classes",
        "at most",
        settings={
            "tasks.train.classes": 7,
            "tasks.eval.images": 0.5,
            "tasks.episode": {"ways": 2, "shots": 1, "queries": 1},
        },
    ),
    "idx: no class is left": Bad(
        "idx", "data", "leave 0 for evaluation", settings={"tasks.train.classes": 6}
    ),
    "idx: no root": Bad("idx", "none", "does not exist", settings={"tasks.root": "none"}),
    "idx.gz: truncated": Bad("idx.gz", f"{IDX}.gz", "cannot be read", cut(f"{IDX}.gz")),
    "idx.gz: flipped": Bad("idx.gz", f"{IDX}.gz", "cannot be read", flip(f"{IDX}.gz", -6)),
    "idx.gz: flipped header": Bad("idx.gz", f"{IDX}.gz", "cannot be read", flip(f"{IDX}.gz", 0)),
    "idx.gz: too short inside": Bad("idx.gz", f"{IDX}.gz", "holds less than", short_gzip),
}

DRAWING = "data/Greek/a1/a1_0.png"
IMAGE_CASES = {
    "omniglot: too few images": Bad(
        "omniglot", "data", "class 'Greek/a1' has 3 images", remove(DRAWING)
    ),
    "omniglot: truncated": Bad("omniglot", DRAWING, "is no readable image", cut(DRAWING, 40)),
    "omniglot: flipped header": Bad("omniglot", DRAWING, "is no readable image", flip(DRAWING, 1)),
    "omniglot: text": Bad("omniglot", DRAWING, "of no known kind", put(DRAWING, b"text")),
    "omniglot: two sizes": Bad(
        "omniglot",
        DRAWING,
        "set tasks.image.size",
        picture(DRAWING, (9, 8), "L"),
        {"tasks.image.size": None},
    ),
    "omniglot: claimed size": Bad("omniglot", DRAWING, "over", claims_size(DRAWING, 60000)),
    "omniglot: no such split": Bad(
        "omniglot", "tasks.eval.split", "has no splits", settings={"tasks.eval.split": "evaluation"}
    ),
    "omniglot zip: truncated": Bad("omniglot zip", PACK, "is no readable zip", cut(PACK, 30)),
    "omniglot zip: flipped": Bad("omniglot zip", PACK, "is damaged at Greek/a1", member_bit),
    "omniglot zip: flipped header": Bad(
        "omniglot zip", PACK, "is no readable zip", flip_in(PACK, b"PK\1\2")
    ),
    "omniglot zip: leads outside": Bad(
        "omniglot zip", PACK, "leads outside it ('../", add_to_zip("../../evil.png", b"image")
    ),
    "omniglot zip: absolute": Bad(
        "omniglot zip", PACK, "leads outside it ('/", add_to_zip("/evil.png", b"image")
    ),
    "omniglot zip: in Windows outside": Bad(
        "omniglot zip", PACK, "leads outside it", add_to_zip("..\\evil.png", b"image")
    ),
    "omniglot zip: no image": Bad(
        "omniglot zip",
        "Greek/a1/new.png",
        "no known kind",
        add_to_zip("Greek/a1/new.png", b"x"),
        {"tasks.train.tasks": 60, "tasks.eval.tasks": 60},
    ),
    "image-folder: too few images": Bad(
        "image-folder", "data", "class 'ant' has 3 images", remove(ANT)
    ),
    "image-folder: truncated": Bad("image-folder", ANT, "is no readable image", cut(ANT, 40)),
    "image-folder: 16 bits": Bad(
        "image-folder", ANT, "8 bits a channel", picture(ANT, mode="I;16")
    ),
    "image-folder: two sizes": Bad(
        "image-folder", ANT, "set tasks.image.size", picture(ANT, (8, 9))
    ),
    "image-folder: two depths": Bad(
        "image-folder", "data", "deeper than the other", picture("data/train/deep.png")
    ),
    "image-folder: unknown split": Bad(
        "image-folder",
        "tasks.eval.split",
        "did you mean 'test'?",
        settings={"tasks.eval.split": "tset"},
    ),
    "image-folder: one split for both": Bad(
        "image-folder",
        "tasks.eval.split",
        "has 3 classes that training tasks use",
        settings={"tasks.eval.split": "train"},
    ),
    "image-folder: more classes than there are": Bad(
        "image-folder",
        "tasks.train.classes",
        "there are 3 classes",
        settings={"tasks.train.classes": 4, "tasks.eval.split": "test"},
    ),
    "image-folder: more ways than classes": Bad(
        "image-folder",
        "tasks.train",
        "too few for tasks of 4",
        settings={"tasks.episode.ways": 4, "model.ways": 4},
    ),
    "image-folder: mean of two channels": Bad(
        "image-folder",
        "tasks.image",
        "image.mean has 2 numbers",
        settings={"tasks.image.mean": [0.5, 0.5]},
    ),
    "image-folder: mean of three grey channels": Bad(
        "image-folder",
        "tasks.image",
        "image.mean has 3 numbers",
        settings={"tasks.image": {"mean": [0.5, 0.5, 0.5], "colour": "grey"}},
    ),
    "image-folder: grey for a model in colour": Bad(
        "image-folder",
        "model.in_channels",
        "have shape [1, 8, 8]",
        settings={"tasks.image.colour": "grey"},
    ),
    "image-folder: colour for a grey model": Bad(
        "image-folder",
        "model.in_channels",
        "have shape [3, 8, 8]",
        settings={"model.in_channels": 1},
    ),
    "splits: unknown class": with_splits(
        "ant,train\nbea,test\n", "splits.csv:3", "did you mean 'bee'?"
    ),
    "splits: class twice": with_splits("ant,train\nant,test\n", "splits.csv:3", "is there twice"),
    "splits: no value": with_splits("ant,train\nbee\n", "splits.csv:3", "lacks a value"),
    "splits: no rows": with_splits("", "splits.csv", "has no rows"),
    "splits: no evaluation": with_splits(
        "ant,train\nbee,train\n", "splits.csv", "has no split 'test'"
    ),
    "splits: no columns": Bad(
        "image-folder", "splits.csv:1", "the columns", text("splits.csv", "a,b\n"), SPLITS
    ),
    "splits: not there": Bad("image-folder", "splits.csv", "cannot be read", settings=SPLITS),
    "splits: no text": Bad(
        "image-folder",
        "splits.csv",
        "is not text",
        put("splits.csv", b"class,split\n\xff,a"),
        SPLITS,
    ),
    "image-folder zip: truncated": Bad("image-folder zip", PACK, "no readable zip", cut(PACK, 30)),
    "image-folder zip: leads outside": Bad(
        "image-folder zip", PACK, "leads outside it", add_to_zip("train/../../e.png", b"image")
    ),
}

CSV = "data/train.csv"
JPG = "data/images/ant00000000.jpg"
CSV_CASES = {
    "image-csv: too few images": Bad(
        "image-csv", "data", TOO_FEW, swap(CSV, "ant00000000.jpg,ant\n", "")
    ),
    "image-csv: no such image": Bad("image-csv", "train.csv:2", "is not in", remove(JPG)),
    "image-csv: leads outside": Bad(
        "image-csv", "train.csv:2", "leads out of", swap(CSV, "ant00000000", "../ant00000000")
    ),
    "image-csv: absolute": Bad(
        "image-csv", "train.csv:2", "leads out of", swap(CSV, "ant00000000", "/ant00000000")
    ),
    "image-csv: image twice": Bad(
        "image-csv", "train.csv:3", "each image once", swap(CSV, "ant00000001", "ant00000000")
    ),
    "image-csv: class in two splits": Bad(
        "image-csv", "data", "is in the splits 'test' and 'train'", swap(CSV, ",bee", ",dog")
    ),
    "image-csv: truncated": Bad("image-csv", JPG, "is no readable image", cut(JPG, 200)),
    "image-csv: no columns": Bad(
        "image-csv", "train.csv:1", "the columns", swap(CSV, "label", "l")
    ),
    "image-csv: two sizes": Bad("image-csv", JPG, "set tasks.image.size", picture(JPG, (9, 9))),
    "image-csv: open quote": Bad("image-csv", CSV, "no readable CSV", swap(CSV, "ant0", '"ant0')),
    "image-csv: a null": Bad(
        "image-csv", "train.csv:2", "is not in", swap(CSV, "ant00000000.jpg", "ant\0.jpg")
    ),
}


Content = dict[str, Any]


def with_rows(change: Callable[[dict[str, list[int]]], Any]) -> Callable[[Content], Content]:
    """The rows of each class, changed in place."""

    def apply(content: Content) -> Content:
        change(content["class_dict"])
        return content

    return apply


def later_rows(rows: dict[str, list[int]]) -> None:
    for name in rows:
        rows[name] = [row + 1 for row in rows[name]]


def tall_test_split(folder: Path) -> None:
    name = MINI.replace("train", "test")
    change_pickle(name, lambda c: {**c, "image_data": c["image_data"][:, :7].copy()})(folder)


PICKLE_CASES = {
    **{
        f"{good}: {fault}": Bad(good, name, reason, broken)
        for good, name in (("mini-imagenet", MINI), ("metaoptnet", FC100))
        for fault, reason, broken in (
            ("truncated", "ends early", cut(name, 1)),
            ("cut in its data", "ends early", cut(name, 1000)),
            ("flipped header", "is damaged or no pickle", flip(name, 0)),
            ("unknown protocol", "protocol", flip(name, 1)),
            ("empty", "ends early", put(name, b"")),
            ("text", "damaged or no pickle", put(name, b"text")),
            ("runs code", "asks to run posix.mkdir", code(name)),
            (
                "runs code by old opcodes",
                "asks to run os.mkdir",
                put(name, b"cos\nmkdir\n(S'x'\ntR."),
            ),
            ("claimed shape", "is not as long as its shape", claims_shape(name)),
            ("deep nesting", "holds a list", nested(name)),
            ("lists of lists", "holds a list", again_and_again(name)),
            ("nothing in it", "holds a list", change_pickle(name, lambda c: [None])),
        )
    },
    **{
        f"mini-imagenet: {fault}": Bad("mini-imagenet", names, reason, change_pickle(MINI, change))
        for fault, names, reason, change in (
            (
                "of floats",
                f"{MINI}: image_data",
                "is float32",
                lambda c: {**c, "image_data": c["image_data"].astype("f4")},
            ),
            (
                "two channels",
                f"{MINI}: image_data",
                "is uint8 [12, 8, 8, 2]",
                lambda c: {**c, "image_data": c["image_data"][..., :2].copy()},
            ),
            (
                "objects",
                MINI,
                "holds an array of objects",
                lambda c: {**c, "image_data": np.array([None, 1], dtype=object)},
            ),
            ("rows from 1", f"{MINI}: class_dict['cat']", "has row 12", with_rows(later_rows)),
            (
                "row in two classes",
                f"{MINI}: class_dict['cat']",
                "each row in one class",
                with_rows(lambda r: r["cat"].append(0)),
            ),
            (
                "too few images",
                "data",
                "class 'cat' has 3 images",
                with_rows(lambda r: r["cat"].pop()),
            ),
            (
                "no classes",
                f"{MINI}: class_dict",
                "is missing",
                lambda c: {"image_data": c["image_data"]},
            ),
        )
    },
    "mini-imagenet: two sizes": Bad(
        "mini-imagenet", "data", "set tasks.image.size", tall_test_split
    ),
    **{
        f"metaoptnet: {fault}": Bad("metaoptnet", names, reason, change_pickle(FC100, change))
        for fault, names, reason, change in (
            (
                "of floats",
                f"{FC100}: data",
                "is float64",
                lambda c: {**c, "data": c["data"].astype("f8")},
            ),
            (
                "too few labels",
                f"{FC100}: labels",
                "has 11 labels",
                lambda c: {**c, "labels": c["labels"][1:]},
            ),
            (
                "labels of floats",
                f"{FC100}: labels",
                "a list of integers",
                lambda c: {**c, "labels": [float(y) for y in c["labels"]]},
            ),
            (
                "labels too large",
                f"{FC100}: labels",
                "too large",
                lambda c: {**c, "labels": [y + (1 << 63) for y in c["labels"]]},
            ),
            (
                "too few images",
                "data",
                "class '2' has 3 images",
                lambda c: {**c, "labels": [0, *c["labels"][:-1]]},
            ),
        )
    },
    "metaoptnet: both data sets": Bad(
        "metaoptnet",
        "data",
        "holds FC100 and CIFAR_FS",
        lambda folder: shutil.copy(folder / FC100, folder / "data" / "CIFAR_FS_train.pickle"),
    ),
}
