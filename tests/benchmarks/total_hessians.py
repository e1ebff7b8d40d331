"""Forms of the total Hessian and solvers against the dense exact matrix, on Omniglot.

For every form: the relative error of the operator (on random vectors), the rank correlation of the
task influences that follow with those of the exact form, the conjugate gradient iterations with and
without EK-FAC's preconditioner, and seconds. For the exact form, the paper's ablation: truncated
Neumann series of J terms against CG and the dense solve::

    python tests/benchmarks/total_hessians.py --out /tmp/total --hidden 4 --derivative unrolled
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch
from omniglot_problem import arguments as shared_arguments
from omniglot_problem import load, spearman
from torch import Tensor
from torch.func import vmap

from metaaudit import stages
from metaaudit.bilevel import (
    FORMS,
    Adaptation,
    Adjoint,
    AdjointSolver,
    InnerMethod,
    TaskBatch,
    TotalHessian,
    Unrolled,
    fisher_factor,
    outer_bases,
    outer_factors,
    sampled_fisher_rows,
    total_gradients,
)
from metaaudit.config.influence import InfluenceConfig
from metaaudit.curvature import Factors, fisher_terms
from metaaudit.influence import task_influence
from metaaudit.inputs.task_set import TaskSet
from metaaudit.linalg import lanczos, suggested_damping
from metaaudit.models import Params
from metaaudit.problem import Problem

DEPTHS = (5, 10, 20, 50)
DELTA = 0.005
PROBES = 16


def main() -> None:
    parser = shared_arguments(__doc__.splitlines()[0])
    parser.add_argument("--derivative", choices=["unrolled", "implicit"], default="unrolled")
    parser.add_argument("--ablation-only", action="store_true", help="the solvers alone")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    args = parser.parse_args()
    problem, params = load(args)
    case = Case(problem, params, args.derivative, args.tolerance)
    print(json.dumps({"damping": case.damping, "ritz": vars(case.spectrum)}, indent=2))
    if args.ablation_only:
        print(json.dumps({"exact form": case.ablation()}, indent=2))
        return
    symmetric = [form for form in FORMS if form != "jacobian"]  # which only fields have
    print(json.dumps({"forms": {form: case.form(form) for form in symmetric}}, indent=2))
    direct = {kind: case.direct(kind) for kind in ("sampled-fisher", "task-fisher", "ekfac")}
    print(json.dumps({"direct": direct}, indent=2))
    print(json.dumps({"exact form": case.ablation()}, indent=2))


class Case:
    """One problem at the damping that makes its exact total Hessian positive definite."""

    def __init__(self, problem: Problem, params: Params, derivative: str, tolerance: float) -> None:
        self.tolerance = tolerance
        self.train = adaptation(problem, params, problem.train, derivative)
        evaluation = adaptation(problem, params, problem.evaluation, derivative)
        self.gradients = torch.from_numpy(total_gradients(self.train).gradients)
        self.targets = torch.from_numpy(total_gradients(evaluation).gradients).double()
        if derivative == "implicit":
            self.train = self.train.with_gradients(self.gradients)
        self.terms = fisher_terms(problem.objective.mean_loss, "true")
        self.ekfac = self._ekfac(problem)
        exact = TotalHessian(self.train)
        self.spectrum = lanczos(exact, self.targets)
        self.damping = suggested_damping(self.spectrum, DELTA)
        self.matrix = dense(self.train, self.targets.shape[1])
        self.reference = self._influence_of(self._dense(self.matrix))

    def form(self, form: str) -> dict[str, Any]:
        operator = TotalHessian.of(self.train, form)
        generator = torch.Generator().manual_seed(0)
        probes = torch.randn(PROBES, self.targets.shape[1], generator=generator).double()
        exact = probes @ self.matrix
        spectrum = lanczos(operator, self.targets)
        found: dict[str, Any] = {
            "operator_relative_error": float((operator(probes) - exact).norm() / exact.norm()),
            "smallest_ritz": spectrum.smallest,
            "largest_ritz": spectrum.largest,
        }
        if form == "gamma":
            found["gamma"] = operator.gamma
        for preconditioner in ("none", "ekfac"):
            adjoint, seconds = self._solve(form, "cg", preconditioner=preconditioner)
            solution = adjoint.solution
            influence = self._influence_of(adjoint.direction)
            found["spearman_with_exact"] = spearman(influence, self.reference)
            found[f"cg_{preconditioner}"] = {
                "iterations_largest": max(solution.iterations),
                "converged": solution.converged,
                "seconds": seconds,
            }
        return found

    def direct(self, curvature: str) -> dict[str, float]:
        started = time.perf_counter()
        factor = self._sampled_fisher() if curvature == "sampled-fisher" else None
        sampling = time.perf_counter() - started
        adjoint, seconds = self._solve(curvature, "auto", factor, damping="auto")
        return {
            "spearman_with_exact": spearman(self._influence_of(adjoint.direction), self.reference),
            "seconds": sampling + seconds,
        }

    def ablation(self) -> dict[str, Any]:
        found = {}
        runs = [(f"neumann J={depth}", "neumann", depth, "none") for depth in DEPTHS]
        runs += [("cg", "cg", 500, "none"), ("cg, ekfac", "cg", 500, "ekfac")]
        runs += [("dense", "dense", 1, "none")]
        for name, solver, most, preconditioner in runs:
            adjoint, seconds = self._solve(
                "exact", solver, max_iterations=most, preconditioner=preconditioner
            )
            solution = adjoint.solution
            found[name] = {
                "solver": solution.solver,
                "iterations": max(solution.iterations),
                "residual": max(solution.residual),
                "converged": solution.converged,
                "seconds": seconds,
                "spearman_with_dense": spearman(
                    self._influence_of(adjoint.direction), self.reference
                ),
            }
        return found

    def _solve(
        self, curvature: str, solver: str, factor: Tensor | None = None, **settings: Any
    ) -> tuple[Adjoint, float]:
        config = InfluenceConfig.model_validate(
            {
                "curvature": curvature,
                "solver": solver,
                "damping": self.damping,
                "tolerance": self.tolerance,
                "max_iterations": 500,
                **settings,
            }
        )
        hessian = TotalHessian.of(self.train, curvature if curvature in FORMS else "exact")
        solver_ = AdjointSolver(config, hessian, self.gradients, DELTA, self.ekfac, factor)
        started = time.perf_counter()
        return solver_.solve(self.targets), time.perf_counter() - started

    def _dense(self, matrix: Tensor) -> Tensor:
        shifted = (matrix + matrix.T) / 2 + (DELTA + self.damping) * torch.eye(len(matrix))
        return torch.linalg.solve(shifted, self.targets.T).T

    def _influence_of(self, directions: Tensor) -> Any:
        return task_influence(self.gradients, directions).mean(axis=1)

    def _sampled_fisher(self) -> Tensor:
        return fisher_factor(sampled_fisher_rows(self.train, self.terms, stages.PROBES, seed=0))

    def _ekfac(self, problem: Problem) -> Factors:
        network = problem.layers()
        bases = outer_bases(self.train, network, self.terms)
        sizes = self.train.task_set.query_sizes
        return outer_factors(network, bases, self.gradients, sizes)


def dense(adaptation: Adaptation, size: int) -> Tensor:
    """The exact total Hessian, several columns at once."""
    total = torch.zeros(size, size, dtype=torch.float64)
    for batch in adaptation.batches():

        def column(unit: Tensor, batch: TaskBatch = batch) -> Tensor:
            tangent = adaptation.layout.unflatten(unit, adaptation.params)
            return adaptation.layout.flatten(adaptation.hessian_product(batch, tangent))

        total += vmap(column, chunk_size=8)(torch.eye(size)).double()
    return total / len(adaptation.task_set)


def adaptation(problem: Problem, params: Params, task_set: TaskSet, derivative: str) -> Adaptation:
    if derivative == "unrolled":
        return Unrolled(problem.objective, params, task_set, problem.batching)
    config = InfluenceConfig.model_validate({"derivative": "implicit"})
    method = InnerMethod(config, problem.layers())
    return method.implicit(problem.inner_problem(params, task_set, problem.rho))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
