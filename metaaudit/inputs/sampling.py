"""Few-shot tasks sampled from images by class: five images of each of five classes, and so on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metaaudit.config.tasks import EpisodeConfig, EvalSplitConfig, SampledConfig, TrainSplitConfig
from metaaudit.errors import TaskSetError
from metaaudit.inputs.gathered import check_text
from metaaudit.inputs.rotations import turned
from metaaudit.inputs.source import ImageSource
from metaaudit.inputs.splits import divide
from metaaudit.inputs.task_set import Ints, Task, TaskSet
from metaaudit.inputs.values import image_pool

# First words of the seeds: no two streams are the same, even with equal seeds.
_STREAMS = {"train": 1, "eval": 2}


def sample_tasks(source: ImageSource, config: SampledConfig) -> tuple[TaskSet, TaskSet]:
    """Samples training and evaluation tasks from a data set.

    A task depends on the classes of its side, its seed, its number and the episode's size, and
    not on how many tasks there are.

    Args:
        source: The data set.
        config: Its ``image``, ``episode``, ``rotations``, ``splits``, ``train`` and ``eval``.

    Returns:
        The training tasks and the evaluation tasks.

    Raises:
        TaskSetError: The data set has too few classes or images, cannot be divided as asked, an
            image cannot be read, or images differ in size.
    """
    train, evaluation = (turned(side, config.rotations) for side in divide(source, config))
    _check_side("train", train, config.episode)
    _check_side("eval", evaluation, config.episode)
    sampled = (
        _task_set(train, _Drawn.of("train", train, config, config.train), config),
        _task_set(evaluation, _Drawn.of("eval", evaluation, config, config.eval), config),
    )
    sizes = [task_set.pool.input_shape[1:] for task_set in sampled]
    if sizes[0] != sizes[1]:
        raise TaskSetError(
            source.where,
            f"has training images of {sizes[0][1]}x{sizes[0][0]} and evaluation images of "
            f"{sizes[1][1]}x{sizes[1][0]}",
            "one size",
            "set tasks.image.size",
        )
    return sampled


@dataclass(frozen=True)
class _Drawn:
    """Tasks as numbers of classes and images.

    Attributes:
        ids: Of the tasks.
        classes: ``[n_tasks, ways]`` positions of classes among those of the side.
        images: ``[n_tasks, ways, shots + queries]`` positions of images among those of the side.
    """

    ids: list[str]
    classes: Ints
    images: Ints

    @classmethod
    def of(
        cls,
        name: str,
        side: ImageSource,
        config: SampledConfig,
        wanted: TrainSplitConfig | EvalSplitConfig,
    ) -> _Drawn:
        size, seed = config.episode, wanted.seed
        position = {class_name: row for row, class_name in enumerate(side.classes)}
        kinds = [[position[member] for member in kind] for kind in side.by_kind()]
        counts = np.array([len(ids) for ids in side.classes.values()], dtype=np.int64)
        starts = np.cumsum(counts) - counts
        classes = np.empty((wanted.tasks, size.ways), dtype=np.int64)
        images = np.empty((*classes.shape, size.shots + size.queries), dtype=np.int64)
        for number in range(wanted.tasks):
            rng = np.random.default_rng([_STREAMS[name], seed, number])
            for label, row in enumerate(rng.choice(len(kinds), size.ways, replace=False)):
                kind = kinds[row]
                # Only where there is a choice: a class of its own kind draws nothing.
                chosen = kind[rng.integers(len(kind))] if len(kind) > 1 else kind[0]
                picked = rng.choice(counts[chosen], images.shape[2], replace=False)
                classes[number, label] = chosen
                images[number, label] = starts[chosen] + picked
        ids = [f"{name}-s{seed}-{number:05d}" for number in range(wanted.tasks)]
        return cls(ids, classes, images)


def _check_side(name: str, side: ImageSource, size: EpisodeConfig) -> None:
    classes, kinds = len(side.classes), len(side.by_kind())
    if kinds < size.ways:
        alike = f", {kinds} where those that look alike are one," if kinds < classes else ""
        raise TaskSetError(
            f"tasks.{name}",
            f"{classes} classes{alike} are too few for tasks of {size.ways}",
            f"at least {size.ways}",
            "take more classes, or lower tasks.episode.ways",
        )
    needed = size.shots + size.queries
    for class_name, ids in sorted(side.classes.items()):
        if len(ids) < needed:
            raise TaskSetError(
                side.where,
                f"class '{class_name}' has {len(ids)} images for tasks.{name}",
                f"at least {needed} (shots + queries)",
                "lower tasks.episode.shots or tasks.episode.queries",
            )


def _task_set(side: ImageSource, drawn: _Drawn, config: SampledConfig) -> TaskSet:
    """The tasks over a pool of the images that they use, each once, sorted by id."""
    names, all_ids = list(side.classes), list(side.image_ids())
    used = sorted((all_ids[place], place) for place in np.unique(drawn.images).tolist())
    ids = tuple(image_id for image_id, _ in used)
    check_text(side.where, (*ids, *(names[place] for place in np.unique(drawn.classes))))
    row_of = np.zeros(len(all_ids), dtype=np.int64)
    row_of[[place for _, place in used]] = np.arange(len(used))
    size = config.episode
    tasks = []
    for task_id, classes, images in zip(drawn.ids, drawn.classes, drawn.images, strict=True):
        rows = row_of[images]
        support, query = rows[:, : size.shots], rows[:, size.shots :]
        support_y, query_y = (
            np.repeat(np.arange(size.ways, dtype=np.int64), count)
            for count in (size.shots, size.queries)
        )
        class_names = tuple(names[place] for place in classes)
        tasks.append(Task(task_id, support.ravel(), support_y, query.ravel(), query_y, class_names))
    return TaskSet(image_pool(side.read(ids), ids, config.image), tuple(tasks))
