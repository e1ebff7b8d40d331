"""Labelled data sets, cut into batches: tasks without a support, for a learner that does not adapt.

An instance is in one batch. Which one depends on the seed and the number of instances alone, since
files are often sorted by class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from metaaudit.config.tasks import Colour, ImageConfig, LabelledConfig, LabelledImageConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.arrays import SUFFIXES
from metaaudit.inputs.gathered import check_text
from metaaudit.inputs.idx import idx_images
from metaaudit.inputs.image_folder import folder_images
from metaaudit.inputs.labelled_arrays import read_labelled_arrays
from metaaudit.inputs.labelled_set import LabelledSet
from metaaudit.inputs.task_set import Ints, Task, TaskSet
from metaaudit.inputs.values import image_pool

# First words of the seeds: the two sets are not drawn alike.
_STREAMS = {"train": 1, "eval": 2}


def load_labelled(config: LabelledConfig) -> tuple[TaskSet, TaskSet]:
    """Reads the training and the evaluation set and cuts them into batches.

    Raises:
        TaskSetError: A file or folder cannot be used, holds fewer instances than are asked for, or
            the two differ in their classes or in the shape of their inputs.
    """
    train = _read(config.train, config.image)
    evaluation = _read(config.eval, config.image)
    _check_classes(train, evaluation)
    sets = (
        _batches("train", train, config.train_size, config),
        _batches("eval", evaluation, config.eval_size, config),
    )
    ours, theirs = (task_set.pool.input_shape for task_set in sets)
    if ours != theirs:
        raise TaskSetError(
            config.eval, f"holds inputs of shape {theirs}", f"{ours}, as in {config.train}"
        )
    return sets


def _read(path: Path, image: LabelledImageConfig) -> LabelledSet:
    """A labelled set from a file of arrays, an idx file, or a folder or zip of images by class."""
    if path.suffix in SUFFIXES:
        for key in ("size", "colour"):
            if getattr(image, key) is not None:
                raise TaskSetError(
                    f"tasks.image.{key}",
                    f"is for images, and {path} holds arrays",
                    "inputs as the model takes them",
                    "remove it",
                )
        return read_labelled_arrays(path)
    if path.is_dir() or path.suffix == ".zip":
        source = folder_images(path, _image(image, "rgb"))
        if source.splits:
            raise TaskSetError(
                path,
                f"has images as split/class/image, in {', '.join(source.splits)}",
                "class/image",
                "name the folder of one split",
            )
        return LabelledSet.of_images(source)
    if not path.is_file():
        raise TaskSetError(
            path,
            "does not exist",
            f"a file of arrays ({', '.join(SUFFIXES)}), an idx file, or a folder class/image",
            "check the path",
        )
    return LabelledSet.of_images(idx_images(path, _image(image, "grey")))


def _image(image: LabelledImageConfig, colour: Colour) -> ImageConfig:
    # Unchecked: whether `mean` and `std` fit the channels, the pool of images looks at.
    values = {**image.model_dump(), "colour": image.colour or colour}
    return ImageConfig.model_construct(**values)


def _check_classes(train: LabelledSet, evaluation: LabelledSet) -> None:
    if train.classes == evaluation.classes:
        return
    ours, theirs = set(train.classes), set(evaluation.classes)
    if differing := sorted(ours ^ theirs):
        what = f"has {'no ' if differing[0] in ours else ''}class '{differing[0]}'"
        wanted = f"the {len(ours)} classes of {train.where}"
    else:
        what, wanted = "has the classes in another order", f"that of {train.where}"
    raise TaskSetError(evaluation.where, what, wanted, "use the same classes in both")


def _batches(side: str, labelled: LabelledSet, size: int | None, config: LabelledConfig) -> TaskSet:
    """The batches, over a pool of the images that they use, each once, sorted by id."""
    count = len(labelled.labels)
    if size is not None and size > count:
        raise TaskSetError(
            labelled.where,
            f"holds {count} instances",
            f"at least {size}, as tasks.{side}_size asks for",
            f"lower tasks.{side}_size",
        )
    order = np.random.default_rng([_STREAMS[side], config.seed]).permutation(count)[:size]
    ids = tuple(sorted({labelled.ids[place] for place in order.tolist()}))
    check_text(labelled.where, (*ids, *labelled.classes))
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    nothing: Ints = np.empty(0, dtype=np.int64)
    tasks = []
    for number, start in enumerate(range(0, len(order), config.batch)):
        places = order[start : start + config.batch]
        rows = np.array([row_of[labelled.ids[place]] for place in places.tolist()], dtype=np.int64)
        task_id = f"{side}-s{config.seed}-{number:05d}"
        labels = labelled.labels[places]
        tasks.append(Task(task_id, nothing, nothing, rows, labels, labelled.classes))
    return TaskSet(image_pool(labelled.read(ids), ids, config.image), tuple(tasks))
