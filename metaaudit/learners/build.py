"""From the ``learner`` section to a learner."""

from __future__ import annotations

from metaaudit.config.learner import (
    AnilConfig,
    ImamlConfig,
    LearnerConfig,
    ProtonetConfig,
    RidgeConfig,
    UnadaptedConfig,
)
from metaaudit.learners.anil import ANIL
from metaaudit.learners.base import Learner
from metaaudit.learners.imaml import IMAML
from metaaudit.learners.maml import MAML
from metaaudit.learners.meta_sgd import MetaSGD
from metaaudit.learners.protonet import ProtoNet
from metaaudit.learners.ridge import Ridge
from metaaudit.learners.unadapted import Unadapted
from metaaudit.models import Head, Model


def build_learner(config: LearnerConfig, model: Model, input_shape: tuple[int, ...]) -> Learner:
    """Builds the configured learner.

    ``fomaml`` and ``reptile`` adapt as MAML does; what sets them apart is the direction in which
    they move the meta-parameters (``metaaudit.bilevel``).

    Args:
        config: The ``learner`` section.
        model: The network.
        input_shape: Shape of one input.

    Raises:
        ModelError: The learner needs a network that ends with a linear layer.
    """
    if isinstance(config, UnadaptedConfig):
        return Unadapted()
    if isinstance(config, ImamlConfig):
        return IMAML(config.inner_lr, config.steps, config.proximity, config.tolerance)
    if isinstance(config, AnilConfig | ProtonetConfig | RidgeConfig):
        head = Head.of(model, input_shape, config.head)
        if isinstance(config, AnilConfig):
            return ANIL(config.inner_lr, config.steps, head)
        if isinstance(config, RidgeConfig):
            return Ridge(config.l2, config.scale, head)
        return ProtoNet(head)
    if config.name == "meta-sgd":
        return MetaSGD(config.inner_lr, config.steps)
    return MAML(config.inner_lr, config.steps)
