"""How far approximate inner Hessians are from the exact one, and what they cost, on Omniglot.

For every way of inverting the inner Hessian: the relative error of ``H_in^-1 g`` on each task, the
rank correlation of the influences that follow, seconds and bytes a task. Then how far the implicit
derivative is from differentiating through the steps, for K steps of MAML with ``rho = 1 / (alpha
K)``::

    python tests/benchmarks/inner_hessians.py --out /tmp/inner --learner maml
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import torch
from omniglot_problem import arguments, load, spearman

from metaaudit.bilevel import (
    Adaptation,
    AdjointSolver,
    Implicit,
    InnerMethod,
    TotalHessian,
    Unrolled,
    total_gradients,
    weight_derivatives,
)
from metaaudit.config.influence import InfluenceConfig
from metaaudit.influence import instance_influence, task_influence
from metaaudit.inputs.task_set import TaskSet
from metaaudit.models import Params
from metaaudit.problem import Problem

METHODS = {
    "dense": {"inverse": "dense"},
    "cg": {"inverse": "cg"},
    "ggn": {"inverse": "ggn"},
    "ekfac, task": {"inverse": "ekfac", "basis": "task"},
    "ekfac, shared": {"inverse": "ekfac", "basis": "shared"},
}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--rho", type=float, help="default: the learner's, or 1 / (alpha K)")
    args = parser.parse_args()
    problem, params = load(args)
    rho = args.rho or problem.rho
    found: dict[str, dict[str, Any]] = {}
    reference: dict[str, np.ndarray] = {}
    unrolled = influences(
        Unrolled(problem.objective, params, problem.train, problem.batching),
        Unrolled(problem.objective, params, problem.evaluation, problem.batching),
    )
    for name, inner in METHODS.items():
        scores, costs = implicit(problem, params, rho, inner)
        reference = reference or scores
        found[name] = {
            **costs,
            "against_dense": distances(scores, reference),
            "against_unrolled": distances(scores, unrolled),
        }
    print(json.dumps({"learner": args.learner, "rho": rho, "inverses": found}, indent=2))


def implicit(
    problem: Problem, params: Params, rho: float, inner: dict[str, str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    config = InfluenceConfig.model_validate(
        {"derivative": "implicit", "inner": inner, "tolerance": 1e-6, "max_iterations": 300}
    )
    method = InnerMethod(config, problem.layers())

    def build(task_set: TaskSet) -> tuple[Implicit, float, int]:
        started = time.perf_counter()
        proximal = problem.inner_problem(params, task_set, rho)
        state = method.state(proximal)
        seconds = time.perf_counter() - started
        own = {name: t for name, t in state.items() if name not in ("theta", "stationarity")}
        return method.implicit(proximal, state), seconds, sum(t.nbytes for t in own.values())

    train, seconds, size = build(problem.train)
    evaluation, _, _ = build(problem.evaluation)
    started = time.perf_counter()
    total_gradients(train)
    apply_s = time.perf_counter() - started
    n = len(problem.train)
    costs: dict[str, Any] = {
        "prepare_ms_per_task": 1e3 * seconds / n,
        "gradient_ms_per_task": 1e3 * apply_s / n,
        "kilobytes_per_task": size / n / 1e3,
        "stationarity_median": float(train.stationarity.median()),
    }
    if hasattr(train.inverse, "report"):
        costs["solves"] = vars(train.inverse.report)
    if hasattr(train.inverse, "definite"):
        costs["indefinite_tasks"] = int((~train.inverse.definite).sum())
    return influences(train, evaluation), costs


def influences(train: Adaptation, evaluation: Adaptation) -> dict[str, np.ndarray]:
    """Total gradients, and the influences by the default total Hessian, task-Fisher."""
    gradients = torch.from_numpy(total_gradients(train).gradients)
    targets = torch.from_numpy(total_gradients(evaluation).gradients)
    solver = AdjointSolver(InfluenceConfig(), TotalHessian(train), gradients, 0.005)
    adjoint = solver.solve(targets)
    places = list(train.task_set.instances())
    support = np.array([name == "support" for _, name, _ in places])
    derivatives = weight_derivatives(train, adjoint.mean_direction)
    by_instance = instance_influence(derivatives, len(train.task_set))
    return {
        "gradients": gradients.double().numpy(),
        "tasks": task_influence(gradients, adjoint.direction).mean(axis=1),
        "query": by_instance[~support],
        "support": by_instance[support],
    }


def distances(scores: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> dict[str, float]:
    a, b = scores["gradients"], reference["gradients"]
    # D L = rho H_in^-1 g, so this is the relative error of H_in^-1 g.
    errors = np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return {
        "relative_error_median": float(np.median(errors)),
        "relative_error_largest": float(errors.max()),
        "cosine_median": float(np.median(cosines)),
        **{
            f"spearman_{k}": spearman(scores[k], reference[k])
            for k in ("tasks", "query", "support")
        },
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
