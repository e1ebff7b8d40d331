"""Scores by the implicit derivative, from end to end on a small real case."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from metaaudit.inputs.episodes import write_episodes
from tests.small import LABEL_STAGES, Case, Outcome, digits, succeeds, write_case

RHO = 1.0
GRADIENT_STAGES = ("gradients", "gradients of evaluation tasks")

WAYS_TO_SCORE = {
    "ekfac": ("inner.inverse=ekfac", "curvature=task-fisher"),
    "shared ekfac": ("inner.inverse=ekfac", "inner.basis=shared", "curvature=ekfac"),
    "ggn": ("inner.inverse=ggn", "curvature=exact", "preconditioner=ekfac"),
    "cg": ("inner.inverse=cg", "curvature=ggn", "tolerance=1e-3"),
    "dense": ("inner.inverse=dense", "curvature=gamma"),
    "empirical": ("inner.inverse=ekfac", "fisher=empirical", "curvature=instance-fisher"),
}


def options(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def implicit(*settings: str) -> list[str]:
    """Options for the implicit derivative, and others of the section ``influence``."""
    return options("influence.derivative=implicit", *(f"influence.{one}" for one in settings))


def manifest(run: Path) -> Any:
    return json.loads((run / "manifest.json").read_text(encoding="utf-8"))


def statuses(run: Path) -> dict[str, str]:
    return {stage: use["status"] for stage, use in manifest(run)["cache"].items()}


def influences(run: Path) -> dict[str, np.ndarray]:
    with h5py.File(run / "scores.h5") as file:
        return {name: file[name][()] for name in ("task_influence", "instances/influence")}


def score(case: Case, name: str, *args: object) -> tuple[Path, Outcome]:
    run = case.folder / name
    return run, succeeds(case.cli("score", "--run", run, *args))


NETWORKS = """
import torch
from torch import nn

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))
        self.out = nn.Linear(64, 3)

    def forward(self, x):
        return self.out(x.flatten(1) * self.scale)

def smooth():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 3))

def transposed():
    up = nn.ConvTranspose2d(1, 1, 2)
    return nn.Sequential(up, nn.Tanh(), nn.Flatten(), nn.Linear(81, 3))
"""


def own_network(folder: Path, name: str) -> dict[str, str]:
    """The section ``model`` for one of these networks."""
    module = f"networks_with_{name.lower()}"  # each is imported once
    (folder / f"{module}.py").write_text(NETWORKS, encoding="utf-8")
    return {"factory": f"{module}:{name}", "path": str(folder)}


@pytest.fixture(scope="module")
def trained_imaml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """A learner that solves its inner problem nearly exactly; made once, read only.

    The network is smooth: with ReLU the solutions lie on its kinks, where no gradient vanishes.
    """
    folder = tmp_path_factory.mktemp("imaml")
    learner = {"name": "imaml", "inner_lr": 0.5, "steps": 80, "proximity": RHO, "tolerance": 1e-7}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAAUDIT_CACHE_DIR", str(folder / "factor-cache"))
        settings = {"learner": learner, "model": own_network(folder, "smooth")}
        case = write_case(
            folder / "case", {**settings, "compute.dtype": "float64", "training.epochs": 1}
        )
        succeeds(case.cli("train"))
        yield case


@pytest.fixture
def imaml(trained_imaml: Case, tmp_path: Path) -> Case:
    return Case(shutil.copytree(trained_imaml.folder, tmp_path / "case"))


def test_implicit_and_unrolled_scores_agree_for_a_learner_that_solves(imaml: Case) -> None:
    unrolled, _ = score(imaml, "unrolled")
    exact, _ = score(imaml, "exact", *implicit("inner.inverse=dense"))
    expected, found = influences(unrolled), influences(exact)
    for name, values in expected.items():
        # The inner problem is solved to 1e-7, of which second derivatives lose some digits.
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-4 * np.abs(values).max())
    assert manifest(unrolled)["inner"] is None
    assert manifest(unrolled)["warnings"] == manifest(exact)["warnings"] == []
    told = manifest(exact)["inner"]
    assert told["rho"] == RHO and told["inverse"] == "dense" and told["indefinite_tasks"] == 0
    assert 0 < told["stationarity"]["median"] <= told["stationarity"]["largest"] < 2e-7


def test_a_learner_with_too_few_steps_is_warned_of(imaml: Case) -> None:
    few = options("learner.steps=1")
    run, outcome = score(imaml, "few", *few, *implicit("inner.inverse=ggn", "targets=mean"))
    for which in ("training", "evaluation"):
        told = f"warning: {which} tasks: the inner problem was not solved for every task"
        assert told in outcome.stderr
    assert "raise learner.steps" in str(manifest(run)["warnings"])


def test_steps_of_maml_are_not_taken_for_an_unsolved_problem(trained_case: Case) -> None:
    run, outcome = score(trained_case, "run", *implicit("inner.inverse=ggn"))
    assert "not solved" not in outcome.stderr
    assert manifest(run)["inner"]["stationarity"]["largest"] > 0.1


@dataclass(frozen=True)
class Twice:
    """Two runs of the same scoring, the second of which found everything in the cache."""

    settings: dict[str, str]
    first: Path
    second: Path
    told: str


@pytest.fixture(scope="module", params=WAYS_TO_SCORE)
def twice(
    request: pytest.FixtureRequest, scored_case: Case, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Twice]:
    folder = tmp_path_factory.mktemp("twice")
    settings = WAYS_TO_SCORE[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAAUDIT_CACHE_DIR", str(folder / "factor-cache"))
        case = Case(shutil.copytree(scored_case.folder, folder / "case"))
        chosen = implicit("targets=mean", "damping=1", *settings)
        first, _ = score(case, "first", *chosen)
        second, outcome = score(case, "second", *chosen)
        yield Twice(dict(one.split("=") for one in settings), first, second, outcome.stderr)


def test_scoring_again_reuses_everything(twice: Twice) -> None:
    inner = f"inner problem by {twice.settings['inner.inverse']}"
    inner_stages = inner, f"{inner} of evaluation tasks"
    expected = {*inner_stages, *GRADIENT_STAGES, "instance influence", *LABEL_STAGES}
    if "ekfac" in (twice.settings["curvature"], twice.settings.get("preconditioner")):
        expected.add("outer EK-FAC")
    assert statuses(twice.first) == dict.fromkeys(expected, "computed")
    assert statuses(twice.second) == dict.fromkeys(expected, "hit")
    for stage in expected:
        assert f"\n{stage}: reused (" in twice.told


def test_scoring_again_gives_the_same_bytes(twice: Twice) -> None:
    for name in ("scores.h5", "tasks.csv", "instances.csv", "findings.json"):
        assert (twice.first / name).read_bytes() == (twice.second / name).read_bytes(), name


def test_the_manifest_says_how_it_was_solved(twice: Twice) -> None:
    found, settings = manifest(twice.first), twice.settings
    inner, solver = found["inner"], found["solver"]
    by_ekfac = settings["inner.inverse"] == "ekfac"
    assert inner["inverse"] == settings["inner.inverse"]
    assert inner["basis"] == (settings.get("inner.basis", "task") if by_ekfac else None)
    assert inner["fisher"] == (settings.get("fisher", "true") if by_ekfac else None)
    assert inner["rho"] == pytest.approx(1 / (0.3 * 2))  # 1 / (inner_lr * steps)
    assert (inner["solves"] is not None) == (inner["inverse"] == "cg")
    assert (inner["indefinite_tasks"] is not None) == (inner["inverse"] == "dense")
    assert solver["derivative"] == "implicit" and solver["curvature"] == settings["curvature"]
    (attempt,) = solver["attempts"]
    assert attempt["damping"] == solver["damping"] == 1.0
    assert attempt["status"] == ["converged"] and attempt["solver"] == solver["solver"]


def test_unrolled_scores_have_no_inner_problem(scored_case: Case) -> None:
    found = manifest(scored_case.run)
    assert found["inner"] is None and found["solver"]["derivative"] == "unrolled"
    assert [attempt["solver"] for attempt in found["solver"]["attempts"]] == ["dual"]


def test_dot_has_no_attempts(trained_case: Case) -> None:
    run, _ = score(trained_case, "run", *options("influence.method=dot"))
    assert manifest(run)["solver"]["attempts"] == []


# What is computed again.

INFLUENCE = {
    "inner problem",
    "inner problem of evaluation tasks",
    "gradients",
    "gradients of evaluation tasks",
    "sampled Fisher",
}
ALL = INFLUENCE | {*LABEL_STAGES}
EVALUATION = {name for name in ALL if name.endswith("of evaluation tasks")}

CHANGES = {
    "nothing": ((), set()),
    "rho": (("influence.inner.proximity=2",), INFLUENCE),
    "fisher": (("influence.fisher=empirical",), INFLUENCE),
    "basis": (("influence.inner.basis=shared",), INFLUENCE),
    "inverse": (("influence.inner.inverse=ggn",), INFLUENCE),
    "learner": (("learner.inner_lr=0.2",), ALL),
    "damping": (("influence.damping=2",), set()),
    "curvature": (("influence.curvature=exact", "influence.max_iterations=7"), set()),
    "outer EK-FAC": (("influence.curvature=ekfac",), {"outer EK-FAC"}),
    "evaluation set": (("tasks.eval=other.npz",), EVALUATION),
}


def planned(case: Case, *args: object) -> dict[str, str]:
    """What a dry run says of each stage that the cache may hold, whatever the inner inverse."""
    shown = succeeds(case.cli("score", "--run", case.folder / "none", "--dry-run", *args)).stdout
    lines = dict(line.split(": ", 1) for line in shown.splitlines())
    known = ("to compute", "from the cache")
    return {
        re.sub(r"^(inner problem) by \w+", r"\1", what): how
        for what, how in lines.items()
        if how in known
    }


@pytest.fixture(scope="module")
def implicitly_scored(
    scored_case: Case, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """Scored by EK-FAC, with another evaluation set beside it; the cache stays."""
    folder = tmp_path_factory.mktemp("implicit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAAUDIT_CACHE_DIR", str(folder / "factor-cache"))
        case = Case(shutil.copytree(scored_case.folder, folder / "case"))
        write_episodes(case.folder / "other.npz", digits(seed=1)[1])
        score(case, "implicit", *implicit())
        yield case


@pytest.mark.parametrize(("changes", "computed"), CHANGES.values(), ids=CHANGES)
def test_what_a_change_computes_again(
    implicitly_scored: Case,
    changes: tuple[str, ...],
    computed: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = implicitly_scored.folder.with_name("factor-cache")
    monkeypatch.setenv("METAAUDIT_CACHE_DIR", str(cache))
    found = planned(implicitly_scored, *implicit(), *options(*changes))
    other = any(change.startswith("influence.curvature") for change in changes)
    assert set(found) == (ALL - {"sampled Fisher"} if other else ALL) | computed
    assert {what for what, how in found.items() if how == "to compute"} == computed


def test_the_tolerance_of_inner_solves_computes_gradients_again(trained_case: Case) -> None:
    chosen = implicit("inner.inverse=cg", "targets=mean")
    score(trained_case, "run", *chosen)
    found = planned(trained_case, *chosen, *options("influence.tolerance=1e-3"))
    computed = {what for what, how in found.items() if how == "to compute"}
    assert computed == {"gradients", "gradients of evaluation tasks", "sampled Fisher"}


def test_two_inverses_without_settings_of_their_own_share_nothing(trained_case: Case) -> None:
    score(trained_case, "run", *implicit("inner.inverse=ggn", "targets=mean"))
    found = planned(trained_case, *implicit("inner.inverse=dense"))
    assert {what for what, how in found.items() if how == "to compute"} == INFLUENCE


def test_dry_run_names_the_inverse(trained_case: Case) -> None:
    told = succeeds(
        trained_case.cli(
            "score", "--run", trained_case.run, "--dry-run", *implicit("inner.inverse=ggn")
        )
    ).stdout
    assert "inner problem by ggn: to compute" in told
    assert "inner problem by ggn of evaluation tasks: to compute" in told


# What does not go as asked.


def test_inner_solves_that_do_not_converge_are_warned_of(trained_case: Case) -> None:
    few = implicit("inner.inverse=cg", "targets=mean", "max_iterations=1")
    run, outcome = score(trained_case, "run", *few)
    solves = manifest(run)["inner"]["solves"]
    assert 0 < solves["not_converged"] <= solves["solves"] and solves["iterations"] == 1
    for which in ("training", "evaluation"):
        assert f"warning: {which} tasks: inner solves did not converge" in outcome.stderr


def test_indefinite_inner_hessians_are_warned_of(trained_case: Case) -> None:
    little = implicit("inner.inverse=dense", "inner.proximity=1e-4", "targets=mean")
    run, outcome = score(trained_case, "run", *little)
    count = manifest(run)["inner"]["indefinite_tasks"]
    assert count > 0
    assert f"the inner Hessian of {count} tasks is not positive definite" in outcome.stderr


@pytest.fixture(scope="module", params=["Scaled", "transposed"])
def uncovered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Case]:
    """A case whose network has parameters that EK-FAC does not cover."""
    folder = tmp_path_factory.mktemp("uncovered")
    model = own_network(folder, request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAAUDIT_CACHE_DIR", str(folder / "factor-cache"))
        case = write_case(folder / "case", {"model": model, "training.epochs": 1})
        succeeds(case.cli("train"))
        yield case


@pytest.mark.parametrize(
    "asked",
    [
        implicit("inner.inverse=ekfac"),
        options("influence.curvature=ekfac"),
        options("influence.curvature=exact", "influence.preconditioner=ekfac"),
    ],
    ids=["inner", "outer", "preconditioner"],
)
def test_a_network_that_ekfac_does_not_cover_gives_one_line(
    uncovered: Case, asked: list[str]
) -> None:
    outcome = uncovered.cli("score", "--run", uncovered.run, *asked)
    assert outcome.exit_code == 2 and outcome.stdout == ""
    assert re.search(
        r"model(, layer 0)?: is a (Scaled|ConvTranspose2d) with parameters of its own, which "
        r"EK-FAC does not cover; expected Linear, Conv2d and normalisation layers",
        outcome.error,
    )
    assert not uncovered.run.exists()


def test_a_network_that_ekfac_does_not_cover_is_scored_by_another_inverse(
    uncovered: Case, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    succeeds(uncovered.cli("score", "--run", run, *implicit("inner.inverse=ggn")))
    assert all(np.isfinite(values).all() for values in influences(run).values())
