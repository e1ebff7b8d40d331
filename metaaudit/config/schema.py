"""A whole configuration file: its sections."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from metaaudit.config.compute import ComputeConfig
from metaaudit.config.evaluate import EXPERIMENTS, EvaluateConfig
from metaaudit.config.gate import GateConfig
from metaaudit.config.influence import InfluenceConfig
from metaaudit.config.learner import (
    FIELD_LEARNERS,
    LEARNERS,
    PROXIMAL_LEARNERS,
    STEPPING_LEARNERS,
    LearnerConfig,
)
from metaaudit.config.mislabel import MislabelConfig
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
    def _a_field_has_a_jacobian(cls, given: Any) -> Any:
        """The default curvature of a learner that follows a field."""
        if not isinstance(given, dict):
            return given
        learner, influence = given.get("learner"), given.get("influence", {})
        name = learner.get("name") if isinstance(learner, dict) else getattr(learner, "name", None)
        if name in FIELD_LEARNERS and isinstance(influence, dict):
            return {**given, "influence": {"curvature": "jacobian", **influence}}
        return given

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
