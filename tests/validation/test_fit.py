"""Whether the learner's settings fit the checkpoint: what is measured, and what is warned of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metaaudit.config import load_config
from metaaudit.loading import load_weights, prepare
from metaaudit.problem import Problem
from metaaudit.validation.fit import FACTORS, Fit, fit_lines, fit_warnings, measure
from tests.small import digits, succeeds, write_case

FIT = Fit(
    n_tasks=40,
    n_instances=1000,
    chance=0.2,
    adapted=0.9,
    unadapted=0.2,
    by_rate={0.04: 0.5, 0.4: 0.9, 4.0: 0.7},
    rate=0.4,
)


def test_what_fits_gives_no_warning() -> None:
    assert fit_warnings(FIT) == []
    assert fit_warnings(replace(FIT, by_rate={0.4: 0.9, 1.2: 0.92})) == []  # within the noise
    assert fit_warnings(replace(FIT, unadapted=None, by_rate={}, rate=None)) == []


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"adapted": 0.21}, "accuracy after adaptation is at chance"),
        ({"adapted": 0.62, "unadapted": 0.6}, "adaptation does not help"),
        ({"adapted": 0.5, "by_rate": {0.4: 0.5, 4.0: 0.7}}, "an inner_lr of 4 fits better"),
    ],
)
def test_what_does_not_fit_is_warned_of(changes: dict[str, Any], part: str) -> None:
    found = fit_warnings(replace(FIT, **changes))
    assert any(part in line for line in found)


def test_a_classifier_that_does_not_adapt_is_said_to_be_none() -> None:
    plain = replace(FIT, unadapted=None, by_rate={}, rate=None, adapts=False)
    assert fit_lines(plain) == ["fit: accuracy 0.900 on 1000 evaluation instances, chance 0.200"]
    assert fit_warnings(plain) == []
    (warning,) = fit_warnings(replace(plain, adapted=0.21))
    assert warning.startswith("accuracy is at chance: check that model and data are those")


def test_lines_give_the_numbers() -> None:
    first, second = fit_lines(FIT)
    assert first == (
        "fit: accuracy 0.900 after adaptation to 40 evaluation tasks, 0.200 without adaptation, "
        "chance 0.200"
    )
    assert second == "fit by inner learning rate: 0.04: 0.500, 0.4: 0.900, 4: 0.700"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case with a checkpoint that has learnt something, and enough tasks to see it."""
    train, evaluation = digits(30, 30, 3, 2, 5)
    folder = tmp_path_factory.mktemp("fit")
    case = write_case(
        folder, {"training.epochs": 25, "training.batch": 10}, train=train, evaluation=evaluation
    )
    succeeds(case.cli("train"))
    return folder


def problem(folder: Path, *overrides: str) -> tuple[Problem, Fit]:
    loaded = prepare(load_config(folder / "metaaudit.yaml", overrides))
    return loaded, measure(loaded, load_weights(loaded).params)


def test_a_trained_checkpoint_fits(folder: Path) -> None:
    _, fit = problem(folder)
    assert fit.chance == pytest.approx(1 / 3)
    assert fit.adapted > fit.chance + 0.2
    assert fit.unadapted is not None and fit.adapted > fit.unadapted
    assert list(fit.by_rate) == pytest.approx([factor * 0.3 for factor in FACTORS])
    assert fit.by_rate[0.3] == fit.adapted
    assert fit_warnings(fit) == []


def test_a_rate_that_is_far_too_small_is_told(folder: Path) -> None:
    _, fit = problem(folder, "learner.inner_lr=0.003")
    assert fit_warnings(fit)


def test_accuracy_is_that_of_the_evaluation_tasks(folder: Path) -> None:
    from metaaudit.bilevel import total_gradients

    loaded, fit = problem(folder)
    found = total_gradients(loaded.unrolled(load_weights(loaded).params, loaded.evaluation))
    query = [name == "query" for _, name, _ in loaded.evaluation.instances()]
    assert fit.adapted == pytest.approx(float(found.correct[query].mean()))


@pytest.mark.parametrize("learner", ["{name: protonet}", "{name: ridge}"])
def test_a_learner_without_a_rate_has_none_to_try(folder: Path, learner: str) -> None:
    _, fit = problem(folder, f"learner={learner}")
    assert fit.by_rate == {} and fit.rate is None and fit.unadapted is None
    assert fit.adapted > fit.chance
