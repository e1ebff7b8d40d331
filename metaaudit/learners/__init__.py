"""How a task is adapted to, one learner a file."""

from metaaudit.learners.base import Forward, InstanceLoss, Learner
from metaaudit.learners.build import build_learner
from metaaudit.learners.maml import MAML

__all__ = ["MAML", "Forward", "InstanceLoss", "Learner", "build_learner"]
