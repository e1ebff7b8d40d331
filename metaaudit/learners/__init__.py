"""How a task is adapted to, one learner a file."""

from metaaudit.learners.anil import ANIL
from metaaudit.learners.base import Forward, InstanceLoss, Learner, Support, weighted_loss
from metaaudit.learners.build import build_learner
from metaaudit.learners.imaml import IMAML
from metaaudit.learners.maml import MAML
from metaaudit.learners.meta_sgd import MetaSGD
from metaaudit.learners.protonet import ProtoNet
from metaaudit.learners.ridge import Ridge
from metaaudit.learners.unadapted import Unadapted

__all__ = [
    "ANIL",
    "IMAML",
    "MAML",
    "Forward",
    "InstanceLoss",
    "Learner",
    "MetaSGD",
    "ProtoNet",
    "Ridge",
    "Support",
    "Unadapted",
    "build_learner",
    "weighted_loss",
]
