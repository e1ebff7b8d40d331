"""The task sets that a configuration names, whatever their format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaaudit.config.tasks import (
    EpisodesConfig,
    IdxConfig,
    ImageCsvConfig,
    ImageFolderConfig,
    LabelledConfig,
    MetaOptNetConfig,
    MiniImagenetConfig,
    OmniglotConfig,
    SampledConfig,
    TaskFactoryConfig,
    TasksConfig,
    TorchmetaConfig,
)
from metaaudit.inputs.episodes import load_episodes, write_episodes
from metaaudit.inputs.idx import idx_source
from metaaudit.inputs.image_csv import image_csv_source
from metaaudit.inputs.image_folder import image_folder_source
from metaaudit.inputs.labelled import load_labelled
from metaaudit.inputs.labelled_arrays import write_labelled
from metaaudit.inputs.metaoptnet import metaoptnet_source
from metaaudit.inputs.mini_imagenet import mini_imagenet_source
from metaaudit.inputs.omniglot import omniglot_source
from metaaudit.inputs.sampling import sample_tasks
from metaaudit.inputs.source import ImageSource
from metaaudit.inputs.task_factory import load_task_factory
from metaaudit.inputs.task_set import TaskSet
from metaaudit.inputs.torchmeta import torchmeta_source

SOURCES: dict[type[SampledConfig], Callable[[Any], ImageSource]] = {
    OmniglotConfig: omniglot_source,
    IdxConfig: idx_source,
    ImageFolderConfig: image_folder_source,
    ImageCsvConfig: image_csv_source,
    MiniImagenetConfig: mini_imagenet_source,
    MetaOptNetConfig: metaoptnet_source,
    TorchmetaConfig: torchmeta_source,
}
"""What reads the images of a format from which tasks are sampled."""

READY_MADE: dict[type[Any], Callable[[Any], tuple[TaskSet, TaskSet]]] = {
    EpisodesConfig: load_episodes,
    TaskFactoryConfig: load_task_factory,
    LabelledConfig: load_labelled,
}
"""What gives the tasks of a format that samples none."""


def load_tasks(config: TasksConfig) -> tuple[TaskSet, TaskSet]:
    """Reads or samples the training and the evaluation tasks.

    Raises:
        TaskSetError: They cannot be used.
    """
    if isinstance(config, SampledConfig):
        return sample_tasks(SOURCES[type(config)](config), config)
    return READY_MADE[type(config)](config)


def write_tasks(path: Path, task_set: TaskSet) -> None:
    """Writes few-shot tasks as episodes, and batches as the labelled data set that they are of.

    Raises:
        TaskSetError: The suffix is of no known kind, there are no tasks, or one of them could
            not be read back.
        RunError: The folder cannot be written to.
    """
    write = write_labelled if task_set.tasks and task_set.labelled else write_episodes
    write(path, task_set)
