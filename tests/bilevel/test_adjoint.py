"""The adjoint solve: every curvature and solver against dense algebra, and what goes wrong."""

import re
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from metaaudit.bilevel import (
    AdjointSolver,
    Objective,
    TotalHessian,
    Unrolled,
    adjoint,
    curvature_scale,
    fisher_factor,
    outer_bases,
    outer_factors,
    sampled_fisher_rows,
)
from metaaudit.bilevel.adjoint import auto_damping
from metaaudit.config.influence import SOLVERS, InfluenceConfig
from metaaudit.curvature import fisher_terms
from metaaudit.errors import ConfigError, IncompleteError
from metaaudit.learners import MAML
from metaaudit.linalg import Status
from tests.bilevel.small_networks import (
    FORMS,
    N_TASKS,
    M,
    assert_close,
    batching,
    dense_total_hessian,
    gaussian,
    layers_of,
    random_tasks,
    small_mlp,
    unrolled_gradients,
)
from tests.linalg.matrices import SIZE, operator

DELTA = 0.05
EXACTLY = {"tolerance": 1e-12, "max_iterations": 2000}


class Case:
    """A network's total Hessian in every form, and targets to solve for."""

    def __init__(self):
        self.objective = Objective(small_mlp(), MAML(inner_lr=0.3, steps=2))
        self.parts = self.objective, self.objective.forward.initial(), random_tasks()
        self.adaptation = Unrolled(*self.parts, batching())
        self.gradients = unrolled_gradients(*self.parts)
        self.targets = gaussian(2, self.size)
        self.factors = self._factors()
        terms = fisher_terms(self.objective.mean_loss, "true")
        self.rows = fisher_factor(sampled_fisher_rows(self.adaptation, terms, probes=3, seed=0))

    @property
    def size(self):
        return self.adaptation.layout.size

    @property
    def eye(self):
        return torch.eye(self.size, dtype=torch.float64)

    def _factors(self):
        def loss(outputs, labels):
            return self.objective.loss(outputs, labels).mean()

        task_set = self.adaptation.task_set
        network = layers_of(self.objective.forward, task_set)
        bases = outer_bases(self.adaptation, network, fisher_terms(loss, "true"))
        return outer_factors(network, bases, self.gradients, task_set.query_sizes)

    def solver(self, curvature="exact", *, delta=DELTA, **settings):
        form = curvature if curvature in FORMS else "exact"
        hessian = TotalHessian.of(self.adaptation, form)
        config = InfluenceConfig(curvature=curvature, **settings)
        return AdjointSolver(config, hessian, self.gradients, delta, self.factors, self.rows)

    def matrix(self, curvature):
        """The curvature without shift."""
        if curvature == "sampled-fisher":
            return self.rows.T @ self.rows
        if curvature == "task-fisher":
            return M / N_TASKS * self.gradients.T @ self.gradients
        if curvature == "ekfac":
            return self.factors.apply(self.factors.eigenvalues, self.eye)
        if curvature == "exact":
            return dense_total_hessian(*self.parts)
        return TotalHessian.of(self.adaptation, curvature)(self.eye)

    def solved(self, curvature, shift):
        """The dense answer; ``shift`` is a number or one number a parameter."""
        matrix = self.matrix(curvature) + shift * self.eye
        return torch.linalg.solve(matrix, self.targets.T).T


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.mark.parametrize(
    ("curvature", "solver"),
    [(curvature, solver) for curvature, solvers in SOLVERS.items() for solver in solvers],
)
def test_every_curvature_and_solver_gives_the_dense_answer(case, curvature, solver):
    adjoint = case.solver(curvature, solver=solver, damping=3.0, **EXACTLY).solve(case.targets)
    assert_close({"": adjoint.direction}, {"": case.solved(curvature, 3.0 + DELTA)}, 1e-9)
    direct = {
        "task-fisher": "dual",
        "sampled-fisher": "dual",
        "ekfac": "ekfac",
        "jacobian": "gmres",
    }.get(curvature, "cg")
    assert adjoint.solution.solver == (direct if solver == "auto" else solver)
    assert adjoint.solution.converged and adjoint.warnings == ()
    assert len(adjoint.attempts) == 1 and adjoint.damping == 3.0


@pytest.mark.parametrize("curvature", ["sampled-fisher", "task-fisher"])
def test_too_many_rows_are_summed_up_and_it_is_told(case, curvature, monkeypatch):
    monkeypatch.setattr(adjoint, "most_rows", lambda size: 3)
    found = case.solver(curvature, damping=3.0).solve(case.targets)
    rows = found.sketch.rows
    assert len(rows) == 3 < found.sketch.of
    matrix = rows.T @ rows + (3.0 + DELTA) * case.eye
    expected = torch.linalg.solve(matrix, case.targets.T).T
    assert_close({"": found.direction}, {"": expected}, 1e-9)
    (told,) = found.warnings
    assert told.startswith(
        f"the {found.sketch.of} rows of the curvature were summed up, with random"
    )
    # The damping is that of all rows.
    chosen = case.solver(curvature, damping="auto")
    assert chosen.solve(case.targets).damping == auto_damping(chosen._low_rank, len(case.gradients))


@pytest.mark.parametrize(
    ("size", "rows"), [(100, 8192), (2**15, 8192), (2**17, 2048), (10**8, 512)]
)
def test_rows_that_are_solved_for_stay_within_memory(size, rows):
    assert adjoint.most_rows(size) == rows


def test_dot_solves_nothing(case):
    adjoint = case.solver("sampled-fisher", method="dot").solve(case.targets)
    assert torch.equal(adjoint.direction, case.targets)
    assert adjoint.attempts == () and adjoint.solution is None and adjoint.damping == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_preconditioner_changes_the_iterations_and_not_the_solution(case, form):
    settings = {"curvature": form, "damping": 0.5, **EXACTLY}
    plain, by_ekfac = (
        case.solver(preconditioner=name, **settings).solve(case.targets)
        for name in ("none", "ekfac")
    )
    assert plain.solution.converged and by_ekfac.solution.converged
    assert plain.solution.history != by_ekfac.solution.history
    assert_close({"": by_ekfac.direction}, {"": plain.direction}, 1e-9)


def test_a_preconditioner_that_is_the_inverse_solves_at_once(case):
    solver = replace(
        case.solver(preconditioner="ekfac", damping=0.1),
        hessian=Known(case.matrix("ekfac"), case.adaptation),
    )
    assert solver.solve(case.targets).solution.iterations == (1, 1)


def test_automatic_damping_of_ekfac_is_a_tenth_of_the_mean_eigenvalue_of_each_layer(case):
    adjoint = case.solver("ekfac").solve(case.targets)
    layout = case.adaptation.layout
    parts = layout.split(case.matrix("ekfac").diagonal())
    for layer in ("0", "2"):
        weight, bias = parts[f"{layer}.weight"], parts[f"{layer}.bias"]
        mean = torch.cat([weight.flatten(), bias]).mean()  # a trace is a sum of eigenvalues
        parts[f"{layer}.weight"] = torch.full_like(weight, 0.1 * mean)
        parts[f"{layer}.bias"] = torch.full_like(bias, 0.1 * mean)
    damping = layout.flatten(parts)
    assert_close({"": adjoint.direction}, {"": case.solved("ekfac", damping + DELTA)}, 1e-10)
    assert adjoint.damping == pytest.approx(float(damping.mean()), rel=1e-12)
    assert adjoint.solution.converged and max(adjoint.solution.residual) < 1e-12


def test_automatic_damping_is_a_tenth_of_the_mean_eigenvalue_in_the_span():
    for shape in ((4, 9), (9, 4)):
        factor = gaussian(*shape)
        eigenvalues = torch.linalg.eigvalsh(factor.T @ factor)[-4:]
        assert auto_damping(factor, 4) == pytest.approx(0.1 * float(eigenvalues.mean()), rel=1e-12)


@pytest.mark.parametrize("curvature", ["task-fisher", "instance-fisher"])
def test_automatic_damping_is_that_of_the_task_fisher(case, curvature):
    eigenvalues = torch.linalg.eigvalsh(case.matrix("task-fisher"))[-N_TASKS:]
    adjoint = case.solver(curvature, **EXACTLY).solve(case.targets)
    assert adjoint.damping == pytest.approx(0.1 * float(eigenvalues.mean()), rel=1e-9)
    expected = case.solved(curvature, adjoint.damping + DELTA)
    assert_close({"": adjoint.direction}, {"": expected}, 1e-9)


@pytest.mark.parametrize("curvature", SOLVERS)
def test_what_the_curvature_is_compared_with_along_the_solution(case, curvature):
    solver = case.solver(curvature, damping=1.0)
    u = torch.ones(case.size, dtype=torch.float64)
    exact = TotalHessian(case.adaptation)
    scale = curvature_scale(exact, solver.approximation, u, n_tasks=N_TASKS)
    unit = u / u.norm()
    assert scale.exact == pytest.approx(float(unit @ case.matrix("exact") @ unit), rel=1e-9)
    expected = float(unit @ case.matrix(curvature) @ unit)
    assert scale.approximate == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("curvature", ["sampled-fisher", "task-fisher", "ggn"])
def test_few_tasks_are_compared_with_the_same_few(case, curvature):
    u, ends = torch.ones(case.size, dtype=torch.float64), [0, N_TASKS - 1]
    exact = TotalHessian(case.adaptation)
    scale = curvature_scale(exact, case.solver(curvature).approximation, u, n_tasks=2)
    gradients = case.gradients[ends]
    rows = case.rows.unflatten(0, (N_TASKS, -1))[ends].flatten(0, 1)
    expected = {
        "exact": exact.over(ends)(case.eye),
        "sampled-fisher": N_TASKS / 2 * rows.T @ rows,
        "task-fisher": M / 2 * gradients.T @ gradients,
        "ggn": TotalHessian(case.adaptation.over(ends), "ggn")(case.eye),
    }
    unit = u / u.norm()
    assert scale.n_tasks == 2
    assert scale.exact == pytest.approx(float(unit @ expected["exact"] @ unit), rel=1e-9)
    assert scale.approximate == pytest.approx(float(unit @ expected[curvature] @ unit), rel=1e-9)


# What goes wrong, on operators with known eigenvalues.


@dataclass(frozen=True)
class Known:
    """A matrix in place of the total Hessian of a network."""

    matrix: torch.Tensor
    adaptation: object
    shift: float = 0.0

    def shifted(self, shift):
        return replace(self, shift=shift)

    def __call__(self, vectors):
        return vectors @ self.matrix + self.shift * vectors


def known(eigenvalues, *, gradient_scale=0.01, delta=0.0, **settings):
    """A solver for a matrix with these eigenvalues, and two targets."""
    matrix, _ = operator(eigenvalues)
    adaptation = SimpleNamespace(task_set=SimpleNamespace(query_sizes=np.full(4, 2)))
    gradients = gradient_scale * gaussian(4, len(eigenvalues))
    config = InfluenceConfig(
        **{"curvature": "exact", "tolerance": 1e-8, "max_iterations": 5000, **settings}
    )
    return AdjointSolver(config, Known(matrix, adaptation), gradients, delta)


INDEFINITE, POSITIVE = torch.linspace(-1, 10, SIZE), torch.linspace(0.5, 10, SIZE)
TARGETS = gaussian(2, SIZE, seed=5)


@pytest.mark.parametrize("solver", ["cg", "neumann", "dense"])
@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_automatic_damping_rises_over_negative_curvature(solver, delta):
    adjoint = known(INDEFINITE, solver=solver, delta=delta).solve(TARGETS)
    assert adjoint.solution.converged and adjoint.solution.solver == solver
    assert adjoint.damping + delta > 1.0
    dampings = [attempt.damping for attempt in adjoint.attempts]
    assert dampings == sorted(dampings) and 2 <= len(set(dampings)) <= 3
    assert dampings[0] < 0.01 and dampings[-1] == adjoint.damping
    assert adjoint.spectrum.smallest == pytest.approx(-1.0, abs=1e-6)
    assert adjoint.spectrum.largest == pytest.approx(10.0, abs=1e-6)
    assert "negative eigenvalues (smallest Ritz value -1): damping was raised from" in str(
        adjoint.warnings
    )


def test_automatic_damping_of_no_curvature_at_all_ends():
    adjoint = known(torch.zeros(5), gradient_scale=0.0).solve(torch.ones(1, 5))
    assert adjoint.damping == 0.0 and not adjoint.solution.converged


def test_nothing_is_raised_where_the_curvature_is_positive():
    adjoint = known(POSITIVE).solve(TARGETS)
    assert adjoint.solution.converged and adjoint.warnings == ()
    assert len(adjoint.attempts) == 1 and adjoint.spectrum is None


@pytest.mark.parametrize("solver", ["cg", "dense"])
def test_a_number_for_damping_is_kept_and_a_better_one_suggested(solver):
    adjoint = known(INDEFINITE, solver=solver, damping=0.4).solve(TARGETS)
    assert [attempt.damping for attempt in adjoint.attempts] == [0.4]
    assert Status.NEGATIVE_CURVATURE in adjoint.solution.status
    (warning,) = adjoint.warnings
    assert f"{solver} did not converge" in warning
    found = re.search(r"raise influence.damping to ([\d.]+), since the smallest Ritz", warning)
    better = float(found[1])
    assert 1.0 < better < 3.0
    again = known(INDEFINITE, solver=solver, damping=better).solve(TARGETS)
    assert again.solution.converged and again.warnings == ()


def test_neumann_that_diverges_falls_back_to_cg():
    adjoint = known(INDEFINITE, solver="neumann", damping=0.4).solve(TARGETS)
    assert [attempt.solution.solver for attempt in adjoint.attempts] == ["neumann", "cg"]
    assert Status.DIVERGED in adjoint.attempts[0].solution.status
    assert adjoint.solution is adjoint.attempts[1].solution
    assert adjoint.warnings[0].startswith("Neumann diverged (relative residual ")
    assert "solved by CG instead" in adjoint.warnings[0]


def test_too_few_terms_are_reported():
    few = known(POSITIVE, solver="neumann", damping=0.0, max_iterations=5).solve(TARGETS)
    assert [attempt.solution.solver for attempt in few.attempts] == ["neumann"]
    assert few.solution.status == (Status.MAX_ITERATIONS,) * 2
    assert few.solution.iterations == (5, 5)
    (warning,) = few.warnings
    assert warning.startswith("neumann did not converge for 2 of 2 targets (max-iterations; worst")
    assert "raise influence.damping or influence.max_iterations" in warning
    assert known(POSITIVE, solver="neumann", damping=0.0).solve(TARGETS).warnings == ()


def test_too_few_iterations_are_reported():
    adjoint = known(POSITIVE, damping=0.0, max_iterations=2).solve(TARGETS)
    assert not adjoint.solution.converged
    assert "cg did not converge for 2 of 2 targets" in adjoint.warnings[0]


def singular(factors):
    """The same with a layer that no task has a gradient in."""
    values = {**factors.eigenvalues, "0": torch.zeros_like(factors.eigenvalues["0"])}
    return replace(factors, eigenvalues=values)


def test_a_singular_preconditioner_is_reported(case):
    solver = replace(
        case.solver(preconditioner="ekfac", damping=0.0, delta=0.0),
        hessian=Known(case.eye, case.adaptation),
        ekfac=singular(case.factors),
    )
    adjoint = solver.solve(case.targets)
    assert set(adjoint.solution.status) == {Status.INDEFINITE_PRECONDITIONER}
    assert "use influence.preconditioner: none" in adjoint.warnings[0]


@pytest.mark.parametrize(
    ("curvature", "damping"), [("task-fisher", 0.0), ("task-fisher", 1e-30), ("ekfac", 0.0)]
)
def test_a_singular_curvature_is_refused(case, curvature, damping):
    solver = replace(
        case.solver(curvature, damping=damping, delta=0.0),
        gradients=torch.ones_like(case.gradients),
        ekfac=singular(case.factors),
    )
    with pytest.raises(ConfigError, match="leaves a singular Hessian"):
        solver.solve(case.targets)


def test_a_dense_solve_has_a_limit(case, monkeypatch):
    monkeypatch.setattr("metaaudit.bilevel.adjoint.DENSE_LIMIT", case.size - 1)
    with pytest.raises(ConfigError, match=r"solver: dense would need a 26 x 26 matrix"):
        case.solver(solver="dense", damping=1.0).solve(case.targets)


@pytest.mark.parametrize("curvature", SOLVERS)
def test_what_is_not_finite_is_refused(case, curvature):
    bad = torch.full_like(case.targets, torch.nan)
    with pytest.raises(IncompleteError, match="non-finite"):
        case.solver(curvature, damping=1.0).solve(bad)
