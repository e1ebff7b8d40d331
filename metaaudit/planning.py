"""What a dry run says of the stages."""

from __future__ import annotations

from collections.abc import Callable

from metaaudit.inputs.task_set import TaskSet
from metaaudit.keeping import Key
from metaaudit.label_stages import LabelStages
from metaaudit.methods import pooled_ekfac, trak
from metaaudit.stages import Stages


def planned(stages: Stages) -> list[tuple[str, str]]:
    """Each stage that the cache may hold, and whether it does; computes nothing."""
    problem, cache = stages.problem, stages.cache
    influence, mislabel = problem.config.influence, problem.config.mislabel
    sets = {"training": problem.train, "evaluation": problem.evaluation}
    found: list[tuple[str, str]] = []

    def tell(what: str, name: str, key: Key) -> None:
        how = "from the cache" if cache.holds(name, key) else "to compute"
        found.append((f"{what}{stages.of}", how))

    def plan(what: str, name: str, key: Callable[[TaskSet], Key]) -> None:
        for which, task_set in sets.items():
            tell(f"{which} {what}", name, key(task_set))

    if influence.derivative == "implicit":
        kind = influence.inner.inverse
        plan(f"inner {kind}", f"inner-{kind}", stages.inner_key)
    plan("gradients", "gradients", stages.gradient_key)
    if influence.outer_ekfac:
        tell("outer EK-FAC", "outer-ekfac", stages.outer_key())
    if influence.sampled_fisher:
        tell("sampled Fisher", "sampled-fisher", stages.sampled_key())
    if influence.pooled_ekfac:
        tell("EK-FAC at the adapted parameters", pooled_ekfac.CACHED, stages.outer_key())
    if influence.method == "trak":
        plan("margin gradients", trak.CACHED, stages.gradient_key)
    if mislabel.signal == "self-influence":
        plan("self-influence", "self-influence", stages.base_key)
    elif influence.self_influence:
        tell("training self-influence", "self-influence", stages.base_key(problem.train))
    if problem.steps and mislabel.steps == "auto":
        found.append((f"cross-fitting{stages.of}", "after the choice of steps"))
    else:
        plan("cross-fitting", "crossfit", LabelStages(stages).crossfit_key)
    plan("adapted fit", "adapted-fit", stages.base_key)
    if mislabel.signal == "combined":
        plan("support cross-fitting", "supportfit", LabelStages(stages).support_key)
    if mislabel.signal == "own-influence":
        plan("own influence", "own-influence", stages.base_key)
    if mislabel.signal == "leave-one-out":
        plan("leave-one-out", "leave-one-out", stages.base_key)
    return found
