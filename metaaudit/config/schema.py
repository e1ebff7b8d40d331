"""A whole configuration file: its sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, model_validator

from metaaudit.config.compute import ComputeConfig
from metaaudit.config.evaluate import EXPERIMENTS, UNADAPTED_EXPERIMENTS, EvaluateConfig
from metaaudit.config.gate import GateConfig
from metaaudit.config.influence import InfluenceConfig
from metaaudit.config.learner import (
    FIELD_LEARNERS,
    LEARNERS,
    PROXIMAL_LEARNERS,
    STEPPING_LEARNERS,
    UNADAPTED,
    LearnerConfig,
)
from metaaudit.config.mislabel import FITTED, UNADAPTED_SIGNALS, MislabelConfig, Signal
from metaaudit.config.model import MODELS, ModelConfig
from metaaudit.config.plant import PlantConfig
from metaaudit.config.section import Section
from metaaudit.config.tasks import FORMATS, TasksConfig
from metaaudit.config.training import TrainingConfig


class Config(Section):
    """A whole configuration file.

    Attributes:
        checkpoint: The weights; or a list, over which scores are averaged.
        rename: For a checkpoint whose names do not say which tensor is which: names in the file to
            names in the model; one that is empty or ends with a dot stands for all that begin so.
    """

    model: ModelConfig
    learner: LearnerConfig
    checkpoint: Path | Annotated[list[Path], Field(min_length=1)]
    rename: dict[str, str] = Field(default_factory=dict)
    tasks: TasksConfig
    plant: PlantConfig = PlantConfig()
    training: TrainingConfig = TrainingConfig()
    influence: InfluenceConfig = InfluenceConfig()
    mislabel: MislabelConfig = MislabelConfig()
    gate: GateConfig = GateConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    compute: ComputeConfig = ComputeConfig()

    @property
    def scores_by_ekfac(self) -> bool:
        """Whether scoring uses EK-FAC, which not every network allows."""
        return self.influence.uses_ekfac or self.mislabel.signal == "self-influence"

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """All checkpoints, one or more."""
        given = self.checkpoint
        return tuple(given) if isinstance(given, list) else (given,)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_learner(cls, given: Any) -> Any:
        """A learner that follows a field has a Jacobian, and one that does not adapt no folds."""
        if not isinstance(given, dict):
            return given
        learner = given.get("learner")
        name = learner.get("name") if isinstance(learner, dict) else getattr(learner, "name", None)
        if name in FIELD_LEARNERS:
            return _with_default(given, "influence", "curvature", "jacobian")
        if name == UNADAPTED:
            return _with_default(given, "mislabel", "signal", UNADAPTED_SIGNALS[0])
        return given

    @property
    def adapts(self) -> bool:
        """Whether the learner adapts to tasks; if not, they are batches of a labelled data set."""
        return self.learner.name != UNADAPTED

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals of wrong labels that the learner has."""
        every: tuple[Signal, ...] = get_args(Signal)
        return every if self.adapts else UNADAPTED_SIGNALS

    @model_validator(mode="after")
    def _labelled_data_are_for_no_adaptation(self) -> Config:
        labelled = self.tasks.format == "labelled"
        if labelled and self.adapts:
            raise ValueError(
                f"tasks.format: labelled is for learner.name: none, not for {self.learner.name}, "
                "which adapts to few-shot tasks; change one of them"
            )
        if not self.adapts and not labelled:
            raise ValueError(
                "learner.name: none is for tasks.format: labelled, not for "
                f"{self.tasks.format}, whose tasks are adapted to; change one of them"
            )
        if not self.adapts:
            self._check_unadapted()
        return self

    def _check_unadapted(self) -> None:
        if self.mislabel.signal not in UNADAPTED_SIGNALS:
            raise ValueError(
                f"mislabel.signal: {self.mislabel.signal} is for learners that adapt, not for "
                f"none; expected {', '.join(UNADAPTED_SIGNALS[:-1])} or {UNADAPTED_SIGNALS[-1]}"
            )
        for key in FITTED:
            if getattr(self.mislabel, key) != MislabelConfig.model_fields[key].default:
                raise ValueError(
                    f"mislabel.{key} is for learners that adapt, not for none; remove it"
                )
        for experiment in self.evaluate.experiments:
            if experiment.kind not in UNADAPTED_EXPERIMENTS:
                raise ValueError(
                    f"evaluate.experiments: {experiment.kind} is for learners that adapt, not for "
                    f"none; expected {' or '.join(UNADAPTED_EXPERIMENTS)}"
                )
        if self.plant.permuted:
            raise ValueError(
                "plant.permuted is for learners that adapt, not for none: a batch has no support "
                "that its labels could contradict; remove it"
            )

    @model_validator(mode="after")
    def _influence_fits_the_learner(self) -> Config:
        name, influence = self.learner.name, self.influence
        if name == "imaml" and influence.inner.proximity != "auto":
            raise ValueError(
                "influence.inner.proximity is that of the learner imaml; change learner.proximity"
            )
        if self.mislabel.steps != "learner" and name not in STEPPING_LEARNERS:
            raise ValueError(
                f"mislabel.steps is for the learners {_listed(STEPPING_LEARNERS)}, not for {name}; "
                "remove it"
            )
        if influence.derivative == "implicit" and name not in PROXIMAL_LEARNERS:
            raise ValueError(
                f"influence.derivative: implicit is for the learners {_listed(PROXIMAL_LEARNERS)}, "
                f"not for {name}; remove it"
            )
        if (influence.curvature == "jacobian") != (name in FIELD_LEARNERS):
            raise ValueError(
                f"influence.curvature: jacobian is for the learners {_listed(FIELD_LEARNERS)}, "
                "and they have no other; to audit such a checkpoint as a minimiser of the outer "
                "loss, which it is not quite, use learner.name: maml"
            )
        return self


def _with_default(given: dict[str, Any], section: str, key: str, value: str) -> dict[str, Any]:
    """A configuration as it was given, with another default for a key of a section."""
    found = given.get(section, {})
    return {**given, section: {key: value, **found}} if isinstance(found, dict) else given


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


TAGGED: dict[str, dict[str, type[Section]]] = {
    "model": MODELS,
    "learner": LEARNERS,
    "tasks": FORMATS,
    "experiments": EXPERIMENTS,
}
"""The sections that come in several kinds, by the name that pydantic gives each; ``experiments``
is a list of them."""
