"""Few-shot tasks from Omniglot: five drawings of each of five characters, and so on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from metaaudit.config.schema import EpisodeConfig, ImageConfig, OmniglotConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.image_files import ImageFile, find_image_files, read_image_files
from metaaudit.inputs.images import decode_image
from metaaudit.inputs.task_set import ImagePool, Task, TaskSet

Copies = Mapping[str, Sequence[ImageFile]]
"""The files of each image, by its id: two archives may hold the same one."""

# First words of the seeds: no two streams are the same, even with equal seeds.
_TRAIN_STREAM, _EVAL_STREAM = 1, 2


@dataclass(frozen=True)
class _Episode:
    """What was drawn for a task: ids of images, class by class."""

    task_id: str
    classes: list[str]
    support: list[list[str]]
    query: list[list[str]]


def load_omniglot(config: OmniglotConfig) -> tuple[TaskSet, TaskSet]:
    """Samples training and evaluation tasks from disjoint classes.

    A task depends on the classes of its split, its seed, its number and the episode's size, and
    not on how many tasks there are. A character that several archives hold counts once.

    Args:
        config: ``root`` is a folder of zips or of alphabets, or one zip.

    Returns:
        The training tasks and the evaluation tasks. Instance ids are
        ``<alphabet>/<character>/<file>``, wherever the image was read from.

    Raises:
        TaskSetError: ``root`` cannot be read, or holds too few classes or images.
    """
    copies = _find_copies(config.root)
    classes = _group(copies)
    _check_sizes(config, classes)
    names = sorted(classes)
    order = np.random.default_rng([config.train.seed]).permutation(len(names))
    shuffled = [names[row] for row in order]

    def split(kind: str, stream: int, seed: int, count: int, chosen: Sequence[str]) -> TaskSet:
        held = {name: classes[name] for name in chosen}
        episodes = [
            _sample(
                f"{kind}-s{seed}-{number:05d}",
                held,
                config.episode,
                np.random.default_rng([stream, seed, number]),
            )
            for number in range(count)
        ]
        return _task_set(episodes, copies, config.image)

    train, evaluation, used = config.train, config.eval, config.train.classes
    return (
        split("train", _TRAIN_STREAM, train.seed, train.tasks, shuffled[:used]),
        split("eval", _EVAL_STREAM, evaluation.seed, evaluation.tasks, shuffled[used:]),
    )


def _find_copies(root: Path) -> dict[str, list[ImageFile]]:
    copies: dict[str, list[ImageFile]] = {}
    for file in find_image_files(root):
        if len(file.parts) >= 3:
            copies.setdefault("/".join(file.parts[-3:]), []).append(file)
    if not copies:
        raise TaskSetError(
            root, "holds no images", "zips or folders of alphabet/character/image.png"
        )
    return copies


def _group(copies: Copies) -> dict[str, list[str]]:
    """Sorted image ids of each class."""
    classes: dict[str, list[str]] = {}
    for image_id in sorted(copies):
        classes.setdefault(image_id.rpartition("/")[0], []).append(image_id)
    return classes


def _check_sizes(config: OmniglotConfig, classes: Mapping[str, Sequence[str]]) -> None:
    ways, used = config.episode.ways, config.train.classes
    if used < ways:
        raise TaskSetError(
            "tasks.train.classes",
            f"{used} classes are too few for tasks of {ways}",
            f"at least {ways}",
        )
    if len(classes) - used < ways:
        raise TaskSetError(
            config.root,
            f"holds {len(classes)} classes; {used} for training leave "
            f"{max(0, len(classes) - used)} for evaluation",
            f"at least {ways}",
            "lower tasks.train.classes or tasks.episode.ways",
        )
    needed = config.episode.shots + config.episode.queries
    for name, images in classes.items():
        if len(images) < needed:
            raise TaskSetError(
                config.root,
                f"class '{name}' has {len(images)} images",
                f"at least {needed} (shots + queries)",
                "lower tasks.episode.shots or tasks.episode.queries",
            )


def _sample(
    task_id: str,
    classes: Mapping[str, Sequence[str]],
    size: EpisodeConfig,
    rng: np.random.Generator,
) -> _Episode:
    names = list(classes)
    episode = _Episode(task_id, [], [], [])
    for column in rng.choice(len(names), size.ways, replace=False):
        images = classes[names[column]]
        rows = rng.choice(len(images), size.shots + size.queries, replace=False)
        drawn = [images[row] for row in rows]
        episode.classes.append(names[column])
        episode.support.append(drawn[: size.shots])
        episode.query.append(drawn[size.shots :])
    return episode


def _task_set(episodes: Sequence[_Episode], copies: Copies, image: ImageConfig) -> TaskSet:
    ids = sorted({i for task in episodes for drawn in (*task.support, *task.query) for i in drawn})
    row_of = {image_id: row for row, image_id in enumerate(ids)}

    def rows(drawn: list[list[str]]) -> npt.NDArray[np.int64]:
        return np.array([row_of[i] for images in drawn for i in images], dtype=np.int64)

    def labels(drawn: list[list[str]]) -> npt.NDArray[np.int64]:
        return np.repeat(np.arange(len(drawn), dtype=np.int64), [len(images) for images in drawn])

    tasks = tuple(
        Task(
            task_id=task.task_id,
            support=rows(task.support),
            support_y=labels(task.support),
            query=rows(task.query),
            query_y=labels(task.query),
            class_names=tuple(task.classes),
        )
        for task in episodes
    )
    pixels = _decode(row_of, copies, image.size)
    return TaskSet(ImagePool(pixels, tuple(ids), image.scale, image.invert), tasks)


def _decode(row_of: Mapping[str, int], copies: Copies, size: int) -> npt.NDArray[np.uint8]:
    """The images' pixels ``[len(row_of), 1, size, size]``.

    Raises:
        TaskSetError: An image cannot be read, or its copies differ.
    """
    pixels = np.empty((len(row_of), 1, size, size), dtype=np.uint8)
    seen: dict[str, tuple[ImageFile, bytes]] = {}
    for file, data in read_image_files(file for image_id in row_of for file in copies[image_id]):
        image_id = "/".join(file.parts[-3:])
        if image_id not in seen:
            pixels[row_of[image_id]] = decode_image(data, size, file)
            seen[image_id] = file, data
        elif seen[image_id][1] != data:
            raise TaskSetError(
                file, f"differs from {seen[image_id][0]}", "one image a name", "remove one of them"
            )
    return pixels
