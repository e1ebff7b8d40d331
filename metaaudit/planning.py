"""The stages that a run goes through, and which of them the cache holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from metaaudit.inputs.task_set import TaskSet
from metaaudit.keeping import Kept
from metaaudit.label_stages import CROSSFITTING, OWN, LabelStages
from metaaudit.methods import data_features, mts, pooled_ekfac, trak
from metaaudit.stages import Stages

Planned = dict[str, bool | None]
"""By stage, whether the cache holds it; ``None`` where only a run can tell."""


def planned(stages: Stages) -> Planned:
    """The stages that the cache may hold; computes nothing."""
    held = {one.stage: stages.keeping.holds(one) for one in _of_influence(stages)}
    of_labels = {
        stage: None if one is None else stages.keeping.holds(one)
        for stage, one in _of_labels(stages).items()
    }
    return {f"{stage}{stages.of}": there for stage, there in (held | of_labels).items()}


def _of_influence(stages: Stages) -> list[Kept]:
    influence = stages.problem.config.influence
    found: list[Kept] = []
    if influence.derivative == "implicit":
        found += _both(stages, stages.inner_stage)
    found += _both(stages, stages.gradient_stage)
    if influence.outer_ekfac:
        found.append(stages.outer_stage())
    if influence.sampled_fisher:
        found.append(stages.sampled_stage())
    if influence.pooled_ekfac:
        found.append(pooled_ekfac.pooled_stage(stages))
    if influence.method == "trak":
        found += _both(stages, partial(trak.margin_stage, stages))
    if influence.method == "mts":
        features = data_features.features_stage(stages)
        found += [features, *(mts.learned_stage(stages, unit, features) for unit in mts.UNITS)]
    return found


def _of_labels(stages: Stages) -> dict[str, Kept | None]:
    """By stage; ``None`` where what it depends on is not known yet."""
    problem, labels = stages.problem, LabelStages(stages)
    mislabel, found = problem.config.mislabel, []
    if mislabel.signal == "self-influence":
        found += _both(stages, stages.self_influence_stage)
    elif problem.config.influence.self_influence:
        found.append(stages.self_influence_stage(problem.train))
    undecided: list[str] = []
    if problem.config.adapts:
        if problem.steps and mislabel.steps == "auto":
            sets = (problem.train, problem.evaluation)
            undecided = [stages.named(CROSSFITTING, task_set) for task_set in sets]
        else:
            found += _both(stages, labels.crossfit_stage)
    own = [name for name in OWN if name in ("adapted-fit", mislabel.signal)]
    for name in own:
        found += _both(stages, partial(labels.own_stage, name))
    if mislabel.signal == "combined":
        found += _both(stages, labels.support_stage)
    return {**{one.stage: one for one in found}, **dict.fromkeys(undecided)}


def _both(stages: Stages, stage: Callable[[TaskSet], Kept]) -> list[Kept]:
    """A stage over the training tasks and over the evaluation tasks."""
    return [stage(stages.problem.train), stage(stages.problem.evaluation)]
