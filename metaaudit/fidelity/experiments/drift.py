"""The paper's two-stage influence of training instances, as the number of inner steps grows.

Stage 1 takes the inner problem to be solved (2501.15963)::

    inner-IF(z) = -(1/n) H_in^-1 grad loss(z; theta_k),        P = -grad L_k(theta_k) . inner-IF(z)

with the up-weighting of ``z``, so that ``P`` is the change of ``L_k`` on *removing* it. Stage 2 is
``instance-IF = -H_T^-1 D_lambda P``, which therefore points to removal as well; to first order the
loss of evaluation changes by ``-(1/N) u . D_lambda P`` on removal, and with the sign of this
project, positive = harmful, the influence of ``z`` is ``+(1/N) u . D_lambda P``. With ``q`` the
derivative of ``theta_k`` along ``u`` and ``x = H_in^-1 grad L_k``, it has three terms::

    n u . D_lambda P = (A q) . H_in^-1 grad loss(z)      the outer gradient moves
                     + q . A_z x                         the instance's gradient moves
                     - grad loss(z) . H_in^-1 T[q] x     the inner Hessian moves

where ``A`` and ``A_z`` are the Hessians of ``L_k`` and of ``loss(z)``, and ``T[q]`` the derivative
of ``H_in`` along ``q``. Holding ``inner-IF(z)`` fixed leaves the first; holding ``H_in`` alone, the
first two. All three together are the implicit derivative, an approximation itself where the
learner takes a few steps: the exact derivative goes through these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from metaaudit.bilevel import Implicit, InnerMethod, weight_derivatives
from metaaudit.bilevel.batch import TaskBatch, TaskTensors
from metaaudit.config.evaluate import DriftConfig
from metaaudit.config.influence import InnerConfig
from metaaudit.config.learner import PROXIMAL_LEARNERS
from metaaudit.errors import ConfigError
from metaaudit.fidelity.closeness import Closeness, Floats
from metaaudit.fidelity.results import Figure, Result, Series, Table, Value
from metaaudit.fidelity.workbench import Workbench
from metaaudit.inputs.task_set import Ints, TaskSet
from metaaudit.loading import Weights
from metaaudit.manifest import inner_warnings
from metaaudit.methods import Given, adjoint_solver
from metaaudit.models import Params
from metaaudit.problem import Problem
from metaaudit.stages import Stages

FORMS = {
    "inner-IF frozen": 1,
    "inner Hessian frozen": 2,
    "full two stages": 3,
}
"""How many of the three terms each form has."""

EXACT = (
    "The exact derivative goes through the learner's own steps; the direction u is the same for "
    "all forms, by the configured curvature at that number of steps."
)
RHO = "MAML has no pull to the meta-parameters; the two stages assume one of 1 / (inner_lr steps)."


@dataclass(frozen=True)
class Drift:
    """The forms at one number of inner steps.

    Attributes:
        steps: That number.
        exact: ``[n_instances]`` influences by the exact derivative.
        forms: ``[n_instances]`` influences by each of ``FORMS``.
        stationarity: Median over tasks of the inner gradient that is left, relative to the first.
        warnings: One line for each thing about the inner solves that did not go as asked.
    """

    steps: int
    exact: Floats
    forms: dict[str, Floats]
    stationarity: float
    warnings: tuple[str, ...]


def check(problem: Problem, config: DriftConfig) -> None:
    """Refuses a learner whose adapted parameters solve no inner problem, not even nearly.

    Raises:
        ConfigError: It is one, or its pull is asked to be another.
    """
    name = problem.config.learner.name
    if name not in PROXIMAL_LEARNERS:
        expected = " or ".join(PROXIMAL_LEARNERS)
        raise ConfigError("learner.name", f"drift is not for {name}", expected)
    if name == "imaml" and config.inner.proximity != "auto":
        raise ConfigError(
            "evaluate: drift: inner.proximity",
            "is that of the learner imaml",
            "auto",
            "change learner.proximity",
        )


def run(bench: Workbench, config: DriftConfig) -> Result:
    """Compares the forms with the exact derivative at every number of inner steps.

    Raises:
        ConfigError: The learner does not suit.
    """
    check(bench.problem, config)
    name = bench.config.learner.name
    rows, kept = chosen_instances(bench.problem.train, config.instances, config.seed)
    found = [_drift(bench, config.inner, steps, rows, kept) for steps in config.steps]
    lines: list[tuple[Value, ...]] = []
    for one in found:
        full = one.forms["full two stages"]
        for form, values in one.forms.items():
            shortcut = Closeness.of(values, full).error
            closeness = astuple(Closeness.of(values, one.exact))
            lines.append((one.steps, form, *closeness, shortcut, one.stationarity))
    columns = ("inner steps", "form", "rank correlation", "correlation", "relative error", "scale")
    table = Table(
        "drift",
        f"Two-stage influence of {len(kept)} support instances, inner inverse "
        f"{config.inner.inverse}, against the exact derivative",
        (*columns, "error against full two stages", "inner gradient left"),
        lines,
    )
    notes = [EXACT, *([RHO] if name == "maml" else []), *_warnings(found)]
    return Result(
        config.kind,
        "How far do two-stage estimates of training instances drift as inner steps grow?",
        (table,),
        (_figure("error", table, 4), _figure("correlation", table, 3)),
        tuple(notes),
        details={"tasks": bench.problem.train.select(rows).task_ids, "rho": _rhos(bench, config)},
    )


def chosen_instances(task_set: TaskSet, count: int, seed: int) -> tuple[list[int], Ints]:
    """Random tasks with so many support instances, and these.

    Returns:
        Rows of the tasks, and the positions of the instances among those of the selected set.
    """
    order = np.random.default_rng(seed).permutation(len(task_set)).tolist()
    sizes = np.cumsum([len(task_set.tasks[row].support) for row in order])
    rows = order[: int(np.searchsorted(sizes, count)) + 1]
    parts = [part for _, part, _ in task_set.select(rows).instances()]
    support = np.flatnonzero(np.array(parts) == "support")
    return rows, support[:count]


def two_stage(implicit: Implicit, batch: TaskBatch, direction: Params) -> Tensor:
    """The three terms of ``u . D_lambda P`` for every support instance of some tasks.

    Args:
        implicit: The tasks, with the inverse of their inner Hessians.
        batch: Some of them.
        direction: ``u``.

    Returns:
        ``[3, batch, n]``.
    """
    objective, layout = implicit.objective, implicit.layout
    theta, q = implicit.adapted(batch), implicit.push(batch, direction)

    def inverse(vectors: Params) -> Params:
        solved = implicit.inverse.apply(batch, theta, layout.flatten(vectors))
        return layout.unflatten(solved, implicit.params)

    def query_slope(theta: Params, data: TaskTensors) -> Params:
        slope: Params = grad(objective.query_loss)(theta, data)
        return slope

    def curved(theta: Params, q: Params, data: TaskTensors) -> Params:
        moved: Params = jvp(lambda theta: query_slope(theta, data), (theta,), (q,))[1]
        return moved

    def bent(theta: Params, q: Params, x: Params, data: TaskTensors) -> Params:
        def product(theta: Params) -> Params:
            slope = grad(lambda theta: objective.support_loss(theta, data))
            along: Params = jvp(slope, (theta,), (x,))[1]
            return along

        moved: Params = jvp(product, (theta,), (q,))[1]
        return moved

    x = inverse(vmap(query_slope)(theta, batch.data))
    outer = inverse(vmap(curved)(theta, q, batch.data))
    hessian = inverse(vmap(bent)(theta, q, x, batch.data))

    def terms(
        theta: Params, q: Params, x: Params, outer: Params, hessian: Params, data: TaskTensors
    ) -> Tensor:
        def losses(theta: Params) -> Tensor:
            return objective.losses(theta, data.support_x, data.support_y)

        def along(theta: Params, tangent: Params) -> Tensor:
            slope: Tensor = jvp(losses, (theta,), (tangent,))[1]
            return slope

        own: Tensor = jvp(lambda theta: along(theta, x), (theta,), (q,))[1]
        return torch.stack([along(theta, outer), own, -along(theta, hessian)]) / len(own)

    found: Tensor = vmap(terms, out_dims=1)(theta, q, x, outer, hessian, batch.data)
    return found


def _drift(bench: Workbench, inner: InnerConfig, steps: int, rows: list[int], kept: Ints) -> Drift:
    problem, weights = _with_steps(bench.problem, steps), bench.weights[-1]
    given = _given(bench, problem, weights, f" ({steps} inner steps)")
    solver, _ = adjoint_solver(given.stages, given.train, given.gradients)
    with given.stages.stage("solve"):
        direction = solver.solve(given.targets).mean_direction
    n_tasks = len(problem.train)
    with given.stages.stage("exact derivative", len(rows)) as advance:
        exact = -weight_derivatives(given.train.over(rows), direction, advance) / n_tasks
    stages = replace(given.stages, problem=_two_stage_problem(problem, inner))
    method = InnerMethod(stages.problem.config.influence, stages.problem.influence_layers())
    with stages.stage("two stages", len(rows)) as advance:
        some = problem.train.select(rows)
        implicit = method.implicit(
            stages.problem.inner_problem(weights.params, some, stages.problem.rho)
        )
        terms = np.empty((3, some.n_instances))
        for batch, values in _terms(implicit, direction):
            n = values.shape[-1]
            terms[:, batch.instances[:, :n]] = values.double().cpu().numpy()
            advance(len(batch.rows))
    sums = terms[:, kept].cumsum(axis=0) / n_tasks
    return Drift(
        steps,
        exact[kept],
        {form: sums[count - 1] for form, count in FORMS.items()},
        float(implicit.stationarity.median()),
        tuple(inner_warnings(stages.problem.config, implicit)),
    )


def _terms(implicit: Implicit, direction: Tensor) -> Iterator[tuple[TaskBatch, Tensor]]:
    tangent, scale = implicit.unit_tangent(direction)
    for batch in implicit.batches():
        yield batch, scale * two_stage(implicit, batch, tangent)


def _with_steps(problem: Problem, steps: int) -> Problem:
    """The problem of a learner with so many inner steps, differentiated exactly."""
    config = problem.config
    influence = config.influence.model_copy(
        update={"derivative": "unrolled", "inner": InnerConfig()}
    )
    learner = config.learner.model_copy(update={"steps": steps})
    changed = config.model_copy(update={"influence": influence, "learner": learner})
    return replace(problem, config=changed, objective=problem.with_steps(steps))


def _two_stage_problem(problem: Problem, inner: InnerConfig) -> Problem:
    influence = problem.config.influence.model_copy(
        update={"derivative": "implicit", "inner": inner}
    )
    return replace(problem, config=problem.config.model_copy(update={"influence": influence}))


def _given(bench: Workbench, problem: Problem, weights: Weights, of: str) -> Given:
    parts = (bench.cache, bench.messages, problem.influence_layers())
    return Given.of(Stages.of_checkpoint(problem, weights, *parts, of))


def _rhos(bench: Workbench, config: DriftConfig) -> dict[str, float]:
    return {
        str(steps): _two_stage_problem(_with_steps(bench.problem, steps), config.inner).rho
        for steps in config.steps
    }


def _warnings(found: list[Drift]) -> list[str]:
    return [f"{one.steps} inner steps: {line}" for one in found for line in one.warnings]


def _figure(name: str, table: Table, column: int) -> Figure:
    series = []
    for form in FORMS:
        points = [(row[0], row[column]) for row in table.rows if row[1] == form]
        known = [(float(x), float(y)) for x, y in points if x is not None and y is not None]
        series.append(Series(form, tuple(x for x, _ in known), tuple(y for _, y in known)))
    return Figure(
        f"drift-{name}",
        "Two-stage influence of support instances against the exact derivative",
        "inner steps",
        table.columns[column],
        tuple(series),
    )
