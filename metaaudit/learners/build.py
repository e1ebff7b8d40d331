"""From the ``learner`` section to a learner."""

from __future__ import annotations

from metaaudit.config.schema import LearnerConfig
from metaaudit.learners.base import Learner
from metaaudit.learners.imaml import IMAML
from metaaudit.learners.maml import MAML


def build_learner(config: LearnerConfig) -> Learner:
    """Builds the configured learner."""
    if config.name == "imaml":
        assert config.proximity is not None  # the schema sees to it
        return IMAML(config.inner_lr, config.steps, config.proximity, config.tolerance)
    return MAML(config.inner_lr, config.steps, first_order=config.name == "fomaml")
