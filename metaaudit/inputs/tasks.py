"""The task sets that a configuration names, whatever their format."""

from __future__ import annotations

from metaaudit.config.schema import EpisodesConfig, TasksConfig
from metaaudit.inputs.episodes import load_episodes
from metaaudit.inputs.omniglot import load_omniglot
from metaaudit.inputs.task_set import TaskSet


def load_tasks(config: TasksConfig) -> tuple[TaskSet, TaskSet]:
    """Reads or samples the training and the evaluation tasks.

    Raises:
        TaskSetError: They cannot be used.
    """
    if isinstance(config, EpisodesConfig):
        return load_episodes(config)
    return load_omniglot(config)
