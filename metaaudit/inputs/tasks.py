"""The task sets that a configuration names, whatever their format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metaaudit.config.tasks import (
    EpisodesConfig,
    IdxConfig,
    ImageCsvConfig,
    ImageFolderConfig,
    MetaOptNetConfig,
    MiniImagenetConfig,
    OmniglotConfig,
    SampledConfig,
    TaskFactoryConfig,
    TasksConfig,
    TorchmetaConfig,
)
from metaaudit.inputs.episodes import load_episodes
from metaaudit.inputs.idx import idx_source
from metaaudit.inputs.image_csv import image_csv_source
from metaaudit.inputs.image_folder import image_folder_source
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
}
"""What gives the tasks of a format that has them ready-made."""


def load_tasks(config: TasksConfig) -> tuple[TaskSet, TaskSet]:
    """Reads or samples the training and the evaluation tasks.

    Raises:
        TaskSetError: They cannot be used.
    """
    if isinstance(config, SampledConfig):
        return sample_tasks(SOURCES[type(config)](config), config)
    return READY_MADE[type(config)](config)
