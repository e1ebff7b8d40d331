"""From the ``learner`` section to a learner."""

from __future__ import annotations

from metaaudit.config.schema import LearnerConfig
from metaaudit.learners.base import Learner
from metaaudit.learners.maml import MAML


def build_learner(config: LearnerConfig) -> Learner:
    """Builds the configured learner."""
    return MAML(config.inner_lr, config.steps, first_order=config.name == "fomaml")
