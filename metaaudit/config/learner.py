"""The ``learner`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metaaudit.config.section import PositiveFloat, PositiveInt, Section


class MamlConfig(Section):
    """Gradient descent from the meta-parameters.

    Attributes:
        name: ``maml`` differentiates through the inner steps; ``fomaml`` does not; ``meta-sgd``
            has an inner learning rate for every parameter, a meta-parameter like the weights;
            ``reptile`` moves the meta-parameters towards the adapted ones.
        inner_lr: Inner learning rate; for ``meta-sgd`` the one that training starts from.
        steps: Number of inner SGD steps.
    """

    name: Literal["maml", "fomaml", "meta-sgd", "reptile"]
    inner_lr: PositiveFloat
    steps: PositiveInt


class AnilConfig(Section):
    """MAML that adapts the head alone.

    Attributes:
        inner_lr: Inner learning rate.
        steps: Number of inner SGD steps.
        head: Name of the linear layer that ends the network; the last one by default.
    """

    name: Literal["anil"]
    inner_lr: PositiveFloat
    steps: PositiveInt
    head: str | None = None


class ImamlConfig(Section):
    """Adaptation that solves an inner problem which pulls to the meta-parameters.

    Attributes:
        inner_lr: Largest inner learning rate.
        steps: Bound on the inner steps.
        proximity: Strength of the pull, ``rho``.
        tolerance: Norm of the inner problem's gradient, relative to the first, at which it is
            solved.
    """

    name: Literal["imaml"]
    inner_lr: PositiveFloat
    steps: PositiveInt
    proximity: PositiveFloat
    tolerance: PositiveFloat = 1e-2


class ProtonetConfig(Section):
    """Prototypical network: each class is the mean of its support features.

    Attributes:
        head: Name of the linear layer that the prototypes take the place of; the last one by
            default.
    """

    name: Literal["protonet"]
    head: str | None = None


class RidgeConfig(Section):
    """A head by ridge regression on the support features, as in R2-D2.

    Attributes:
        l2: Ridge penalty, and ``scale``, by which outputs are multiplied: what training starts
            from, and what is taken where a checkpoint does not hold them.
        head: Name of the linear layer that the solution takes the place of; the last one by
            default.
    """

    name: Literal["ridge"]
    l2: PositiveFloat = 1.0
    scale: PositiveFloat = 1.0
    head: str | None = None


class UnadaptedConfig(Section):
    """No adaptation: an ordinary classifier, for the batches of a labelled data set."""

    name: Literal["none"]


LEARNERS: dict[str, type[Section]] = {
    **dict.fromkeys(("maml", "fomaml", "meta-sgd", "reptile"), MamlConfig),
    "anil": AnilConfig,
    "imaml": ImamlConfig,
    "protonet": ProtonetConfig,
    "ridge": RidgeConfig,
    "none": UnadaptedConfig,
}

UNADAPTED = "none"
"""The learner that does not adapt, whose tasks have no support."""

FIELD_LEARNERS = ("fomaml", "reptile")
"""Learners that descend along a field which is no gradient."""

PROXIMAL_LEARNERS = ("maml", "imaml")
"""Learners whose adapted parameters can be taken to solve a proximal inner problem."""

STEPPING_LEARNERS = ("maml", "fomaml", "anil", "meta-sgd", "reptile")
"""Learners with a number of inner steps, and not a bound on it."""

LearnerConfig = Annotated[
    MamlConfig | AnilConfig | ImamlConfig | ProtonetConfig | RidgeConfig | UnadaptedConfig,
    Field(discriminator="name"),
]
