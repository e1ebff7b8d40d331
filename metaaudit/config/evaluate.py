"""The ``evaluate`` section: experiments on how far the scores can be trusted."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from metaaudit.config.influence import InnerConfig
from metaaudit.config.section import NonNegativeFloat, PositiveInt, Section, Seed

Fraction = Annotated[float, Field(gt=0, lt=1)]


class CandidateConfig(Section):
    """One way to score, compared with others.

    Attributes:
        name: What tables call it.
        influence: Keys of the ``influence`` section that differ from the configuration's own.
        checkpoints: How many of the configured checkpoints it uses, the last ones; absent: all.
    """

    name: Annotated[str, Field(min_length=1)]
    influence: dict[str, Any] = Field(default_factory=dict)
    checkpoints: PositiveInt | None = None


Candidates = Annotated[list[CandidateConfig], Field(min_length=1)]


class LdsConfig(Section):
    """Predicted against actual losses of learners that were retrained on some of the data.

    Attributes:
        remove: What a retraining lacks: ``subset``, all tasks but a random ``fraction``; or one
            ``task`` or one ``instance``.
        retrainings: How many subsets, or how many single removals.
        fraction: Share of the tasks in a subset.
        seeds: Retrainings of each, by seed; their mean loss counts, and their spread gives the
            noise ceiling.
        same_steps: Whether a retraining takes as many optimiser steps as training on all tasks
            would, instead of as many epochs.
        warm_start: Whether it starts from the checkpoint, for a tenth of the epochs, instead of
            anew.
        seed: Of the choice of subsets; retrainings have this and the following training seeds.
        candidates: The methods to compare; absent: all, as they are documented.
        resamples: Bootstrap resamples of subsets and evaluation tasks.
    """

    kind: Literal["lds"]
    remove: Literal["subset", "task", "instance"] = "subset"
    retrainings: PositiveInt = 60
    fraction: Fraction = 0.5
    seeds: PositiveInt = 2
    same_steps: bool = False
    warm_start: bool = False
    seed: Seed = 1000
    candidates: Candidates | None = None
    resamples: PositiveInt = 1000


class EditingConfig(Section):
    """Editing the checkpoint by influence against retraining without the removed data.

    Attributes:
        drop: What is removed, at random: tasks, support instances (``training-instances``) or
            query instances (``validation-instances``).
        fractions: Shares of them.
        repeats: Random removals of each share.
        seed: Of the removals; retrainings have the checkpoint's own training seed.
        candidates: The ways to edit; absent: those that take less time than retraining. A method
            that ranks and cannot edit removes as many items as it ranks first, and retrains.
    """

    reserved: ClassVar[tuple[str, ...]] = ("retrained", "not edited")
    """Names of rows of its own."""

    kind: Literal["editing"]
    drop: Literal["tasks", "training-instances", "validation-instances"] = "tasks"
    fractions: Annotated[list[Fraction], Field(min_length=1)] = Field(default=[0.1])
    repeats: PositiveInt = 3
    seed: Seed = 2000
    candidates: Candidates | None = None


class HarmfulConfig(Section):
    """Finding the tasks whose labels ``plant`` corrupted, and retraining without those found.

    Attributes:
        checked: Shares of the tasks that are looked at, from the top of each ranking.
        retrain: Shares that are removed, from the top, before retraining.
        seeds: Retrainings of each.
        seed: Training seed of the first retraining.
        candidates: Rankings to compare, besides random orders; absent: influence as configured,
            and the loss.
        label_noise: Whether to compare the calibrated label noise as well, and with permuted tasks
            the contradiction between support and query, which take cross-fitting.
    """

    reserved: ClassVar[tuple[str, ...]] = (
        "random order",
        "best possible",
        "nothing",
        "exactly the corrupted tasks",
        "label noise",
        "contradiction",
    )
    """Names of rankings and rows of its own."""

    kind: Literal["harmful"]
    checked: Annotated[list[Fraction], Field(min_length=1)] = Field(
        default=[0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5]
    )
    retrain: list[Fraction] = Field(default=[0.1, 0.2, 0.3])
    seeds: PositiveInt = 2
    seed: Seed = 3000
    candidates: Candidates | None = None
    label_noise: bool = True


class AgreementConfig(Section):
    """How close approximations come to a reference: depth of a series, form of the Hessian.

    Attributes:
        reference: The one that the others are compared with.
        candidates: The approximations.
    """

    kind: Literal["agreement"]
    reference: CandidateConfig
    candidates: Candidates


class DriftConfig(Section):
    """Two-stage estimates of training instances, with their shortcuts, as inner steps grow.

    Attributes:
        steps: Numbers of inner steps.
        instances: How many support instances are compared, of as few tasks as hold them.
        inner: The inner Hessian of the two stages, as in ``influence.inner``.
        seed: Of the choice of tasks.
    """

    kind: Literal["drift"]
    steps: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default=[1, 3, 5, 10])
    instances: PositiveInt = 200
    inner: InnerConfig = InnerConfig(inverse="cg")
    seed: Seed = 0


class RetrievalConfig(Section):
    """Whether a training task, evaluated on, ranks itself most helpful (TLXML).

    Attributes:
        tasks: How many training tasks are evaluated on, the first ones; absent: all.
        candidates: The methods to compare.
    """

    kind: Literal["retrieval"]
    tasks: PositiveInt | None = None
    candidates: Candidates | None = None


class NoiseImagesConfig(Section):
    """Whether tasks of noise images rank below regular ones (TLXML).

    Attributes:
        share: Share of the training tasks whose images become noise.
        epochs: Lengths of training, short and overfitted.
        weight_decay: Outer L2 weights to train with.
        seed: Of the noise.
    """

    kind: Literal["noise-images"]
    share: Fraction = 0.125
    epochs: Annotated[list[PositiveInt], Field(min_length=1)] = Field(default=[10, 40])
    weight_decay: Annotated[list[NonNegativeFloat], Field(min_length=1)] = Field(
        default=[0.0, 0.005]
    )
    seed: Seed = 0


class DetectionConfig(Section):
    """How well every signal finds the labels that ``plant`` changed."""

    kind: Literal["detection"]


ExperimentConfig = Annotated[
    LdsConfig
    | EditingConfig
    | HarmfulConfig
    | AgreementConfig
    | DriftConfig
    | RetrievalConfig
    | NoiseImagesConfig
    | DetectionConfig,
    Field(discriminator="kind"),
]


EXPERIMENTS: dict[str, type[Section]] = {
    "lds": LdsConfig,
    "editing": EditingConfig,
    "harmful": HarmfulConfig,
    "agreement": AgreementConfig,
    "drift": DriftConfig,
    "retrieval": RetrievalConfig,
    "noise-images": NoiseImagesConfig,
    "detection": DetectionConfig,
}


UNADAPTED_EXPERIMENTS = ("lds", "detection")
"""Those that a learner that does not adapt has, too."""


class EvaluateConfig(Section):
    """Experiments of ``metaaudit evaluate``.

    Attributes:
        experiments: In this order.
        jobs: Processes that retrain at once.
    """

    experiments: Annotated[list[ExperimentConfig], Field(min_length=1)] = Field(
        default=[LdsConfig(kind="lds")]
    )
    jobs: PositiveInt = 2

    @model_validator(mode="after")
    def _names_tell_apart(self) -> EvaluateConfig:
        for experiment in self.experiments:
            names = [one.name for one in getattr(experiment, "candidates", None) or []]
            if len(names) > len(set(names)):
                raise ValueError(f"two candidates of '{experiment.kind}' have one name")
            for name in names:
                if name in getattr(experiment, "reserved", ()):
                    raise ValueError(
                        f"candidate '{name}' of '{experiment.kind}' has the name of a row of the "
                        "experiment's own; name it otherwise"
                    )
        return self
