"""The stages that a run goes through, and which of them the cache holds."""

from __future__ import annotations

from collections.abc import Callable

from metaaudit.inputs.task_set import TaskSet
from metaaudit.keeping import Key
from metaaudit.label_stages import LabelStages
from metaaudit.methods import data_features, mts, pooled_ekfac, trak
from metaaudit.stages import Stages

Planned = dict[str, bool | None]
"""By stage, whether the cache holds it; ``None`` where only a run can tell."""


def planned(stages: Stages) -> Planned:
    """The stages that the cache may hold; computes nothing."""
    problem, cache = stages.problem, stages.cache
    influence, mislabel = problem.config.influence, problem.config.mislabel
    found: Planned = {}

    def add(stage: str, name: str, key: Key | None) -> None:
        found[f"{stage}{stages.of}"] = None if key is None else cache.holds(name, key)

    def both(stage: str, name: str, key: Callable[[TaskSet], Key | None]) -> None:
        for task_set in (problem.train, problem.evaluation):
            add(stages.named(stage, task_set), name, key(task_set))

    if influence.derivative == "implicit":
        kind = influence.inner.inverse
        both(f"inner problem by {kind}", f"inner-{kind}", stages.inner_key)
    both("gradients", "gradients", stages.gradient_key)
    if influence.outer_ekfac:
        add("outer EK-FAC", "outer-ekfac", stages.outer_key())
    if influence.sampled_fisher:
        add("sampled Fisher", "sampled-fisher", stages.sampled_key())
    if influence.pooled_ekfac:
        add("EK-FAC at the adapted parameters", pooled_ekfac.CACHED, stages.outer_key())
    if influence.method == "trak":
        both("margin gradients", trak.CACHED, stages.gradient_key)
    if influence.method == "mts":
        add("features", data_features.CACHED, data_features.features_key(stages))
        for unit in mts.UNITS:
            add(f"learned weights of {unit}", f"mts-{unit}", mts.learned_key(stages))
    if mislabel.signal == "self-influence":
        both("self-influence", "self-influence", stages.base_key)
    elif influence.self_influence:
        add("self-influence", "self-influence", stages.base_key(problem.train))
    labels = LabelStages(stages)
    undecided = problem.steps and mislabel.steps == "auto"  # and the key with it
    if problem.config.adapts:
        both("cross-fitting", "crossfit", (lambda _: None) if undecided else labels.crossfit_key)
    both("adapted fit", "adapted-fit", stages.base_key)
    if mislabel.signal == "combined":
        both("support cross-fitting", "supportfit", labels.support_key)
    if mislabel.signal == "own-influence":
        both("own influence", "own-influence", stages.base_key)
    if mislabel.signal == "leave-one-out":
        both("leave-one-out", "leave-one-out", stages.base_key)
    return found
