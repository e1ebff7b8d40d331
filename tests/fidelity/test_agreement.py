"""Approximations against a reference: what the tables say, by dense algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from metaaudit.bilevel import TotalHessian
from metaaudit.config.evaluate import AgreementConfig, CandidateConfig
from metaaudit.fidelity.closeness import Closeness
from metaaudit.fidelity.experiments.agreement import depths, run, solve
from metaaudit.fidelity.workbench import Workbench
from metaaudit.influence import task_influence
from metaaudit.linalg import lanczos
from metaaudit.methods import MethodScores
from tests.fidelity.ablation_cases import bench, trained

DAMPING, DECAY = 1.0, 0.01
DENSE = {"curvature": "exact", "solver": "dense", "damping": DAMPING}
SERIES = {"curvature": "exact", "solver": "neumann", "damping": DAMPING, "tolerance": 1e-12}
DEPTHS = (1, 2, 25)

# How close two arrays are.


def test_closeness_of_columns_by_hand():
    expected = np.array([[3.0, 1.0], [4.0, 0.0], [0.0, 0.0]])
    found = Closeness.of(2 * expected, expected)
    assert found == Closeness(*(pytest.approx(v) for v in (1.0, 1.0, 1.0, 2.0)))
    turned = Closeness.of(expected * [1, -1], expected)
    assert (turned.error, turned.scale) == (pytest.approx(1.0), pytest.approx(1.0))
    assert turned.linear == pytest.approx(0.0)


def test_closeness_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    found, expected = rng.integers(0, 5, (2, 30, 3)).astype(float)
    ranks = [spearmanr(found[:, t], expected[:, t]).statistic for t in range(3)]
    linear = [np.corrcoef(found[:, t], expected[:, t])[0, 1] for t in range(3)]
    closeness = Closeness.of(found, expected)
    assert closeness.rank == pytest.approx(np.mean(ranks))
    assert closeness.linear == pytest.approx(np.mean(linear))
    assert Closeness.of(found[:, 0], expected[:, 0]).rank == pytest.approx(ranks[0])


def test_what_is_constant_or_nothing_has_no_closeness():
    flat, rising = np.ones(4), np.arange(4.0)
    assert Closeness.of(flat, rising).rank is None
    assert Closeness.of(flat, rising).scale == pytest.approx(2 / 14**0.5)
    nothing = Closeness.of(rising, np.zeros(4))
    assert nothing == Closeness(None, None, None, None)


# Which plot.


def candidate(name, checkpoints=None, **influence):
    return CandidateConfig(name=name, influence=influence, checkpoints=checkpoints)


def test_depths_are_those_of_candidates_that_differ_by_them_alone():
    series = [candidate(str(d), solver="neumann", max_iterations=d) for d in (1, 5)]
    assert depths(series) == (1.0, 5.0)
    assert depths(series[:1]) is None
    assert depths([*series, candidate("other", solver="cg", max_iterations=9)]) is None
    assert depths([*series, candidate("other", solver="neumann")]) is None
    assert depths([*series, candidate("x", 2, solver="neumann", max_iterations=9)]) is None


# How it was solved.


def told(*attempts):
    solver = {
        "attempts": [
            {"solver": name, "damping": 0.1, "iterations": 7, "residual": 0.5, "status": [status]}
            for name, status in attempts
        ]
    }
    return solve(MethodScores(np.zeros((1, 1)), np.zeros(1), solver))


def test_a_series_that_diverged_is_told_of():
    assert told(("neumann", "max-iterations"))[0] == "neumann"
    fell_back = told(("neumann", "diverged"), ("cg", "converged"))
    assert fell_back == ("cg, since neumann diverged", 0.1, 7, 0.5, "converged")
    assert told() == (None,) * 5


# A trained learner.


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("agreement"), {"learner.steps": 1})


def experiment(candidates):
    return AgreementConfig(
        kind="agreement", reference=candidate("dense", **DENSE), candidates=candidates
    )


@pytest.fixture(scope="module")
def dense_case(case):
    """Total gradients and targets, and the dense total Hessian in two forms."""
    (given,) = bench(case).given(candidate("dense", **DENSE))
    unit = torch.eye(given.own.shape[1], dtype=torch.float64)
    forms = [TotalHessian.of(given.train, form)(unit) for form in ("exact", "gamma")]
    return given, *(matrix + (DAMPING + DECAY) * unit for matrix in forms)


def influence_by(given, hessian):
    return task_influence(given.own, torch.linalg.solve(hessian, given.targets.T).T)


def column(result, name, table="agreement-tasks"):
    (found,) = (one for one in result.tables if one.name == table)
    return [row[found.columns.index(name)] for row in found.rows]


def test_depth_of_the_series(case, dense_case):
    candidates = [candidate(f"J={d}", max_iterations=d, **SERIES) for d in DEPTHS]
    result = run(bench(case), experiment(candidates))
    given, hessian, _ = dense_case
    operator = TotalHessian(given.train).shifted(DAMPING + DECAY)
    scale = 1.1 * lanczos(operator, given.targets).magnitude
    exact = influence_by(given, hessian)
    steps = torch.eye(len(hessian), dtype=torch.float64) - hessian / scale
    for place, depth in enumerate(DEPTHS):
        series, term = 0, given.targets / scale
        for _ in range(depth):
            series, term = series + term, term @ steps
        expected = Closeness.of(task_influence(given.own, series), exact)
        assert column(result, "relative error")[place] == pytest.approx(expected.error, rel=1e-6)
        assert column(result, "scale")[place] == pytest.approx(expected.scale, rel=1e-6)
        assert column(result, "rank correlation")[place] == pytest.approx(expected.rank)
    errors = column(result, "relative error")
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10
    assert column(result, "iterations", "agreement-solves")[1:] == list(DEPTHS)
    assert column(result, "solver", "agreement-solves") == ["dense"] + 3 * ["neumann"]
    assert column(result, "status", "agreement-solves")[1] == "max-iterations"
    (figure,) = result.figures
    assert all(series.x == DEPTHS for series in figure.series)
    assert any("1.1 times its largest Ritz value" in note for note in result.notes)


def test_instances_are_compared_too(case):
    result = run(bench(case), experiment([candidate("1", max_iterations=1, **SERIES)]))
    (error,) = column(result, "relative error", "agreement-instances")
    assert 0 < error < 1
    assert result.figures[0].series[0].x == ("1",)


def test_gamma_against_exact(case, dense_case):
    gamma = {"curvature": "gamma", "solver": "dense"}
    result = run(
        bench(case),
        experiment(
            [candidate("gamma", damping=DAMPING, **gamma), candidate("more", damping=8.0, **gamma)]
        ),
    )
    given, exact, approximate = dense_case
    expected = Closeness.of(influence_by(given, approximate), influence_by(given, exact))
    assert column(result, "relative error")[0] == pytest.approx(expected.error, rel=1e-6)
    assert column(result, "correlation")[0] == pytest.approx(expected.linear, rel=1e-6)
    assert expected.error > 0.01
    assert "Not with the damping of dense: more." in result.notes
    assert column(result, "damping", "agreement-solves") == [DAMPING, DAMPING, 8.0]


def test_the_mean_of_the_targets_is_compared_where_that_alone_is_configured(case):
    work = bench(case)
    influence = work.config.influence.model_copy(update={"targets": "mean"})
    config = work.config.model_copy(update={"influence": influence})
    work = replace(work, problem=replace(work.problem, config=config))
    seen = []

    def watched(self, asked, *, by_instance, scores=Workbench.scores):
        seen.append(scores(self, asked, by_instance=by_instance))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workbench, "scores", watched)
        run(work, experiment([candidate("1", max_iterations=1, **SERIES)]))
    assert [scores.task_influence.shape[1] for scores in seen] == [1, 1]
