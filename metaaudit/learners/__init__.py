"""How a task is adapted to, one learner a file."""

from metaaudit.learners.base import Forward, InstanceLoss, Learner
from metaaudit.learners.build import build_learner
from metaaudit.learners.imaml import IMAML
from metaaudit.learners.maml import MAML

__all__ = ["IMAML", "MAML", "Forward", "InstanceLoss", "Learner", "build_learner"]
